"""The source of one function as a module that stands alone.

The function's text is parsed; each name it takes from its module is resolved: other functions and classes of that module by
their own source, modules by an import, plain constants by their value. What cannot travel is refused with its name.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sebs_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["standalone_source"]


def standalone_source(handler: Callable[[Any], Any]) -> str:
    """Text of a module that defines ``handler`` and all it needs; `ConfigError` says what cannot be carried along."""
    if not inspect.isfunction(handler):
        raise ConfigError(f"a benchmark is made from a plain function, not from {type(handler).__name__} {handler!r}")
    if handler.__name__ == "<lambda>":
        raise ConfigError("a lambda cannot become a benchmark: define it with def")
    if handler.__closure__:
        names = ", ".join(handler.__code__.co_freevars)
        raise ConfigError(f"{handler.__name__} uses variables of the function around it ({names}): pass them in the payload")
    collector = _Collector(handler.__globals__, handler.__module__)
    collector.definition(handler)
    parts = ["from __future__ import annotations", "", *sorted(collector.imports), "", *collector.constants]
    parts += ["", *collector.definitions]
    if handler.__name__ != "handler":
        parts.append(f"handler = {handler.__name__}")
    return "\n".join(parts) + "\n"


class _Collector:
    """Gathers definitions, callees before callers."""

    def __init__(self, namespace: dict[str, Any], module: str) -> None:
        self.namespace = namespace
        self.module = module
        self.imports: set[str] = set()
        self.constants: list[str] = []
        self.definitions: list[str] = []
        self._seen: set[str] = set()

    def definition(self, thing: Any) -> None:
        self._seen.add(thing.__name__)
        try:
            source = textwrap.dedent(inspect.getsource(thing))
        except (OSError, TypeError):
            raise ConfigError(
                f"the source of {thing.__name__} cannot be found; define it in a file or a notebook cell"
            ) from None
        tree = ast.parse(source)
        for name in _names_loaded(tree):
            self.name(name, thing.__name__)
        self.definitions.append(source)

    def name(self, name: str, user: str) -> None:
        if name in self._seen:
            return
        if name not in self.namespace:
            return  # a builtin, a local name, or one that does not exist: then the function fails as it would here
        self._seen.add(name)
        value = self.namespace[name]
        home, own = getattr(value, "__module__", None), getattr(value, "__name__", "")
        if isinstance(value, ModuleType):
            self.imports.add(f"import {own}" + ("" if own == name else f" as {name}"))
        elif (inspect.isfunction(value) or inspect.isclass(value)) and home == self.module:
            self.definition(value)
            if own != name:
                self.definitions.append(f"{name} = {own}")
        elif home and getattr(sys.modules.get(home), own, None) is value:
            self.imports.add(f"from {home} import {own}" + ("" if own == name else f" as {name}"))
        else:
            self.constants.append(f"{name} = {_literal(name, value, user)}")


def _names_loaded(tree: ast.AST) -> list[str]:
    """Names read anywhere but in annotations, which ``from __future__ import annotations`` leaves unevaluated."""
    found: list[str] = []

    class Visitor(ast.NodeVisitor):
        def visit_Name(self, node: ast.Name) -> None:
            if isinstance(node.ctx, ast.Load):
                found.append(node.id)

        def visit_arg(self, node: ast.arg) -> None:
            pass

        def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
            if node.value is not None:
                self.visit(node.value)

        def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
            for part in (*node.decorator_list, node.args, *node.body):
                self.visit(part)

        visit_FunctionDef = _function  # noqa: N815
        visit_AsyncFunctionDef = _function  # noqa: N815

    Visitor().visit(tree)
    return found


def _literal(name: str, value: Any, user: str) -> str:
    text = repr(value)
    try:
        same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        same = False
    if not same:
        raise ConfigError(
            f"{user} uses {name}, a {type(value).__name__} that cannot travel to the platform: make it inside the function, "
            "or pass it in the payload"
        )
    return text
