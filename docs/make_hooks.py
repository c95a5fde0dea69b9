"""Write docs/hooks.md from the specifications of the hooks: ``python docs/make_hooks.py``; ``--check`` only compares.

Everything about a hook comes from its Protocol class and its docstring, everything about a record from its class. What sebs
says of a plugin that breaks a rule comes from breaking it. Written by hand are the introduction and what lies in the
constants of this file.
"""

from __future__ import annotations

import ast
import functools
import inspect
import logging
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import sebs_core
from sebs_core import builtin
from sebs_core.errors import PluginError
from sebs_core.hookspecs import DiscoveryHooks, StageHooks, hookimpl
from sebs_core.models import Record, Tagged
from sebs_core.offers import Extension
from sebs_core.plugins import Plugins, Stages
from sebs_core.settings import Settings

PAGE = Path(__file__).with_name("hooks.md")
WIDTH = 128

NEEDED_WHEN = {
    "sebs_invoke": "needed for triggers that no HTTP request can express",
    "sebs_enforce_cold_start": "needed if it is capable of `cold_start`",
    "sebs_logs": "optional: without it nobody sees what a function printed",
}
"""Of stages without an answer in core those that a platform may lack, and when it may."""

INTRODUCTION = """\
# The hooks

A hook is a question that core asks its plugins. Everything a plugin can do, it does by answering hooks. This page lists all of
them. It is generated from `sebs_core/hookspecs.py` by `python docs/make_hooks.py`; a test compares the two.

How to use them is in [writing-a-benchmark.md](writing-a-benchmark.md) and [writing-an-extension.md](writing-an-extension.md).

There are two kinds:

- **Discovery hooks** ask every installed plugin what it offers. They are functions of the plugin's module, which is named by an
  entry point of the group `sebs`. They import no SDK, because they are asked at every start.
- **Stages** do the work of one platform. They are methods of the object that the platform's `create(settings, context)`
  returns. The same stages can be wrapped by a function of a plugin's module, and replaced by an [Extension](#extension).

An implementation is marked with `@sebs_core.hookimpl`. It has the name of the hook and takes those of its arguments that it
needs, by name and without defaults. A method has `self` besides.

*The first answer counts* means: implementations are asked in turn until one answers something else than `None`. Chosen
extensions are asked first (of several the one that was named last), then the platform, then core. *All are asked* means that
each implementation is called.

Contents: [all hooks](#all-hooks) · [discovery hooks](#discovery-hooks) · [stages](#stages) ·
[what hooks speak of](#what-hooks-speak-of) · [compatibility](#compatibility) ·
[what is refused, and why](#what-is-refused-and-why)
"""

COMPATIBILITY = """\
## Compatibility

### What a plugin may rely on

- **Names.** The names of hooks and of their arguments, the fields of records and events, and what can be imported from
  `sebs_core` itself. Beside it `package_of`, which is in `sebs_core.packaging`.
- **Arguments are only added.** An implementation takes the arguments that it needs, so a new one breaks nobody.
- **Hooks are only added.** A new stage has an answer in core, or is asked for only by those who use what it brings.
- **Events.** Kinds of events are added, and fields of events. An observer passes over what it does not know.
- **Records keep what they do not know.** A field that another version or a plugin has added survives reading and writing. A
  [tagged](#function) record of a plugin that is not installed is read as the general one, with every field kept.
- **Order.** First answers come from the extension that was named last, then the ones named before it, the platform, and core.
  Wrappers are around all of these.
- **Threads.** A session belongs to one thread, and so do its stages and events. Only `sebs_invoke` is called from others.
- **Failures.** A plugin that cannot be loaded is a warning and an `error` in `sebs plugin list`. One that raises in a discovery
  hook is a warning, and offers nothing. The other plugins work. An exception in a stage ends what was asked for; a
  [SebsError][errors] is told to the user as one sentence, anything else as a defect.

Until version 1.0 a breaking change raises the second number of core's version, afterwards the first. So a plugin pins core by
range in its `pyproject.toml`:

```toml
dependencies = ["sebs-core>=0.1,<0.2"]
```

A plugin that uses a hook, an argument or a field of a later version raises the lower end of the range. An older core does not
ignore what it does not know: it refuses the plugin, as the list below shows.

### How hooks grow

The rules for those who add hooks are in [CONTRIBUTING.md](../CONTRIBUTING.md#how-hooks-grow). In short: a new question is a new
hook. *What is there?* collects from all. *Do it* takes the first answer, and never answers `None`. *It happened* is a new kind
of event. Nothing is renamed, nothing is removed, nothing changes its meaning.

[errors]: ../src/sebs_core/sebs_core/errors.py
"""

