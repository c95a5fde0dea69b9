"""docs/tutorial.md, executed: every file it shows is written, every command is run, every shown line of output appears.

Of output, words and whole numbers are compared; measured numbers, which have a decimal point, are not. ``…`` stands for
anything, on a line or for lines.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?:^`(?P<file>[^`\n]+)`:\n\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"\d+\.\d+")
VARIABLE_WORD = re.compile(r"^(?:sebs-|[\w.]+/\d{8}-)|\b[0-9a-f]{12}\b")
"""Names with an id or a date in them, and digests."""


@dataclass
class Section:
    """What one heading of the tutorial holds."""

    title: str
    files: dict[str, str] = field(default_factory=dict)
    commands: list[tuple[str, list[str]]] = field(default_factory=list)
    """Command and the output lines shown for it."""


def sections() -> list[Section]:
    found = []
    for part in re.split(r"^## ", TUTORIAL.read_text(), flags=re.MULTILINE)[1:]:
        section = Section(part.partition("\n")[0])
        for block in BLOCK.finditer(part):
            name, kind, text = block["file"], block["kind"], block["text"]
            if name:
                section.files[name] = text
            elif kind == "console":
                section.commands += console(text)
            else:
                assert kind == "sh", f"{section.title}: a block of {kind or 'no kind'} that is neither a file nor a command"
        found.append(section)
    return found


def console(text: str) -> list[tuple[str, list[str]]]:
    commands: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    return commands


SECTIONS = sections()


def pattern(line: str) -> re.Pattern[str]:
    """A shown line of output as a regular expression that fits what another machine prints."""
    words = []
    for word in line.split():
        if VARIABLE_WORD.search(word):
            words.append(r"\S+")
        else:
            parts = (re.escape(part) for part in MEASURED.split(word))
            words.append(r"\d+(?:\.\d+)?".join(parts).replace("…", ".*"))
    return re.compile(r"\s*" + r"\s+".join(words).replace(r"\s+.*", r"(?:\s.*)?") + r"\s*")


def check_output(command: str, shown: list[str], output: str) -> None:
    """Every shown line must appear, in order."""
    left = output.splitlines()
    for line in shown:
        if line.strip() in ("", "…"):
            continue
        wanted = pattern(line)
        while left and not wanted.fullmatch(left[0]):
            left.pop(0)
        assert left, f"$ {command}\nshould print a line like\n  {line}\nand prints\n{output}"
        left.pop(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with all the files that the tutorial shows."""
    place = tmp_path_factory.mktemp("tutorial")
    for section in SECTIONS:
        for name, text in section.files.items():
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    return place


@pytest.mark.slow
@pytest.mark.usefixtures("packaging")
@pytest.mark.parametrize("section", [s for s in SECTIONS if s.commands], ids=lambda section: section.title)
def test_the_commands_print_what_is_shown(section: Section, folder: Path, own_environment: dict[str, str]) -> None:
    for command, shown in section.commands:
        script = folder / command.removeprefix("python ")
        if script.is_file() and "to_pandas" in script.read_text():
            pytest.importorskip("pandas", reason=f"{script.name} needs pandas (group notebooks)")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=own_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\nended with status {done.returncode} and printed\n{done.stdout}"
        check_output(command, shown, done.stdout)


def test_every_python_file_is_run() -> None:
    commands = [command for section in SECTIONS for command, _ in section.commands]
    for section in SECTIONS:
        for name in section.files:
            used = f"python {name}" in commands or any(name in command for command in commands)
            used = used or any(f"./{name.partition('/')[0]} " in command for command in commands)
            assert used, f"{section.title}: nothing uses {name}"


def test_a_changed_word_or_count_is_noticed_and_a_changed_measurement_is_not() -> None:
    shown = ["5 invocations, 1 cold, 0 failed, …", "…", "client time  cold  1.5"]
    check_output("x", shown, "5 invocations, 1 cold, 0 failed, 1 instance\n\nclient time   cold   142.746\n")
    with pytest.raises(AssertionError, match="client time"):
        check_output("x", shown, "5 invocations, 1 cold, 0 failed, 1 instance\nclient time   warm   142.746\n")
    with pytest.raises(AssertionError, match="5 invocations"):
        check_output("x", shown, "5 invocations, 1 cold, 2 failed, 1 instance\nclient time   cold   142.746\n")


def test_links_lead_somewhere() -> None:
    root = TUTORIAL.parents[1]
    pages = [*TUTORIAL.parent.glob("*.md"), root / "CONTRIBUTING.md", root / "CHANGELOG.md"]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            file, _, anchor = target.partition("#")
            place = (page.parent / file) if file else page
            assert place.exists(), f"{page.name} links to {target}, which is not there"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", place.read_text(), flags=re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in anchors, f"{page.name} links to {target}, and there is no such heading"
