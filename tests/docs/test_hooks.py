"""docs/hooks.md is what the specifications of the hooks say; a hook that changes changes the page."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from sebs_core.hookspecs import DiscoveryHooks, StageHooks, hookspec
from sebs_core.models import Function
from sebs_core.plugins import DISCOVERY, STAGES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "hooks.md").read_text(encoding="utf-8")


def make_hooks(folder=DOCS):
    spec = importlib.util.spec_from_file_location("make_hooks", folder / "make_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = make_hooks()


def changed(home, **hooks):
    """A Protocol class like `home` with these hooks instead of, or beside, its own; None removes one."""
    kept = {name: value for name, value in vars(home).items() if name.startswith("sebs_") or name == "__doc__"}
    kept.update(hooks)
    return type(home.__name__, (), {name: value for name, value in kept.items() if value is not None})


def section(page, hook):
    return page.partition(f"\n### `{hook}`\n")[2].partition("\n### ")[0]


# --- the page is the specification ----------------------------------------------------------------------------------------


def test_the_page_is_what_the_specifications_say():
    assert MAKER.page() == PAGE, "run python docs/make_hooks.py"


@pytest.mark.parametrize("hook", [*DISCOVERY, *STAGES])
def test_every_hook_has_its_section_with_signature_kind_and_docstring(hook):
    text = section(PAGE, hook)
    assert f"def {hook}(" in text
    assert text.strip().startswith("*Stage; " if hook in STAGES else "*Discovery; ")
    assert len(text.partition("```python")[2].partition("```")[2].strip()) > 20


def test_a_copy_of_the_classes_gives_the_same_page():
    assert MAKER.page(changed(DiscoveryHooks), changed(StageHooks)) == PAGE


@pytest.mark.parametrize("why", ["added", "renamed", "removed", "of another type"])
def test_a_changed_argument_is_noticed(why):
    def added(self, function: Function, request_id: str, tail: int) -> str: ...

    def renamed(self, function: Function, request: str) -> str: ...

    def removed(self, function: Function) -> str: ...

    def of_another_type(self, function: Function, request_id: int) -> str: ...

    hook = {"added": added, "renamed": renamed, "removed": removed, "of another type": of_another_type}[why]
    hook.__name__, hook.__doc__ = "sebs_logs", StageHooks.sebs_logs.__doc__
    page = MAKER.page(stages=changed(StageHooks, sebs_logs=hookspec(firstresult=True)(hook)))
    assert page != PAGE
    assert section(page, "sebs_logs") != section(PAGE, "sebs_logs")
    assert section(page, "sebs_deploy") == section(PAGE, "sebs_deploy")


def test_a_new_hook_a_removed_one_another_docstring_and_another_kind_are_noticed():
    def sebs_storage(self) -> Iterable[str]:
        """Where data of benchmarks lies."""

    page = MAKER.page(stages=changed(StageHooks, sebs_storage=hookspec(firstresult=True)(sebs_storage)))
    assert "[`sebs_storage`](#sebs_storage) | the first answer counts | required of a platform |" in page
    page = MAKER.page(stages=changed(StageHooks, sebs_storage=hookspec(sebs_storage)))
    assert "[`sebs_storage`](#sebs_storage) | all are asked |" in page
    assert section(MAKER.page(stages=changed(StageHooks, sebs_logs=None)), "sebs_logs") == ""

    def sebs_event(self, event):
        """Something else."""

    assert "Something else." in MAKER.page(changed(DiscoveryHooks, sebs_event=hookspec(sebs_event)))


# --- the script -----------------------------------------------------------------------------------------------------------


def test_the_script_writes_the_page_and_its_check_notices_a_difference(tmp_path, capsys):
    shutil.copy(DOCS / "make_hooks.py", tmp_path)
    script, page = make_hooks(tmp_path), tmp_path / "hooks.md"
    assert script.main(["--check"]) == 1
    assert not page.exists()
    assert script.main([]) == 0
    assert page.read_text(encoding="utf-8") == PAGE
    assert script.main(["--check"]) == 0
    page.write_text(PAGE.replace("request_id: str", "request: str"), encoding="utf-8")
    capsys.readouterr()
    assert script.main(["--check"]) == 1
    assert "run python docs/make_hooks.py" in capsys.readouterr().err
    assert "request: str" in page.read_text(encoding="utf-8")
    assert script.main(["--chek"]) == 2


def test_the_script_runs_by_hand():
    command = [sys.executable, str(DOCS / "make_hooks.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- what the page says of plugins ----------------------------------------------------------------------------------------


def test_each_refusal_that_the_page_shows_names_the_plugin_or_the_hook():
    shown = PAGE.partition("### What is refused, and why")[2]
    assert shown.count("sebs says: `") == len(MAKER.mistakes()) + 2
    for said in shown.split("sebs says: `")[1:]:
        assert "sebs-mine" in said or "sebs_publish" in said


def test_a_mistake_that_is_not_refused_any_more_fails():
    with pytest.raises(AssertionError, match="nothing refuses"):
        MAKER._refusal(object())


def test_lines_are_short_and_name_nothing_of_a_machine():
    assert [line for line in PAGE.splitlines() if len(line) > 128] == []
    assert str(DOCS.parents[1]) not in PAGE
    assert " at 0x" not in PAGE