REFUSED = """\
### What is refused, and why

The library behind the hooks, pluggy, calls an implementation only if everything about it is right, and is often silent when it
is not: a misspelt stage would just never be called, and a result would be wrong without a word. So sebs looks at each plugin
when it is registered. Whatever begins with `sebs_`, can be called and is no module must be a hook: give helpers other names.
"""


# --- what is specified ----------------------------------------------------------------------------------------------------


def hooks_of(home: type) -> dict[str, Any]:
    """The hooks of a Protocol class in their order."""
    return {name: hook for name, hook in vars(home).items() if name.startswith("sebs_")}


def signature(hook: Any) -> str:
    """``def name(argument: type, …) -> type``, on one line if it fits."""
    told = inspect.signature(hook)
    given = [parameter for parameter in told.parameters.values() if parameter.name != "self"]
    arguments = [f"{parameter.name}: {parameter.annotation}" for parameter in given]
    end = f" -> {told.return_annotation}"
    line = f"def {hook.__name__}({', '.join(arguments)}){end}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"def {hook.__name__}(", *(f"    {argument}," for argument in arguments), f"){end}"])


def kind_of(home_is_stage: bool, hook: Any) -> tuple[str, str]:
    """How many answers count, and who has to give one."""
    first = hook.sebs_spec["firstresult"]
    asked = "the first answer counts" if first else "all are asked"
    name = hook.__name__
    own = getattr(builtin.BuiltInStages if home_is_stage else builtin, name, None)
    if not home_is_stage:
        return asked, "core answers too" if own else "optional"
    if name in NEEDED_WHEN:
        return asked, NEEDED_WHEN[name]
    if first:
        return asked, "core has an answer" if own else "required of a platform"
    return asked, "required of a platform" if inspect.signature(hook).return_annotation != "None" else "optional"


def spoken_of(text: str) -> list[type]:
    """The classes of `sebs_core` that are named in annotations."""
    found = [getattr(sebs_core, word) for word in dict.fromkeys(re.findall(r"\w+", text)) if word in sebs_core.__all__]
    return [one for one in found if isinstance(one, type)]


# --- the classes that hooks speak of --------------------------------------------------------------------------------------


@functools.cache
def _source(described: type) -> str:
    return inspect.getsource(sys.modules[described.__module__])


def _written(described: type, node: ast.AST) -> str:
    """As it stands in the source, on one line: the same on every version of Python."""
    return " ".join((ast.get_source_segment(_source(described), node) or "").split())


def _body(described: type) -> list[ast.stmt]:
    for node in ast.parse(_source(described)).body:
        if isinstance(node, ast.ClassDef) and node.name == described.__name__:
            return node.body
    raise LookupError(f"{described.__module__} has no class {described.__name__}")


@functools.cache
def members(described: type) -> list[tuple[str, str]]:
    """Fields, properties and methods of a class itself: how each is written, and what its docstring says."""
    body = _body(described)
    told = []
    for place, node in enumerate(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            kind = _written(described, node.annotation)
            if not node.target.id.startswith("_") and "ClassVar" not in kind:
                told.append((f"{node.target.id}: {kind}{_default(described, node.value)}", _docstring_after(body, place)))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            is_property = any("property" in _written(described, decorator) for decorator in node.decorator_list)
            called = "" if is_property else f"({', '.join(_arguments(described, node.args))})"
            answer = f" -> {_written(described, node.returns)}" if node.returns else ""
            told.append((f"{node.name}{called}{answer}", ast.get_docstring(node) or ""))
    return told


def _arguments(described: type, arguments: ast.arguments) -> list[str]:
    plain = arguments.args
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    told = [f"{_written(described, one)}{_default(described, value)}" for one, value in zip(plain, defaults, strict=True)]
    told = [one for one in told if one != "self"]
    if arguments.vararg or arguments.kwonlyargs:
        told.append(f"*{_written(described, arguments.vararg)}" if arguments.vararg else "*")
    for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        told.append(f"{_written(described, one)}{_default(described, value)}")
    return [*told, *([f"**{_written(described, arguments.kwarg)}"] if arguments.kwarg else [])]


def _default(described: type, value: ast.expr | None) -> str:
    if value is None:
        return ""
    if isinstance(value, ast.Call) and _written(described, value.func) in ("Field", "field"):
        given = {keyword.arg: _written(described, keyword.value) for keyword in value.keywords}
        made = {"dict": "{}"}.get(given.get("default_factory", ""))
        default = given.get("default", made)
        return "" if default is None else f" = {default}"
    return f" = {_written(described, value)}"


def _docstring_after(body: list[ast.stmt], place: int) -> str:
    following = body[place + 1] if place + 1 < len(body) else None
    if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) and isinstance(following.value.value, str):
        return inspect.cleandoc(following.value.value)
    return ""


