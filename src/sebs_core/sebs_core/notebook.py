"""Progress in a notebook: one line under the cell, replaced as the session works."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sebs_core.events import LoadProgress, Notice, RunFinished, StageFinished, StageStarted
from sebs_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from sebs_core.events import Event

__all__ = ["notebook_observer"]


def notebook_observer() -> list[object]:
    """An observer where this program is a notebook's kernel; nowhere else."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return [NotebookProgress()] if getattr(shell, "kernel", None) is not None else []


class NotebookProgress:
    """Shows what the session is doing."""

    def __init__(self) -> None:
        self._display: Any = None

    @hookimpl
    def sebs_event(self, event: Event) -> None:
        """Show one line."""
        text = _line(event)
        if not text:
            return
        ipython: Any = sys.modules["IPython"].display

        content = {"text/plain": text}
        if self._display is None:
            self._display = ipython.display(content, raw=True, display_id=True)
        else:
            self._display.update(content, raw=True)
        if isinstance(event, (RunFinished, Notice)):
            self._display = None


def _line(event: Event) -> str:
    if isinstance(event, StageStarted):
        return f"{event.stage} {event.subject} …"
    if isinstance(event, StageFinished):
        return f"{event.stage} {event.subject}: {event.seconds:.1f} s{', reused' if event.reused else ''}"
    if isinstance(event, LoadProgress):
        filled = round(30 * event.done / max(event.total, 1))
        return f"[{'█' * filled}{'·' * (30 - filled)}] {event.done} of {event.total}, {event.failures} failed"
    if isinstance(event, Notice):
        return event.text
    if isinstance(event, RunFinished):
        return f"run {event.directory}"
    return ""
