"""What importing does: next to nothing, and never an engine or an optional package."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = ("alembic", "codecarbon", "cryptography", "httpx", "numpy", "pandas", "pendulum", "prefect", "pynvml", "rich")
HEAVY += ("sklearn", "sqlalchemy", "stamina", "typer")
OPTIONAL = ("prefect", "airflow", "pynvml", "codecarbon", "sklearn", "pandas", "psutil", "hypothesis", "pytest")

_WATCH = """
import json, signal, sys, threading
events = []
def watch(event, arguments):
    if event.split(".")[0] in {"socket", "subprocess", "shutil", "sqlite3", "ctypes"}:
        events.append([event, repr(arguments)])
    elif event in {"os.mkdir", "os.remove", "os.rename", "os.system", "os.fork", "os.exec", "os.posix_spawn",
                   "os.putenv", "_thread.start_new_thread"}:
        events.append([event, repr(arguments)])
    elif event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so")) and "__pycache__" not in str(
        arguments[0]
    ):
        events.append([event, repr(arguments)])
before = [signal.getsignal(number) for number in signal.valid_signals()]
threads = threading.enumerate()
sys.addaudithook(watch)
import cagg
{then}
print(json.dumps({
    "events": events,
    "signals": before == [signal.getsignal(number) for number in signal.valid_signals()],
    "threads": threads == threading.enumerate(),
    "modules": sorted(sys.modules),
}))
"""


def _observe(then: str = "") -> dict[str, Any]:
    code = _WATCH.replace("{then}", then)
    # -I: no user site, no environment; -B: no byte code is written, which would be a file of the interpreter's own.
    done = subprocess.run([sys.executable, "-I", "-B", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(done.stderr, pytrace=False)
    return dict(json.loads(done.stdout))


def _loaded(seen: dict[str, Any], names: tuple[str, ...]) -> set[str]:
    return {module.split(".")[0] for module in seen["modules"]} & set(names)


def test_import_has_no_side_effects() -> None:
    seen = _observe()
    assert seen["events"] == []
    assert seen["signals"]
    assert seen["threads"]


def test_import_loads_no_dependency() -> None:
    assert _loaded(_observe(), HEAVY) == set()


def test_the_values_load_no_dependency() -> None:
    seen = _observe("cagg.GateOptions, cagg.Admit, cagg.Defer, cagg.Review, cagg.Deny, cagg.Decision, cagg.NotAdmitted")
    assert _loaded(seen, HEAVY) == set()
    assert seen["events"] == []


def test_opening_the_gate_module_does_not_load_the_migrations() -> None:
    seen = _observe("cagg.gate")
    assert _loaded(seen, ("alembic", "rich", "typer", *OPTIONAL)) == set()
    assert seen["threads"]
    assert seen["signals"]


def test_every_public_name_is_there() -> None:
    code = "import cagg; [getattr(cagg, name) for name in cagg.__all__]; assert set(cagg.__all__) == set(dir(cagg))"
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    code = "import cagg\ntry: cagg.nothing\nexcept AttributeError as error: print(error)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "module 'cagg' has no attribute 'nothing'"


def test_the_whole_core_imports_without_engines_and_extras(product: list[Any], root: Any) -> None:
    names = [
        ".".join(module.path.relative_to(root / "shared").with_suffix("").parts).removesuffix(".__init__")
        for module in product
        if module.path.is_relative_to(root / "shared")
        and "migrations" not in module.path.parts
        and "testing" not in module.path.parts
        and module.path.name != "__main__.py"
    ]
    assert len(names) > 10
    code = "import importlib, json, sys\n"
    code += f"blocked = {OPTIONAL!r}\n"
    code += "for name in blocked: sys.modules[name] = None\n"
    code += f"for name in {names!r}: importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(done.stderr, pytrace=False)


def test_nobody_imports_the_source_root(everything: list[Any]) -> None:
    found = []
    for module in everything:
        for node in ast.walk(module.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [module.at(node) for name in names if name.split(".")[0] == "shared"]
    assert found == []