def all_spoken_of(homes: tuple[type, ...]) -> list[type]:
    """Every class that a hook speaks of, and those that these speak of, and so on; sorted by name."""
    waiting = [one for home in homes for hook in hooks_of(home).values() for one in spoken_of(signature(hook))]
    found: set[type] = set()
    while waiting:
        described = waiting.pop()
        if described in found:
            continue
        found.add(described)
        waiting += [other for written, _ in members(described) for other in spoken_of(written)]
        waiting += [other for other in described.__subclasses__() if other.__module__ == "sebs_core.events"]
    return sorted(found, key=lambda one: one.__name__)


def sort_of(described: type) -> str:
    """What sort of class it is, in a few words."""
    if issubclass(described, Tagged):
        return f'tagged record: a plugin may extend it, `class Mine({described.__name__}, tag="mine")`'
    if issubclass(described, Record):
        return "record: frozen, keeps fields that it does not know"
    if issubclass(described, Settings):
        return "settings: frozen, unknown names are errors"
    if issubclass(described, sebs_core.Event):
        return "event: frozen"
    if getattr(described, "_is_protocol", False):
        return "protocol: what core hands over has these methods"
    return "frozen" if getattr(getattr(described, "__dataclass_params__", None), "frozen", False) else "object"


# --- Markdown -------------------------------------------------------------------------------------------------------------


def markdown(docstring: str) -> str:
    """A docstring as Markdown: its code, its examples, its links."""
    parts = []
    for part in re.split(r"\n\n(?=\S)", inspect.cleandoc(docstring)):
        before, marked, code = part.partition("::\n\n")
        text = re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", before.replace("``", "`"))
        parts.append(_filled(f"{text}:" if marked else text))
        if marked:
            kind = "python" if before.startswith("Example") else "text"
            parts.append(f"```{kind}\n{textwrap.dedent(code).strip()}\n```")
    return "\n\n".join(parts)


def _filled(text: str, first: str = "", later: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def bullet(written: str, docstring: str) -> str:
    """One member of a class as an entry of a list."""
    about = " ".join(part for part in markdown(docstring).split("\n\n") if not part.startswith("```"))
    return _filled(" ".join(f"`{written}`{': ' if about else ''}{about}".split()), "- ", "  ")


def linked(names: list[type]) -> str:
    """Links to the classes' sections."""
    return ", ".join(f"[{one.__name__}](#{one.__name__.lower()})" for one in names)


def hook_section(is_stage: bool, hook: Any) -> str:
    """One hook."""
    asked, who = kind_of(is_stage, hook)
    parts = [f"### `{hook.__name__}`", f"*{'Stage' if is_stage else 'Discovery'}; {asked}; {who}.*"]
    parts += [f"```python\n{signature(hook)}\n```", markdown(hook.__doc__ or "")]
    named = spoken_of(signature(hook))
    if named:
        parts.append(_filled(f"See {linked(named)}."))
    return "\n\n".join(parts)


def class_section(described: type) -> str:
    """One class."""
    sort = sort_of(described)
    parts = [f"### `{described.__name__}`", f"*{sort[0].upper()}{sort[1:]}.*", markdown(described.__doc__ or "")]
    listed = [bullet(written, docstring) for written, docstring in members(described)]
    if listed:
        parts.append("\n".join(listed))
    kinds = [one for one in described.__subclasses__() if one.__module__ == "sebs_core.events"]
    if kinds:
        parts.append(_filled(f"Kinds: {linked(kinds)}."))
    return "\n\n".join(parts)


def overview(homes: tuple[tuple[type, bool], ...]) -> str:
    """All hooks in one table."""
    rows = ["| hook | answers | who |", "|---|---|---|"]
    for home, is_stage in homes:
        for name, hook in hooks_of(home).items():
            asked, who = kind_of(is_stage, hook)
            rows.append(f"| [`{name}`](#{name}) | {asked} | {who} |")
    return "\n".join(rows)


