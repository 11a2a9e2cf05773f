"""The steps of the one use case, in the order in which a request meets them.

situation (what is known, with its deadline) -> recording (decide, hold, record; outage without a store) -> running
(meter, beat) -> pricing -> settlements; expiring charges what died, spooling brings in what could not be
recorded. ``cagg.gating`` strings them together. budgets changes a limit and records it.
"""
