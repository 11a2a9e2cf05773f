"""Every public name says what it is."""

from __future__ import annotations

import ast
from typing import Any

WITHOUT_ALL = {"__main__.py", "env.py"}


def _public(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def _documented(tree: ast.Module) -> set[str]:
    """Names that a docstring, or a string right below a constant, describes; and names imported from elsewhere."""
    names: set[str] = set()
    for node, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names |= {node.name} if ast.get_docstring(node) or _is_overload(node) else set()
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            explained = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets} if explained else set()
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            names |= _documented(ast.Module(body=node.body, type_ignores=[]))
    return names


def _is_overload(node: ast.AST) -> bool:
    return any("overload" in ast.unparse(decorator) for decorator in getattr(node, "decorator_list", []))


def test_every_module_has_a_docstring(product: list[Any]) -> None:
    missing = [module.name for module in product if len(ast.get_docstring(module.tree) or "") < 20]
    assert missing == []


def test_every_public_module_names_its_public_names(product: list[Any]) -> None:
    missing = [
        module.name
        for module in product
        if not module.is_package
        and not module.is_private
        and module.path.name not in WITHOUT_ALL
        and "versions" not in module.path.parts
        and not _public(module.tree)
    ]
    assert missing == []


def test_every_public_name_has_a_docstring(product: list[Any]) -> None:
    missing = []
    for module in (module for module in product if not module.is_private):
        known = _documented(module.tree) | ({"__version__"} if module.is_package else set())
        missing += [f"{module.name} {name}" for name in _public(module.tree) if name not in known]
    assert missing == []


def test_every_public_name_exists(product: list[Any]) -> None:
    missing = []
    for module in product:
        there = {name for node in module.tree.body for name in _defined(node)}
        missing += [f"{module.name} {name}" for name in _public(module.tree) if name not in there]
    assert missing == []


def _defined(node: ast.stmt) -> set[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {ast.unparse(target) for target in targets}
        case ast.AnnAssign(target=target):
            return {ast.unparse(target)}
        case ast.ImportFrom(names=names) | ast.Import(names=names):
            return {alias.asname or alias.name for alias in names}
        case ast.If(body=body):
            return {name for inner in body for name in _defined(inner)}
    return set()