# --- what is refused: by doing it -----------------------------------------------------------------------------------------


class _Entry:
    """An entry point that gives this module."""

    def __init__(self, name: str, module: object) -> None:
        self.name = self.value = name
        self.dist = SimpleNamespace(name=f"sebs-{name}", version="1.0")
        self._module = module

    def load(self) -> object:
        return self._module


def mistakes() -> list[tuple[str, str, object]]:
    """What a plugin does wrong, why that is refused, and an object that does it."""

    def misspelt(self: object) -> None: ...

    def unmarked(self: object) -> None: ...

    @hookimpl
    def with_default(self: object, function: object, request_id: str = "") -> str:
        return request_id

    @hookimpl
    def unknown_argument(self: object, function: object, request: str) -> str:
        return request

    @hookimpl(wrapper=True)
    def no_generator(self: object) -> None: ...

    def offered(name: str, hook: Any) -> object:
        return type("Mine", (), {name: hook})()

    return [
        ("A `sebs_…` without `@hookimpl`", "it would never be called", offered("sebs_open", unmarked)),
        ("A name that is no hook", "it would never be called", offered("sebs_depoly", hookimpl(misspelt))),
        ("An argument with a default", "pluggy would never pass it", offered("sebs_logs", with_default)),
        ("An argument that the hook does not have", "nobody could pass it", offered("sebs_logs", unknown_argument)),
        ("A wrapper without `yield`", "it wraps nothing", offered("sebs_open", no_generator)),
        ("A class instead of an object", "its methods have no `self`", type("Mine", (), {})),
    ]


def module_with(**hooks: Any) -> ModuleType:
    """A plugin's module."""
    module = ModuleType("mine")
    vars(module).update({name: hookimpl(hook) for name, hook in hooks.items()})
    return module


def refusals() -> str:
    """What sebs says to each of these mistakes."""
    rows = [(what, why, _refusal(plugin)) for what, why, plugin in mistakes()]
    logging.disable(logging.WARNING)
    replacing = Plugins([_Entry("mine", module_with(sebs_publish=lambda package: package))])  # type: ignore[list-item]
    logging.disable(logging.NOTSET)
    why = "installing a package would change everybody's numbers"
    rows.append(("A module that answers a stage", why, replacing.installed[-1].error or ""))
    entries = [_Entry(name, module_with(sebs_extensions=lambda: [Extension("it", "…", object)])) for name in ("mine", "yours")]
    try:
        Plugins(entries).extensions(["it"])  # type: ignore[arg-type]
    except PluginError as error:
        rows.append(("A name that two plugins offer", "it would be chance which one acts", str(error)))
    return "\n".join(_filled(f"**{what}**: {why}. sebs says: `{said}`", "- ", "  ") for what, why, said in rows)


def _refusal(plugin: object) -> str:
    try:
        Stages(Plugins([])).add(plugin, "sebs-mine 1.0")
    except PluginError as error:
        return re.sub(r"(hookimpl definition: ).*?(?=Argument|Declared)", r"\1… ", str(error))
    raise AssertionError(f"nothing refuses {plugin!r}")


# --- the page -------------------------------------------------------------------------------------------------------------


def page(discovery: type = DiscoveryHooks, stages: type = StageHooks) -> str:
    """The whole text of docs/hooks.md."""
    homes = ((discovery, False), (stages, True))
    parts = [INTRODUCTION.strip(), "## All hooks", overview(homes)]
    for title, (home, is_stage) in zip(("## Discovery hooks", "## Stages"), homes, strict=True):
        parts += [title, markdown(home.__doc__ or ""), *(hook_section(is_stage, hook) for hook in hooks_of(home).values())]
    parts += ["## What hooks speak of", "All of these can be imported from `sebs_core`."]
    parts += [class_section(described) for described in all_spoken_of((discovery, stages))]
    parts += [COMPATIBILITY.partition("[errors]:")[0].strip(), REFUSED.strip(), refusals()]
    parts += ["[errors]:" + COMPATIBILITY.partition("[errors]:")[2].rstrip()]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; returns the exit status."""
    if set(arguments) - {"--check"}:
        print("usage: python docs/make_hooks.py [--check]", file=sys.stderr)
        return 2
    made = page()
    if not arguments:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == made:
        return 0
    print(f"{PAGE.name} differs from the specifications: run python docs/make_hooks.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
