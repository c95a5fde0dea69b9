"""A proxy that fails on purpose: between a platform plugin and the emulator of its provider.

It forwards every request to the emulator and writes it down. Told so, it fails one of them: before it has an effect, after it
had its effect, by a time-out, or as a provider that throttles.
"""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Call", "Fault", "FaultProxy"]

Fault = Literal["before", "after", "timeout", "throttled"]
FAULTS: tuple[Fault, ...] = ("before", "after", "timeout", "throttled")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection", "content-length"}
READING = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Call:
    """One request that went through."""

    method: str
    path: str
    status: int | None
    """None: it got no answer."""

    @property
    def writes(self) -> bool:
        """Whether its method is one that changes something."""
        return self.method not in READING


class FaultProxy:
    """Stands in front of ``upstream``; use as a context manager. Listens on loopback only."""

    def __init__(self, upstream: str, *, hold_s: float = 2.0) -> None:
        self.upstream = urlsplit(upstream)
        self.hold_s = hold_s
        """How long a request that times out is held before its connection is closed."""
        self.calls: list[Call] = []
        self._fault: tuple[int, Fault] | None = None
        self._begun = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(self)

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Give this to the plugin instead of the emulator's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.upstream.path}"

    def record(self) -> None:
        """Forget the calls so far, and fail none from now on."""
        with self._lock:
            self.calls, self._fault, self._begun = [], None, 0

    def fail(self, number: int, fault: Fault) -> None:
        """Forget the calls so far, and fail the call of this number from now on: 1 is the next."""
        with self._lock:
            self.calls, self._fault, self._begun = [], (number, fault), 0

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Forward one request, or fail it."""
        with self._lock:
            self._begun += 1
            fault = self._fault[1] if self._fault and self._fault[0] == self._begun else None
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        if fault == "timeout":
            self._closing.wait(self.hold_s)
        if fault in ("before", "timeout"):
            self._done(request, None)
            request.close_connection = True
            return
        if fault == "throttled":
            self._answer(request, 429, [("Retry-After", "0")], b'{"error": "too many requests"}')
            return
        status, headers, content = self._forward(request, body)
        if fault == "after":
            self._done(request, None)
            request.close_connection = True
            return
        self._answer(request, status, headers, content)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        maker = http.client.HTTPSConnection if self.upstream.scheme == "https" else http.client.HTTPConnection
        connection = maker(self.upstream.hostname or "127.0.0.1", self.upstream.port, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _answer(self, request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self._done(request, status)
        request.send_response_only(status)
        for name, value in headers:
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def _done(self, request: BaseHTTPRequestHandler, status: int | None) -> None:
        with self._lock:
            self.calls.append(Call(request.command, request.path, status))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def log_message(self, *_: Any) -> None:
                """A proxy says nothing."""

        def handle(handler: BaseHTTPRequestHandler) -> None:
            proxy.handle(handler)

        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            setattr(Handler, f"do_{method}", handle)
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""
