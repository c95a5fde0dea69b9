"""Who cleans up when the gateway cannot: a process that outlives it, told by the end of a pipe.

A parent-death signal would not do: it fires when the *thread* that spawned ends, and macOS has none. A pipe's end of file
comes whenever the last holder of the writing end is gone, however it went.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

__all__ = ["Reaper"]

PATIENCE_S = 3.0
"""How long the reaper tries to remove a folder in which killed processes may still be writing."""


class Reaper:
    """The gateway's end. `add` process groups when they begin, `forget` them when they are gone, `close` at the end."""

    def __init__(self, folder: Path) -> None:
        """Fork the reaper for `folder`; call it before there are threads or an event loop."""
        reading, self._pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._pipe)
                _reap(reading, folder)
            finally:
                os._exit(0)
        os.close(reading)

    def add(self, group: int) -> None:
        """`group` is to be killed when the gateway ends."""
        self._tell(b"+%d\n" % group)

    def forget(self, group: int) -> None:
        """`group` has ended; its number may be given to others from now on."""
        self._tell(b"-%d\n" % group)

    def close(self) -> None:
        """Let the reaper do its work, and wait until it is done: nothing of this gateway is left then."""
        os.close(self._pipe)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _tell(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed the reaper: serving goes on without it
            os.write(self._pipe, line)


def _reap(pipe: int, folder: Path) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Standard output stays open: its end of file tells the client that gateway and reaper both are gone.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 2)
    groups: set[int] = set()
    rest = b""
    while data := os.read(pipe, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    _remove(folder)


def _remove(folder: Path) -> None:
    import shutil

    deadline = time.monotonic() + PATIENCE_S
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(0.02)
