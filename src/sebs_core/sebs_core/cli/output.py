"""What the command line shows. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import click

from sebs_core.confidential import hidden
from sebs_core.events import LoadProgress, Notice, RunFinished, StageFinished, StageStarted
from sebs_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click._termui_impl import ProgressBar

    from sebs_core.events import Event
    from sebs_core.summary import Summary

__all__ = ["Progress", "print_json", "print_summary", "print_table"]

PATIENCE_SECONDS = 1.0
NARROWEST = 24


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_summary(summary: Summary) -> None:
    """A summary as text on stdout."""
    click.echo(str(summary))


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Rows as a table, its last column folded to the terminal's width; columns that are empty everywhere are left out."""
    if not rows:
        click.echo("none")
        return
    shown = [column for column in columns if any(row.get(column) not in (None, "", []) for row in rows)]
    cells = [shown, *([_cell(row.get(column)) for column in shown] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(shown))]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = max(NARROWEST, shutil.get_terminal_size().columns - before) if sys.stdout.isatty() else max(widths[-1], 1)
    for line in cells:
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(line[:-1], widths[:-1], strict=True))
        for part in textwrap.wrap(line[-1], room) or [""]:
            click.echo((start + part).rstrip())
            start = " " * before


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


class Progress:
    """Stages as lines on stderr, and on a terminal a bar for what takes more than a second.

    While a load is timed nothing is drawn by itself: the bar moves only when the session tells, between timed sections.
    """

    def __init__(self) -> None:
        self.directory: str | None = None
        """The run's directory, once it is complete."""
        self._bar: ProgressBar[int] | None = None
        self._ended = threading.Event()
        self._clock: threading.Thread | None = None
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    @hookimpl
    def sebs_event(self, event: Event) -> None:
        """Show what happens."""
        if isinstance(event, StageStarted):
            if event.stage != "load" and self._terminal:
                self._ended.clear()
                self._clock = threading.Thread(target=self._count, args=[f"{event.stage:<8} {event.subject}"], daemon=True)
                self._clock.start()
        elif isinstance(event, StageFinished):
            self.stop()
            why = f" ({event.reason})" if event.reason else ""
            how = "reused" if event.reused else f"{event.seconds:.2f} s{why}"
            click.echo(f"{event.stage:<8} {event.subject}: {how}", err=True)
        elif isinstance(event, LoadProgress):
            self._advance(event)
        elif isinstance(event, Notice):
            click.echo(f"{'warning' if event.warning else 'note'}: {hidden(event.text)}", err=True)
        elif isinstance(event, RunFinished):
            self.directory = event.directory

    def stop(self) -> None:
        """Take away what is drawn."""
        if self._clock is not None:
            self._ended.set()
            self._clock.join()
            self._clock = None
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None

    def _count(self, text: str) -> None:
        """Show that a stage is still at work, and for how long."""
        seconds = 0
        while not self._ended.wait(PATIENCE_SECONDS):
            seconds += 1
            sys.stderr.write(f"\r{text}: {seconds} s …")
            sys.stderr.flush()
        if seconds:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def _advance(self, event: LoadProgress) -> None:
        if self._bar is None:
            if not self._terminal or event.done >= event.total:
                return
            self._bar = click.progressbar(length=event.total, label="load    ", file=sys.stderr, show_pos=True)
        self._bar.label = f"load ({event.failures} failed)" if event.failures else "load    "
        self._bar.update(event.done - self._bar.pos)
