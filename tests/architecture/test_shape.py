"""How the code reads: sizes, names, parameters, exceptions, package files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

LONGEST_FILE = 400
LONGEST_FUNCTION = 70
LONGEST_ADAPTER_FILE = 300
LONGER_FOR_A_REASON = {"shared/cagg/ports.py": 700}  # every interface on one page
AMBIGUOUS_UNITS = {"mj", "mw", "mwh"}  # milli or mega? spelled out instead

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _lines_of_code(function: Function) -> int:
    """Lines from ``def`` to the end, less the docstring: a long contract is no long function."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def _identifiers(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield node, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node, name
            case ast.alias(name=name, asname=asname):
                yield node, asname or name


def _parts(name: str) -> set[str]:
    """The words of snake_case and CamelCase names, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return {part.lower() for part in re.split(r"[_.\W]+", spaced)}


def _mentions_optional_bool(annotation: ast.AST) -> bool:
    """True for ``bool | None``, ``None | bool`` and ``Optional[bool]``, at any depth."""
    text = re.sub(r"\s+", " ", ast.unparse(annotation))
    return bool(re.search(r"\bbool \| None\b|\bNone \| bool\b|\bOptional\[bool\]", text))


def test_files_are_short(product: list[Any]) -> None:
    lengths = {module.name: module.text.count("\n") for module in product}
    limit = {
        name: LONGEST_ADAPTER_FILE if name.startswith(("cagg_prefect/", "cagg_airflow/")) else LONGEST_FILE
        for name in lengths
    }
    limit |= LONGER_FOR_A_REASON
    assert {name: lines for name, lines in lengths.items() if lines > limit[name]} == {}


def test_functions_are_short(product: list[Any]) -> None:
    lengths = {
        f"{module.at(function)} {function.name}": _lines_of_code(function)
        for module in product
        for function in _functions(module.tree)
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}


def test_no_name_leaves_milli_and_mega_open(product: list[Any]) -> None:
    found = [
        f"{module.at(node)} {name}"
        for module in product
        for node, name in _identifiers(module.tree)
        if _parts(name) & AMBIGUOUS_UNITS
    ]
    assert found == []


def test_the_word_search_sees_parts_of_names() -> None:
    assert _parts("cpu_mj") & AMBIGUOUS_UNITS
    assert _parts("priceMwh") & AMBIGUOUS_UNITS
    assert not _parts("milligrams_per_kwh") & AMBIGUOUS_UNITS
    assert not _parts("mjolnir") & AMBIGUOUS_UNITS


def test_exceptions_are_named(product: list[Any]) -> None:
    """``except Exception`` never; bare or BaseException only to clean up and raise again."""
    found = []
    for module in product:
        for handler in (node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler)):
            caught = "BaseException" if handler.type is None else ast.unparse(handler.type)
            words = set(re.findall(r"\w+", caught))
            last = handler.body[-1]
            raises_again = isinstance(last, ast.Raise) and last.exc is None
            if "Exception" in words or ("BaseException" in words and not raises_again):
                found.append(f"{module.at(handler)} except {caught}")
    assert found == []


def test_no_truth_value_has_a_third_meaning(product: list[Any]) -> None:
    found = []
    for module in product:
        for node in ast.walk(module.tree):
            annotations = []
            if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
                annotations.append(node.annotation)
            if isinstance(node, Function) and node.returns is not None:
                annotations.append(node.returns)
            found += [module.at(node) for annotation in annotations if _mentions_optional_bool(annotation)]
    assert found == []


def test_truth_values_are_passed_by_name(product: list[Any]) -> None:
    found = []
    for module in product:
        for function in _functions(module.tree):
            if function.name.startswith("__") and function.name != "__init__":
                continue  # the interpreter decides how it calls these
            arguments = function.args
            positional = [*arguments.posonlyargs, *arguments.args]
            defaults = dict(zip(reversed(positional), reversed(arguments.defaults), strict=False))
            for argument in positional:
                default = defaults.get(argument)
                is_bool = argument.annotation is not None and ast.unparse(argument.annotation) == "bool"
                is_bool |= isinstance(default, ast.Constant) and isinstance(default.value, bool)
                if is_bool:
                    found.append(f"{module.at(argument)} {function.name}({argument.arg})")
    assert found == []


def test_package_files_hold_no_code(product: list[Any]) -> None:
    """A docstring, ``__all__``, re-exports and the lazy loader; what is code has a file with a name."""
    allowed_functions = {"__getattr__", "__dir__"}
    found = []
    for module in product:
        if not module.is_package:
            continue
        for node in module.tree.body:
            match node:
                case ast.Expr(value=ast.Constant(value=str())) | ast.ImportFrom() | ast.Import():
                    continue
                case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    continue
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    if name in {"__all__", "__version__"} or (name.startswith("_") and name.isupper()):
                        continue
                case ast.FunctionDef(name=name) if name in allowed_functions:
                    continue
            found.append(f"{module.at(node)} {type(node).__name__}")
    assert found == []


def test_libraries_do_not_configure_logging(product: list[Any]) -> None:
    found = [
        module.at(node)
        for module in product
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr == "basicConfig"
    ]
    assert found == []
