"""What the command line shows. Results go to stdout, everything else to stderr; rich is imported only when it is needed."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from sebs_core.events import LoadProgress, Notice, RunFinished, StageFinished, StageStarted
from sebs_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress as RichProgress

    from sebs_core.events import Event
    from sebs_core.summary import Summary

__all__ = ["Progress", "print_json", "print_summary", "print_table"]

PATIENCE_SECONDS = 1.0


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_summary(summary: Summary) -> None:
    """A summary as text on stdout."""
    click.echo(str(summary))


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Rows as a table; columns that are empty everywhere are left out."""
    if not rows:
        click.echo("none")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [column for column in columns if any(row.get(column) not in (None, "", []) for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in shown))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width: do not fold for one
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


class Progress:
    """Stages as lines on stderr, and a bar for what takes more than a second.

    While a load is timed nothing is drawn by itself: the bar moves only when the session tells, between timed sections.
    """

    def __init__(self) -> None:
        self.directory: str | None = None
        """The run's directory, once it is complete."""
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._timer: threading.Timer | None = None
        self._terminal = sys.stderr.isatty()

    @hookimpl
    def sebs_event(self, event: Event) -> None:
        """Show what happens."""
        if isinstance(event, StageStarted):
            if event.stage != "load" and self._terminal:
                self._timer = threading.Timer(PATIENCE_SECONDS, self._spin, [f"{event.stage} {event.subject}"])
                self._timer.daemon = True
                self._timer.start()
        elif isinstance(event, StageFinished):
            self.stop()
            how = "reused" if event.reused else f"{event.seconds:.2f} s"
            click.echo(f"{event.stage:<8} {event.subject}: {how}", err=True)
        elif isinstance(event, LoadProgress):
            self._advance(event)
        elif isinstance(event, Notice):
            click.echo(f"{'warning' if event.warning else 'note'}: {event.text}", err=True)
        elif isinstance(event, RunFinished):
            self.directory = event.directory

    def stop(self) -> None:
        """Take away what is drawn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start(self, *, spinning: bool) -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = [TextColumn("{task.description}"), TimeElapsedColumn()]
        extra = [SpinnerColumn()] if spinning else [BarColumn(), MofNCompleteColumn()]
        console = Console(stderr=True)
        self._bar = Progress(*columns, *extra, console=console, transient=True, auto_refresh=spinning)
        self._bar.start()
        return self._bar

    def _spin(self, text: str) -> None:
        self._start(spinning=True).add_task(text, total=None)

    def _advance(self, event: LoadProgress) -> None:
        if not self._terminal or event.total == 0:
            return
        bar = self._bar
        if bar is None:
            if event.done >= event.total:
                return
            bar = self._start(spinning=False)
            self._task = bar.add_task("invoking", total=event.total)
        failed = f"invoking ({event.failures} failed)" if event.failures else "invoking"
        bar.update(self._task, completed=event.done, description=failed)
        bar.refresh()
