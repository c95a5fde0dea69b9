"""Ctrl-C that is never lost.

Python raises ``KeyboardInterrupt`` wherever it happens to be, and some places swallow it: libcurl's callbacks turn it into a
failed transfer, finalizers print it and go on. So while a session works, a signal is also written down; during a load it is
*only* written down, and the engine's next look at its sink raises. A second signal raises at once.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """Watches the signals for which this program has a handler in Python. Of use in the main thread; elsewhere it rests."""

    def __init__(self) -> None:
        self._seen = 0
        self._holding = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch until the end of the block; the handlers of before are put back."""
        before: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    before[number] = handler
                    signal.signal(number, functools.partial(self._signalled, handler))
        self._seen = 0
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block a first signal does not raise by itself: `check` does."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if a signal came and was held or swallowed."""
        if self._seen:
            self._seen = 0
            raise KeyboardInterrupt

    def _signalled(self, own: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None) -> None:
        self._seen += 1
        if not self._holding or self._seen > 1:
            own(number, frame)
