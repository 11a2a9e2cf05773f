"""Maintenance every ten minutes: signs the ledger, charges what died, releases what was deleted."""

from __future__ import annotations

from cagg_airflow import maintain_dag

dag = maintain_dag()
