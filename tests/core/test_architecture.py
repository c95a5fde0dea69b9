"""Rules of the house, checked on the source: no provider's name in core, and imports only go down the floors.

Floors (design §2): a module imports from its own floor or from those below. Exempt: imports for type checking alone (nothing
is imported when the program runs), and ``sebs_core/__init__.py``, the façade, which imports everything lazily and is itself
imported for ``__version__``, `hookimpl` and the like. Imports inside functions are *not* exempt from the floors: lazy or not,
they are a dependency; what is exempt for them is the rule against circles, because a circle inside one floor is harmless once
both modules are loaded.
"""

import ast
import graphlib
import io
import re
import tokenize
from pathlib import Path

import pytest

import sebs_core

ROOT = Path(sebs_core.__file__).parent
MODULES = {path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__"): path for path in ROOT.rglob("*.py")}
FUNCTION_SIDE = {name for name in MODULES if name.startswith("function_side")}

FLOORS = {
    0: ["errors", "models", "settings", "events", "hookspecs", "exchange", "offers", "keypath", "confidential"],
    1: ["plugins", "cache", "state", "context", "database", "locks", "benchmark", "packaging", "load", "engine", "storage",
        "stats", "pricing", "builtin", "machine", "notebook", "interrupts", "rows", "rundir", "summary"],
    2: ["session", "result", "run", "packages", "functions", "identity", "inventory"],
    3: ["experiments", "report"],
    4: ["cli", "__main__"],
}  # fmt: skip
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}


def top(module):
    """The name in the table: of ``packaging/source`` it is ``packaging``."""
    return module.split("/")[0]


def imports_of(module):
    """(imported module of ours, line, whether at module level) of everything but type checking."""
    tree = ast.parse(MODULES[module].read_text())
    found = []

    def visit(node, depth):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                visit(other, depth)
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, depth == 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            submodules = [alias.name for alias in node.names if node.module == "sebs_core" and alias.name in MODULES]
            found.extend((f"sebs_core.{name}", node.lineno, depth == 0) for name in submodules)
            if not submodules:
                found.append((node.module, node.lineno, depth == 0))
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, depth + inside)

    visit(tree, 0)
    for name, line, at_module_level in found:
        if name.startswith("sebs_core."):
            path = name.removeprefix("sebs_core.").replace(".", "/")
            while path not in MODULES:
                path = path.rpartition("/")[0]
            yield path, line, at_module_level


KIT = {name for name in MODULES if top(name) == "testing"}
"""For plugin authors: it imports everything, and only the commands that run it import it."""
RUNS_THE_KIT = {"cli/platform", "cli/plugin"}
OWN = sorted(set(MODULES) - FUNCTION_SIDE - KIT - {"__init__", "."} - {""})


def test_every_module_has_its_floor():
    assert [name for name in OWN if top(name) not in FLOOR_OF] == []


@pytest.mark.parametrize("module", OWN)
def test_imports_only_go_down(module):
    wrong = [
        f"line {line}: {imported}"
        for imported, line, at_module_level in imports_of(module)
        if (imported in KIT and (module not in RUNS_THE_KIT or at_module_level))
        or (imported not in KIT and FLOOR_OF[top(imported)] > FLOOR_OF[top(module)])
    ]
    assert wrong == []


def test_no_circle_of_imports_at_module_level():
    graph = {module: {name for name, _, now in imports_of(module) if now and name != module} for module in OWN}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_function_side_code_imports_the_standard_library_only():
    import sys

    for name in FUNCTION_SIDE:
        for node in ast.walk(ast.parse(MODULES[name].read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for imported in names:
                first = imported.split(".")[0]
                assert first in sys.stdlib_module_names or first in ("function", "sebs_function"), f"{name} imports {imported}"


# --- names ----------------------------------------------------------------------------------------------------------------

PROVIDERS = re.compile(r"aws|\bazure|\bgcp\b|google|openwhisk|knative|\bgcf\b|amazon|dynamo|\bs3\b|cosmos", re.IGNORECASE)
LAMBDA = re.compile(r"(?<![<\w])lambdas?(?![\w>])", re.IGNORECASE)
ABOUT_THE_KEYWORD = {"benchmark", "packaging/source"}
"""Where `Benchmark.from_function` explains that Python's own lambdas cannot travel."""
MAY_SAY_LOCAL = {"session": "connect's default", "cli/options": "--platform's default", "__init__": "the example of connect",
                 "plugins": "what to install first"}  # fmt: skip


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_providers_name_occurs(module):
    text = MODULES[module].read_text()
    assert [line for line in text.splitlines() if PROVIDERS.search(line)] == []
    said = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string != "lambda" and LAMBDA.search(token.string) and module not in ABOUT_THE_KEYWORD:
            said.append((token.start[0], token.string))
    assert said == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_platform_of_this_machine_is_a_default_only(module):
    """As a platform's name: ``"local"`` or ``sebs-local``, ``sebs_local``; the adjective is plain English."""
    named = re.findall(r"[\"']local[\"']|sebs[-_]local", MODULES[module].read_text())
    assert len(named) <= (1 if module in MAY_SAY_LOCAL else 0)


@pytest.mark.parametrize("module", sorted(name for name in MODULES if top(name) != "cli"))
def test_rich_and_click_live_in_the_command_line_only(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"rich", "click"}
