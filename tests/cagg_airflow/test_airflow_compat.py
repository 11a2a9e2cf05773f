"""The private parts of Airflow that the adapter touches are there, and do what compat.py says they do."""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

import cagg_airflow
from cagg_airflow import compat
from cagg_airflow.operators import gated_class

FOLDER = Path(cagg_airflow.__file__).parent


def test_the_operator_of_a_plain_task_is_the_class_that_is_gated() -> None:
    with DAG("d"):

        @task
        def work() -> None: ...

        operator = work().operator
    assert type(operator) is compat.python_task_class()


def test_a_recast_task_keeps_its_place_arguments_and_copies() -> None:
    with DAG("d") as dag:
        first = BashOperator(task_id="a", bash_command="true", env={"X": "1"})
        second = BashOperator(task_id="b", bash_command="true")
        first >> second
    compat.recast(first, gated_class(BashOperator, "BashOperator"), {"carbon": {"zone": "GB"}})
    assert dag.get_task("a") is first
    assert first.downstream_task_ids == {"b"}
    assert (first.bash_command, first.env, first.carbon) == ("true", {"X": "1"}, {"zone": "GB"})
    for again in (copy.copy(first), copy.deepcopy(first), first.prepare_for_execution()):
        assert type(again) is type(first)
        assert again.carbon == {"zone": "GB"}


def test_mapped_tasks_are_told_from_others() -> None:
    with DAG("d"):
        plain = BashOperator(task_id="a", bash_command="true")
        mapped = BashOperator.partial(task_id="b").expand(bash_command=["true"])
    assert (compat.is_mapped(plain), compat.is_mapped(mapped)) == (False, True)
    mapped.operator_class = gated_class(BashOperator, "BashOperator")
    assert mapped.unmap({"bash_command": "true"}).carbon == {}


def test_the_runtime_task_instance_counts_tries_as_the_adapter_reads_them() -> None:
    assert {"try_number", "max_tries", "map_index", "dag_id", "run_id", "task_id"} <= set(
        RuntimeTaskInstance.model_fields
    )


def test_what_ends_well_and_what_gives_way_are_no_failures_of_the_work() -> None:
    assert not set(compat.ENDS_WELL) & set(compat.GIVES_WAY)
    assert all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in compat.GIVES_WAY)
    assert compat.AirflowFailException not in (*compat.ENDS_WELL, *compat.GIVES_WAY)


@pytest.mark.parametrize(
    "name", ["asking.py", "decorators.py", "mixin.py", "opening.py", "operators.py", "policing.py"]
)
def test_nothing_private_of_airflow_is_touched_outside_of_compat(name: str) -> None:
    tree = ast.parse((FOLDER / name).read_text(encoding="utf-8"))
    imported = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "airflow"
        for alias in node.names
    ]
    assert imported in ([], ["airflow.sdk.BaseOperator"])
    touched: list[Any] = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "leaving"})
    ]
    assert touched == []
