"""The guides for those who write plugins, executed as the tutorial is, each in an environment of its own.

A reader installs things, so each guide gets a fresh virtual environment with the workspace in it. Sections run in the order of
the page; the files of a section are written when it begins. What the index of packages is needed for is skipped without it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sebs_core.packaging.python import NO_NETWORK

ROOT = Path(__file__).parents[2]
GUIDES = {name: ROOT / "docs" / f"{name}.md" for name in ("writing-a-benchmark", "writing-an-extension", "writing-a-platform")}
NEEDS_INDEX = ("uv pip install", "uv build")


def tutorial_of(page):
    """The machinery of the tutorial's test, reading this page."""
    spec = importlib.util.spec_from_file_location(f"executed_{page.stem}", Path(__file__).with_name("test_tutorial.py"))
    machinery = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = machinery  # dataclasses look their module up
    spec.loader.exec_module(machinery)
    machinery.TUTORIAL = page
    machinery.SECTIONS = machinery.sections()
    return machinery


MACHINERY = {name: tutorial_of(page) for name, page in GUIDES.items()}
SECTIONS = [(name, section) for name, machinery in MACHINERY.items() for section in machinery.SECTIONS if section.commands]


@dataclass
class Desk:
    """Where one guide is followed: a folder, and the environment of a shell in it."""

    folder: Path
    environment: dict[str, str]
    written: int = 0
    """Sections whose files are there."""

    def run(self, command, **options):
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=60, check=False, **options,
        )  # fmt: skip

    def write(self, sections, last):
        """The files of this section and of those before it; what a command has moved since is not written again."""
        end = sections.index(last) + 1
        for section in sections[self.written : end]:
            for name, text in section.files.items():
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        self.written = max(self.written, end)


@pytest.fixture(scope="module")
def desks(tmp_path_factory, own_environment):
    """``desks(guide)``: made on first use, with what `uv sync` gives a reader."""
    import uv

    made = {}

    def desk_of(guide):
        if guide not in made:
            place = tmp_path_factory.mktemp(guide)
            binaries = place / "venv" / "bin"
            environment = {name: value for name, value in own_environment.items() if name != "PYTHONPATH"}
            environment |= {
                "VIRTUAL_ENV": str(place / "venv"),
                "PATH": os.pathsep.join([str(binaries), environment["PATH"]]),
                "SEBS_CACHE_DIR": str(place / "cache"),
                "SEBS_STATE_DIR": str(place / "state"),
                "UV_HTTP_TIMEOUT": "10",
                "UV_HTTP_RETRIES": "0",
            }
            desk = made[guide] = Desk(place / "desk", environment)
            desk.folder.mkdir()
            command = [uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, environment["VIRTUAL_ENV"]]
            done = desk.run(command)
            assert done.returncode == 0, done.stdout
            members = [
                argument for member in ("src/sebs_core", "src/sebs_local", "benchmarks") for argument in ("-e", ROOT / member)
            ]
            done = desk.run([uv.find_uv_bin(), "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", *members])
            if done.returncode and NO_NETWORK.search(done.stdout):
                made[guide] = f"an environment for the reader needs the package index: {' '.join(done.stdout.split())[-200:]}"
            else:
                assert done.returncode == 0, done.stdout
        if isinstance(made[guide], str):
            pytest.skip(made[guide])
        return made[guide]

    return desk_of


@pytest.mark.slow
@pytest.mark.parametrize(("guide", "section"), SECTIONS, ids=[f"{guide}: {section.title}" for guide, section in SECTIONS])
def test_the_commands_print_what_is_shown(guide, section, desks, request):
    if guide == "writing-a-benchmark":
        request.getfixturevalue("packaging")  # its example has dependencies
    desk = desks(guide)
    desk.write(MACHINERY[guide].SECTIONS, section)
    for command, shown in section.commands:
        done = desk.run(["bash", "-c", command])
        if done.returncode and command.startswith(NEEDS_INDEX) and NO_NETWORK.search(done.stdout):
            pytest.skip(f"{command} needs the package index: {' '.join(done.stdout.split())[-200:]}")
        assert done.returncode == 0, f"$ {command}\nended with status {done.returncode} and printed\n{done.stdout}"
        MACHINERY[guide].check_output(command, shown, done.stdout)


@pytest.mark.parametrize("guide", GUIDES)
def test_every_file_is_used(guide):
    commands = " ".join(command for section in MACHINERY[guide].SECTIONS for command, _ in section.commands)
    for section in MACHINERY[guide].SECTIONS:
        for name in section.files:
            assert name in commands or f"{name.partition('/')[0]} " in f"{commands} ", f"{section.title}: nothing uses {name}"


@pytest.mark.parametrize("guide", GUIDES)
def test_lines_are_short_and_name_nothing_of_a_machine(guide):
    text = GUIDES[guide].read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > 128] == []
    assert "/home/" not in text
    assert "/tmp/" not in text
