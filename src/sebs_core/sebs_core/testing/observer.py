"""An observer that keeps what it is told."""

from __future__ import annotations

from sebs_core.events import Event, Notice, StageFinished
from sebs_core.hookspecs import hookimpl

__all__ = ["Observer"]


class Observer:
    """Give it to ``connect(…, observers=[…])``."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @hookimpl
    def sebs_event(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def finished(self, stage: str) -> list[StageFinished]:
        """Stages of this name that ended well, in order."""
        return [event for event in self.events if isinstance(event, StageFinished) and event.stage == stage]

    def notices(self) -> list[str]:
        """Sentences for the person at the keyboard."""
        return [event.text for event in self.events if isinstance(event, Notice)]
