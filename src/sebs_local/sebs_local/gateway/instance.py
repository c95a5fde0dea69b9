"""One function instance: a process of its own, the socket to its shim, and the pipe of what it prints."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sebs_local.gateway.records import Printed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from pathlib import Path

    from sebs_local.gateway.reaper import Reaper

__all__ = ["House", "Instance", "Owner", "Spec"]

MAGIC = b"SEBS"
READ_BYTES = 256 * 1024
DRAIN_BYTES = 1024 * 1024
"""At most so much of what was printed is read at once, so that a talkative instance does not hold up the others."""
LINGER_S = 0.1
"""A closed socket usually means that the process is ending: its exit status is waited for so long."""
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Spec:
    """What the gateway must know of a function to run it."""

    name: str
    folder: str
    entry_point: str
    python: str
    memory_mb: int
    timeout_s: float
    environment: Mapping[str, str] = field(repr=False)
    """Secrets included; it never leaves memory."""


@dataclass
class House:
    """What all instances share."""

    loop: asyncio.AbstractEventLoop
    reaper: Reaper
    folder: Path
    init_timeout_s: float
    response_limit: int
    children: dict[int, Instance] = field(default_factory=dict)
    """Processes that were started and not yet waited for."""
    started: int = 0


class Owner(Protocol):
    """Who is told what happens to an instance."""

    def ready(self, instance: Instance) -> None:
        """The shim can take events now."""

    def answered(self, instance: Instance, envelope: bytes | None) -> None:
        """The answer has arrived completely; None: it was larger than the limit, and has been thrown away."""

    def ended(self, instance: Instance, reason: str) -> None:
        """The process ended, or broke the protocol, without being asked to. `reason` is the rest of a sentence."""

    def overdue(self, instance: Instance) -> None:
        """The time limit of the start, or of the call, has passed."""


class Instance:
    """A running function. Its process group is killed whenever it ends, however it ends."""

    def __init__(self, house: House, owner: Owner, spec: Spec, generation: str, cold_kind: str) -> None:
        """Start the process. Raises `OSError` or `ValueError` when it cannot be started.

        The spawn blocks the event loop for 1-3 ms; handing it to a helper process would add to each cold start instead.
        """
        self.house, self.owner, self.spec = house, owner, spec
        self.generation, self.cold_kind = generation, cold_kind
        self.state = "starting"
        self.call: Any = None
        self.calls = 0
        self.idle_since = 0.0
        self.failed = False
        """The function's code could not be imported."""
        self.spent = False
        """The process has exited: no more events can be sent."""
        self.ready_ns: int | None = None
        self.shim_began_ns: int | None = None
        self.printed: Printed | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._received = bytearray()
        self._missing = 0
        self._skipping = False
        self._unsent = memoryview(b"")
        house.started += 1
        self.work = house.folder / "work" / str(house.started)
        self._spawn()
        house.children[self.pid] = self
        house.reaper.add(self.pid)
        house.loop.add_reader(self._socket, self._readable)
        house.loop.add_reader(self._output, self.drain)
        self._status = _opened(f"/proc/{self.pid}/status")
        self._arm(house.init_timeout_s)

    def _spawn(self) -> None:
        self.work.mkdir(parents=True)
        self._socket, theirs = socket.socketpair()
        self._output, printing = os.pipe()
        try:
            os.set_blocking(self._output, False)
            self._socket.setblocking(False)
            self.spawn_began_ns = time.monotonic_ns()
            self._process = subprocess.Popen(
                [self.spec.python, "-B", "-S", "-s", f"{self.spec.folder}/{self.spec.entry_point}", str(theirs.fileno())],
                cwd=self.work,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=printing,
                stderr=printing,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            self.spawned_ns = time.monotonic_ns()
        except BaseException:
            self._socket.close()
            os.close(self._output)
            self.work.rmdir()
            raise
        finally:
            theirs.close()
            os.close(printing)
        self.pid = self._process.pid

    def _environment(self) -> dict[str, str]:
        work = str(self.work)
        return {
            "PATH": PATH,
            "HOME": work,
            "TMPDIR": work,
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.spec.environment,
            "SEBS_FUNCTION": self.spec.name,
            "SEBS_GENERATION": self.generation,
            "SEBS_MEMORY_MB": str(self.spec.memory_mb),
            "SEBS_SPAWNED_NS": str(self.spawn_began_ns),
        }

    # What the owner asks for

    def send(self, request_id: bytes, event: bytes) -> None:
        """Hand over one event. Raises `OSError` when the process has gone: it did not get any of it."""
        frame = b"%b%c%b%b" % ((1 + len(request_id) + len(event)).to_bytes(4, "big"), len(request_id), request_id, event)
        sent = self._socket.send(frame)
        self.calls += 1
        self.state = "busy"
        if sent < len(frame):
            self._unsent = memoryview(frame)[sent:]
            self.house.loop.add_writer(self._socket, self._writable)
        self._arm(self.spec.timeout_s)

    def rest(self) -> None:
        """Nothing to do for now."""
        self.state = "idle"
        self.idle_since = self.house.loop.time()

    def kill(self) -> None:
        """End the process and all its children, now. Its status is waited for elsewhere (`House.children`)."""
        if self.state == "gone":
            return
        self.state = "gone"
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.drain()
        if self._timer is not None:
            self._timer.cancel()
        self.house.loop.remove_reader(self._output)
        os.close(self._output)
        self.house.loop.remove_reader(self._socket)
        self.house.loop.remove_writer(self._socket)
        self._socket.close()
        if self._status is not None:
            os.close(self._status)
            self._status = None

    def cpu_ns(self) -> int | None:
        """Processor time of this process so far (not of its children); None where the system does not tell."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            return time.clock_gettime_ns((~self.pid << 3) | 2)  # the kernel's id of another process's CPU clock
        except OSError:
            return None

    def peak_memory_mb(self) -> int | None:
        """Largest resident memory so far, in MiB rounded up; None where the system does not tell."""
        if self._status is None:
            return None
        try:
            text = os.pread(self._status, 4096, 0)
        except OSError:
            return None
        begin = text.find(b"VmHWM:")
        if begin < 0:
            return None
        return -(-int(text[begin + 6 : text.find(b"kB", begin)]) // 1024)

    def drain(self) -> None:
        """Take what has been printed so far."""
        total = 0
        while total < DRAIN_BYTES:
            try:
                data = os.read(self._output, 65536)
            except BlockingIOError:
                return
            if not data:  # all who could print have closed it
                self.house.loop.remove_reader(self._output)
                return
            if self.printed is None:
                self.printed = Printed()
            self.printed.add(data)
            total += len(data)

    # What happens to it

    def exited(self, status: int) -> None:
        """The process has been waited for; `status` as ``os.waitpid`` gives it."""
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.spent = True
        while self.state != "gone" and self._readable():
            pass  # an answer that was sent before the end counts
        if self.state != "gone":
            self.owner.ended(self, _ending(self._process.returncode))
        self.house.reaper.forget(self.pid)
        try:
            self.work.rmdir()
        except OSError:
            self.house.loop.run_in_executor(None, _remove, self.work)

    def _readable(self) -> bool:
        """Read once; False when there was nothing."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.house.loop.remove_reader(self._socket)
            self.house.loop.call_later(LINGER_S, self._closed)
            return False
        if self.state == "busy" and self._unsent:
            self.owner.ended(self, "answered before it had read its event")
        elif self._missing:
            self._continue(data)
        else:
            self._begin(data)
        return True

    def _begin(self, data: bytes) -> None:
        if self._received:
            data = bytes(self._received) + data
            self._received.clear()
        if data[:4] != MAGIC[: len(data)] or self.state == "idle":
            self.owner.ended(self, "wrote something else than an answer to the gateway's socket")
            return
        if len(data) < 8:
            self._received += data
            return
        missing = int.from_bytes(data[4:8], "big") + 8 - len(data)
        if missing == 0:
            self._complete(data[8:])
        elif missing < 0:
            self.owner.ended(self, "wrote more than one answer to the gateway's socket")
        else:
            self._skipping = missing + len(data) - 8 > self.house.response_limit
            self._missing = missing
            if not self._skipping:
                self._received += data[8:]

    def _continue(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing < 0:
            self.owner.ended(self, "wrote more than one answer to the gateway's socket")
            return
        if not self._skipping:
            self._received += data
        if self._missing == 0:
            text = None if self._skipping else bytes(self._received)
            self._received = bytearray()
            self._skipping = False
            self._complete(text)

    def _complete(self, text: bytes | None) -> None:
        self._deadline = None
        if self.state == "starting":
            self._welcome(text or b"")
        elif text is not None and len(text) > self.house.response_limit:
            self.owner.answered(self, None)
        else:
            self.owner.answered(self, text)

    def _welcome(self, text: bytes) -> None:
        import json

        self.ready_ns = time.monotonic_ns()
        if self._timer is not None:  # the next limit may be shorter than the one of the start
            self._timer.cancel()
            self._timer = None
        try:
            told = json.loads(text)
            self.shim_began_ns, self.failed = int(told["begun_ns"]), bool(told["failed"])
        except (ValueError, KeyError, TypeError):
            self.owner.ended(self, "did not begin as a SeBS shim does")
            return
        self.drain()
        self.owner.ready(self)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)  # it is ending; the reading side tells
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self.house.loop.remove_writer(self._socket)

    def _closed(self) -> None:
        if self.state != "gone":
            self.owner.ended(self, "closed its connection to the gateway")

    def _arm(self, seconds: float) -> None:
        # One timer serves many calls: it looks at the deadline when it fires, instead of being made anew for each.
        self._deadline = self.house.loop.time() + seconds
        if self._timer is None:
            self._timer = self.house.loop.call_at(self._deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._deadline > self.house.loop.time() + 0.001:
            self._timer = self.house.loop.call_at(self._deadline, self._due)
        else:
            self.owner.overdue(self)


def _opened(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no /proc here
        return None


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was ended by signal {-exit_code}"


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
