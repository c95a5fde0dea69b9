"""The source of one function as a module that stands alone.

The function is compiled, and each name that it takes from its module is resolved: functions and classes of that module by
their own source, modules by an import, plain constants by their value. What cannot travel is refused with its name.
"""

from __future__ import annotations
import __future__ as future

import ast
import dis
import inspect
import sys
import textwrap
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from sebs_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["standalone_source"]


def standalone_source(handler: Callable[[Any], Any]) -> str:
    """Text of a module that defines ``handler`` and all it needs; `ConfigError` says what cannot be carried along."""
    if not inspect.isfunction(handler):
        raise ConfigError(f"a benchmark is made from a plain function, not from {type(handler).__name__} {handler!r}")
    if handler.__name__ == "<lambda>":
        raise ConfigError("a lambda cannot become a benchmark: define it with def")
    inner = inspect.unwrap(handler)
    if inner.__closure__:
        names = ", ".join(inner.__code__.co_freevars)
        raise ConfigError(f"{handler.__name__} uses variables of the function around it ({names}): pass them in the payload")
    collector = _Collector(inner.__globals__, inner.__module__)
    collector.definition(handler)
    parts = ["from __future__ import annotations", "", *sorted(collector.imports), "", *collector.definitions]
    if handler.__name__ != "handler":
        parts.append(f"handler = {handler.__name__}")
    return "\n".join(parts) + "\n"


class _Collector:
    """Gathers definitions, what is used before what uses it."""

    def __init__(self, namespace: dict[str, Any], module: str) -> None:
        self.namespace = namespace
        self.module = module
        self.imports: set[str] = set()
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
        # With this flag annotations are not evaluated, here as in the module that is written.
        code = compile(source, "<function>", "exec", flags=future.annotations.compiler_flag, dont_inherit=True)
        for path in _names_taken(code):
            self._take(path, thing.__name__)
        self.definitions.append(source)

    def _take(self, path: list[str], user: str) -> None:
        name = path[0]
        if name not in self.namespace or name.startswith("__"):
            return  # a builtin, or what does not exist: then the function fails there as it would here
        value = self.namespace[name]
        if isinstance(value, ModuleType):
            self._import(value.__name__, name, path[1:])
            return
        if name in self._seen:
            return
        self._seen.add(name)
        home, own = getattr(value, "__module__", None), getattr(value, "__name__", "")
        has_source = inspect.isfunction(value) or inspect.isclass(value) or hasattr(value, "__wrapped__")
        if home == self.module and has_source:
            self.definition(value)
            if own != name:
                self.definitions.append(f"{name} = {own}")
        elif home and home != self.module and (public := _public_home(home, own, value)):
            self.imports.add(f"from {public} import {own}" + ("" if own == name else f" as {name}"))
        elif (text := _literal(value)) is not None:
            self.definitions.append(f"{name} = {text}")
        elif module := _standard_home(name, own, value):
            self.imports.add(f"from {module} import {own or name}" + (f" as {name}" if own not in ("", name) else ""))
        else:
            raise ConfigError(
                f"{user} uses {name}, a {type(value).__name__} that cannot travel to the platform: make it inside the "
                "function, or pass it in the payload"
            )

    def _import(self, module: str, name: str, attributes: list[str]) -> None:
        """Import the module under its name here, and those of its submodules that are reached through it."""
        self.imports.add(f"import {module}" + ("" if name == module else f" as {name}"))
        for attribute in attributes:
            module = f"{module}.{attribute}"
            if module not in sys.modules:
                return
            self.imports.add(f"import {module}")


def _public_home(module: str, name: str, value: Any) -> str | None:
    """The outermost module from which `value` can be imported by this name: inner ones differ between versions."""
    parts = module.split(".")
    homes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((home for home in homes if getattr(sys.modules.get(home), name, None) is value), None)


def _names_taken(code: CodeType) -> Iterator[list[str]]:
    """Each global that the code reads, with the attributes read from it: ``["os", "path", "join"]``."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_NAME"}
    path: list[str] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path.append(instruction.argval)
            continue
        if path:
            yield path
        path = []
        if instruction.opname == "LOAD_GLOBAL" or (instruction.opname == "LOAD_NAME" and instruction.argval not in own):
            path = [instruction.argval]
    if path:
        yield path
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_taken(constant)


def _standard_home(name: str, own: str, value: Any) -> str | None:
    """A module of the standard library that has this very object, such as ``math.inf`` or ``random.random``."""
    loaded = (module for module in sorted(sys.stdlib_module_names) if module in sys.modules and module[0] != "_")
    return next((m for m in loaded if getattr(sys.modules[m], own or name, None) is value), None) if value is not None else None


def _literal(value: Any) -> str | None:
    """The constant as Python text, or None when no text means the same."""
    text = repr(value)
    try:
        return text if ast.literal_eval(text) == value else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
