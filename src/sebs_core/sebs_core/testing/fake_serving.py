"""How the provider of the fake platform serves: its front end, functions, and the processes that run them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sebs_core.models import FunctionConfig, Resource
    from sebs_core.testing.fake import FakeProvider

__all__ = ["HANDLER", "Deployed", "FrontEnd", "Instance", "Served"]

HANDLER = Path(__file__).with_name("fake_handler.py")
"""What an instance runs, from within the package."""


@dataclass
class Served:
    """What the provider knows of one invocation."""

    function: str
    duration_us: int
    log: str
    late: int
    """Collections of metrics that are not told of it."""
    due: float
    """When metrics are told at the earliest, on the monotonic clock."""


@dataclass
class Deployed:
    """A function and its instances."""

    provider: FakeProvider
    folder: Path
    config: FunctionConfig
    package_digest: str
    environment: dict[str, str]
    """Secrets are in it too."""
    secret: bool
    """Whether there are any."""
    resource: Resource
    serial: int = 1
    generation: str | None = None
    _idle: list[Instance] = field(default_factory=list)
    _all: weakref.WeakSet[Instance] = field(default_factory=weakref.WeakSet)
    _busy: int = 0
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def timeout_s(self) -> float:
        """After which an invocation is ended."""
        return self.config.timeout_s

    def invoke(self, event: bytes, request_id: str) -> tuple[int, bytes, str]:
        """Status, body and log."""
        with self._lock:
            limit = self.provider.concurrency
            if limit is not None and self._busy >= limit:
                return 429, f"more than {limit} at once".encode(), ""
            self._busy += 1
            instance = self._idle.pop() if self._idle else None
        try:
            instance = instance or self._started()
            answer, log = instance.call(event, request_id), instance.new_log()
        finally:
            with self._lock:
                self._busy -= 1
        if answer is not None:
            self._give_back(instance)
            return 200, answer, log
        with contextlib.suppress(subprocess.TimeoutExpired):
            instance.process.wait(1)  # it may have closed its output, and live
        instance.close()
        kind = "timeout" if instance.timed_out else "crash"
        error = {"kind": kind, "type": kind.capitalize(), "message": f"the instance ended with {instance.process.returncode}"}
        return 502, json.dumps({"sebs": 1, "request_id": request_id, "error": error}).encode(), log

    def _started(self) -> Instance:
        time.sleep(self.provider.delays.get("cold_start", 0))
        instance = Instance(self)
        with self._lock:
            self._all.add(instance)
        return instance

    def _give_back(self, instance: Instance) -> None:
        with self._lock:
            usable = not self._closed and not instance.timed_out and instance.generation == self.generation
            if usable:
                self._idle.append(instance)
        if not usable:
            instance.close()

    def renew(self) -> str:
        """A cold start: a new generation. Instances of an older one finish what they do, and get nothing more."""
        with self._lock:
            self.generation = generation = secrets.token_hex(4)
            stale, self._idle = self._idle, []
        for instance in stale:
            instance.close()
        return generation

    def close(self) -> None:
        """End every instance, also at work."""
        with self._lock:
            self._closed = True
            instances = [*self._all]
        for instance in instances:
            instance.close()


class Instance:
    """One process that runs the packaged function."""

    def __init__(self, function: Deployed) -> None:
        self.generation, self.timed_out = function.generation, False
        self._timeout_s, self._read = function.timeout_s, 0
        self._log = function.folder.parent / f"{secrets.token_hex(8)}.log"
        environment = {"PATH": os.environ.get("PATH", ""), **function.environment}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-B", "handler.py"],
                cwd=function.folder,
                env={**environment, "SEBS_GENERATION": self.generation or "", "SEBS_SPAWNED_NS": str(time.monotonic_ns())},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def call(self, event: bytes, request_id: str) -> bytes | None:
        """The envelope; None when the process ended instead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(self._timeout_s, self._out_of_time)
        timer.daemon = True
        timer.start()
        try:
            self.process.stdin.write(json.dumps({"event": event.decode(), "request_id": request_id}).encode() + b"\n")
            self.process.stdin.flush()
            return self.process.stdout.readline() or None
        except (OSError, ValueError):  # it has ended, or another thread closed it
            return None
        finally:
            timer.cancel()

    def _out_of_time(self) -> None:
        self.timed_out = True
        self.process.kill()

    def new_log(self) -> str:
        """What was printed since this was last asked."""
        text = self._log.read_bytes()[self._read :]
        self._read += len(text)
        return text.decode("utf-8", "replace")

    def close(self) -> None:
        """End the process, if it has not."""
        with contextlib.suppress(OSError), self.process:
            self.process.kill()


class FrontEnd(ThreadingHTTPServer):
    """Takes ``POST /account/name`` on loopback."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, provider: FakeProvider) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                event = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, body = provider.invoke(self.path.lstrip("/"), event)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """It says nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news, and a scripted fault was expected."""
