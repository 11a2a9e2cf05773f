"""Budgets: the rules per path and period, reservations against them, and estimates of what a run will take."""
