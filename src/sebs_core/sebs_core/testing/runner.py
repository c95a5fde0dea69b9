"""The conformance kit without a test file: what ``sebs platform check`` runs."""

from __future__ import annotations

import inspect
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sebs_core.testing.conformance import PlatformConformance

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Checked", "Choice", "check_platform"]

LONGEST_FOUND = 600


@dataclass(frozen=True)
class Choice:
    """What is to be checked."""

    platform: str
    settings: dict[str, Any] = field(default_factory=dict)
    endpoint_setting: str | None = None
    """Which setting holds the address of the provider's emulator; None: its calls are not failed."""
    other_settings: dict[str, Any] | None = None
    """What differs in another account or region."""


@dataclass(frozen=True)
class Checked:
    """How one check went."""

    name: str
    ok: bool | None
    """None: it was skipped."""
    seconds: float
    found: str
    """What was wrong, or why it was skipped; empty when all is well."""
    help: str
    """What the check catches, and how to mend it."""


chosen = Choice("")
"""Read by the module that pytest collects."""


def check_platform(choice: Choice, tell: Callable[[Checked], None]) -> list[Checked]:
    """Run every check; each is told when it is done."""
    global chosen  # noqa: PLW0603 - pytest imports the collected module by itself
    chosen = choice
    reporter = _Reporter(tell)
    with tempfile.TemporaryDirectory(prefix="sebs-check-") as folder:
        arguments = [str(Path(__file__).with_name("chosen_platform.py")), "--import-mode=importlib", "-c", os.devnull]
        arguments += ["--rootdir", folder, "--basetemp", f"{folder}/t", "-o", "python_files=chosen_platform.py"]
        arguments += ["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:warnings"]
        status = pytest.main(arguments, plugins=[reporter])
    if status == pytest.ExitCode.INTERRUPTED and reporter.interrupted:
        raise KeyboardInterrupt
    return reporter.checked


class _Reporter:
    """Turns pytest's reports, of which a test has three, into one line each."""

    def __init__(self, tell: Callable[[Checked], None]) -> None:
        self.checked: list[Checked] = []
        self.interrupted = False
        self._tell = tell
        self._phases: list[pytest.TestReport] = []

    def pytest_keyboard_interrupt(self) -> None:
        self.interrupted = True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._add(Checked("the kit can be loaded", False, 0, str(report.longrepr)[-LONGEST_FOUND:], ""))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._phases.append(report)
        if report.when == "teardown":
            self._add(_checked(self._phases))
            self._phases = []

    def _add(self, checked: Checked) -> None:
        self.checked.append(checked)
        self._tell(checked)


def _checked(phases: list[pytest.TestReport]) -> Checked:
    name = phases[0].nodeid.rpartition("::")[2]
    failed = [report for report in phases if report.failed]
    skipped = [report for report in phases if report.skipped]
    told = "; ".join(_told(report) for report in failed or skipped)
    text = inspect.getdoc(getattr(PlatformConformance, name.partition("[")[0], None)) or ""
    ok = False if failed else None if skipped else True
    return Checked(name.removeprefix("test_").replace("_", " "), ok, sum(r.duration for r in phases), told, text)


def _told(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr)[:LONGEST_FOUND]
