"""Carbon-aware gates for Airflow: ``@task.carbon_aware(...)``, any operator class, sensors, or no DAG change at all.

Importing this package starts nothing and does not import Airflow: names are loaded when they are first used.
"""
