"""What ``import sebs_core`` offers, and what it costs."""

import importlib
import json

import pytest

import sebs_core

NOT_AT_IMPORT = [
    "boto3", "botocore", "azure", "google", "docker", "pandas", "numpy", "scipy", "polars", "pyarrow", "rich", "pycurl",
    "arro3", "click", "httpx", "IPython", "uv", "asyncio", "http.client",
]  # fmt: skip


def test_the_names_are_sorted_complete_and_each_can_be_imported():
    assert list(sebs_core.__all__) == sorted(set(sebs_core.__all__))
    for name in sebs_core.__all__:
        assert getattr(sebs_core, name) is not None
    assert set(sebs_core.__all__) <= set(dir(sebs_core))


def test_what_type_checkers_see_is_what_is_there():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(sebs_core.__file__).read_text())
    (checking,) = [node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"]
    seen = {alias.name: node.module for node in checking.body for alias in node.names}
    there = {name: f"sebs_core.{module}" for name, module in sebs_core._MODULE_OF.items()}
    assert seen == there


@pytest.mark.parametrize("name", sorted(set(sebs_core._MODULE_OF.values())))
def test_every_public_name_of_a_module_that_is_offered_is_exported_by_that_module(name):
    module = importlib.import_module(f"sebs_core.{name}")
    offered = {public for public, home in sebs_core._MODULE_OF.items() if home == name}
    assert offered <= set(module.__all__)


def test_everything_that_is_offered_is_explained():
    for name in sebs_core.__all__:
        thing = getattr(sebs_core, name)
        assert (thing.__doc__ or "").strip(), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'platfroms'"):
        _ = sebs_core.platfroms


@pytest.mark.parametrize("what", ["sebs_core", "hookimpl", "PlatformInfo"])
def test_importing_it_loads_no_sdk_and_nothing_heavy(run_python, what):
    statement = "import sebs_core" if what == "sebs_core" else f"from sebs_core import {what}"
    done = run_python(f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))")
    loaded = set(json.loads(done.stdout))
    assert [name for name in NOT_AT_IMPORT if name in loaded] == []


def test_a_module_for_each_public_name_is_loaded_only_when_it_is_used(run_python):
    done = run_python(
        """
        import sys, sebs_core
        print("sebs_core.session" in sys.modules)
        sebs_core.connect
        print("sebs_core.session" in sys.modules, "pycurl" in sys.modules, "rich" in sys.modules)
        """
    )
    assert done.stdout.split() == ["False", "True", "False", "False"]


def test_platforms_lists_what_is_there_and_what_could_not_be_loaded(world, monkeypatch):
    from double_platform import FakeEntryPoint, plugin_of

    from sebs_core.plugins import Plugins

    plugins = Plugins([FakeEntryPoint("double", plugin_of(world)), FakeEntryPoint("broken", ImportError("no sdk"))])
    monkeypatch.setattr("sebs_core.plugins.installed", lambda: plugins)
    listed = {platform.name: platform.error for platform in sebs_core.platforms()}
    assert listed == {"double": None, "broken": "ImportError: no sdk"}


def test_the_version_is_the_one_that_is_installed():
    from importlib import metadata

    assert sebs_core.__version__ == metadata.version("sebs-core")
