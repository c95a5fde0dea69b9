"""What happens while a session works, told to every ``sebs_event`` observer from the thread that called.

Events are frozen and only ever gain fields.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Event", "LoadProgress", "Notice", "RunFinished", "StageFinished", "StageStarted"]


@dataclass(frozen=True)
class Event:
    """Root of all events."""


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage begins, e.g. ``stage="deploy", subject="110.dynamic-html"``."""

    stage: str
    subject: str


@dataclass(frozen=True)
class StageFinished(Event):
    """A stage ended well; `reused` when what was there before served, else `reason` says why work was needed."""

    stage: str
    subject: str
    seconds: float
    reused: bool = False
    reason: str = ""


@dataclass(frozen=True)
class LoadProgress(Event):
    """How far a load is: rows measured of those planned. Told between timed sections only, at most 4 times a second."""

    done: int
    total: int
    failures: int


@dataclass(frozen=True)
class Notice(Event):
    """A sentence the person at the keyboard should read."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class RunFinished(Event):
    """A run ended; its directory is complete on disk."""

    directory: str
