"""The closed loop over libcurl: a fixed number of clients, each sends when its last answer has come.

Times. ``sent_ns`` is taken right before a transfer is handed to libcurl; ``finished_ns`` right after libcurl reported its end.
The phases between come from libcurl's own clock (``*_TIME_T``, microseconds since it took the transfer), laid from
``sent_ns`` on. Nothing is decoded, written or shown while a transfer is in flight: when the sink is due, the loop lets what is
in flight end, and only then calls it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from typing import TYPE_CHECKING, Any

import pycurl

from sebs_core.exchange import Exchange, Response
from sebs_core.load import MOST_CLIENTS
from sebs_core.models import EngineReport

if TYPE_CHECKING:
    from sebs_core.exchange import Request, Sink
    from sebs_core.load import Plan

__all__ = ["ClosedLoop"]

MOST_BODY_BYTES = 64 * 1024 * 1024
CONNECT_TIMEOUT_MS = 10_000
LOOK_UP_S = 0.1
"""How often an idle loop looks whether the user wants to stop."""
LOOPBACK = "127.0.0.1,localhost,::1"

TLS_ERRORS = frozenset((35, 51, 53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90, 91, 98))
ERROR_OF_CODE = {
    **dict.fromkeys((5, 6, 7, 97), "connect"),
    **dict.fromkeys(TLS_ERRORS, "tls"),
    28: "timeout",
    **dict.fromkeys((18, 52, 55, 56, 65), "reset"),
    23: "too_large",
}
"""libcurl's error code → kind; all others are ``protocol``."""


class ClosedLoop:
    """Holds connections between loads, so that a later load of the same session can reuse them."""

    def __init__(self) -> None:
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, 2 * MOST_CLIENTS)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._selector = selectors.DefaultSelector()
        self._timer: float | None = None
        self._paused_ns = 0
        self._clients: list[_Client] = []

    def run(self, plan: Plan, sink: Sink) -> EngineReport:
        """Send the plan's repetitions; every transfer that ended is in the sink, and flushed, when this returns."""
        wanted = min(plan.load.concurrency, plan.load.repetitions)
        while len(self._clients) < wanted:
            self._clients.append(_Client())
        started_ns = time.monotonic_ns() - plan.origin_ns
        self._paused_ns = 0
        busy: dict[Any, _Client] = {}
        try:
            self._send_all(plan, sink, self._clients[:wanted], busy)
        finally:
            for handle in busy:
                with contextlib.suppress(pycurl.error):
                    self._multi.remove_handle(handle)
            if busy:
                sink.abandon(len(busy))
                self._clients.clear()
            sink.flush()
        name = f"closed loop, {pycurl.version.split()[0]}, {pycurl.version.split()[1]}"
        return EngineReport(
            engine=name,
            sent=plan.load.repetitions,
            started_ns=started_ns,
            ended_ns=time.monotonic_ns() - plan.origin_ns,
            paused_ns=self._paused_ns,
        )

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            client.handle.close()
        self._clients.clear()
        self._multi.close()
        self._selector.close()

    def _send_all(self, plan: Plan, sink: Sink, clients: list[_Client], busy: dict[Any, _Client]) -> None:
        origin = plan.origin_ns
        index, end = plan.first_index, plan.first_index + plan.load.repetitions
        free = list(reversed(clients))
        now = time.monotonic_ns()
        for client in free:
            client.prepare(plan)
            client.free_ns = now
        due_ns = None
        while index < end or busy:
            while free and index < end and due_ns is None:
                client = free.pop()
                client.begin(plan.requests[index % len(plan.requests)], index)
                client.sent_ns = time.monotonic_ns()
                self._multi.add_handle(client.handle)
                busy[client.handle] = client
                index += 1
            for handle, code, message, ended_ns in self._proceed() if busy else ():
                client = busy.pop(handle)
                self._multi.remove_handle(handle)
                sink.add(client.exchange(ended_ns, origin, code, message))
                client.free_ns = ended_ns
                free.append(client)
            if due_ns is None and sink.due:
                due_ns = time.monotonic_ns()
            if due_ns is not None and not busy:
                sink.flush()
                now = time.monotonic_ns()
                self._paused_ns += now - due_ns
                due_ns = None
                for client in free:
                    client.free_ns = now

    def _proceed(self) -> list[tuple[Any, int, str, int]]:
        """Wait for sockets or libcurl's timer, let libcurl work, and tell which transfers ended, and when."""
        wait = LOOK_UP_S if self._timer is None else min(LOOK_UP_S, max(0.0, self._timer - time.monotonic()))
        ended = []
        for key, mask in self._selector.select(wait):
            bits = (pycurl.CSELECT_IN if mask & selectors.EVENT_READ else 0) | (
                pycurl.CSELECT_OUT if mask & selectors.EVENT_WRITE else 0
            )
            self._multi.socket_action(key.fd, bits)
            ended += self._ended()
        if self._timer is not None and time.monotonic() >= self._timer:
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            ended += self._ended()
        return ended

    def _ended(self) -> list[tuple[Any, int, str, int]]:
        now, ended, left = time.monotonic_ns(), [], 1
        while left:
            left, well, failed = self._multi.info_read()
            ended += [(handle, 0, "", now) for handle in well] + [(*failure, now) for failure in failed]
        return ended

    def _watch(self, what: int, descriptor: int, _multi: object, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
            return
        mask = (selectors.EVENT_READ if what & pycurl.POLL_IN else 0) | (selectors.EVENT_WRITE if what & pycurl.POLL_OUT else 0)
        try:
            self._selector.modify(descriptor, mask)
        except KeyError:
            self._selector.register(descriptor, mask)

    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


class _Client:
    """One simulated client: a libcurl handle and the state of its current transfer."""

    def __init__(self) -> None:
        self.handle: Any = pycurl.Curl()
        self.free_ns = self.sent_ns = 0
        self.index = self.position = self.attempts = self.size = 0
        self.request_body = b""
        self.chunks: list[bytes] = []
        self.header_lines: list[bytes] = []
        self._request: Request | None = None
        handle = self.handle
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS)
        exceptions = (LOOPBACK, os.environ.get("no_proxy"), os.environ.get("NO_PROXY"))
        handle.setopt(pycurl.NOPROXY, ",".join(filter(None, exceptions)))
        handle.setopt(pycurl.WRITEFUNCTION, self._take)
        handle.setopt(pycurl.HEADERFUNCTION, self.header_lines.append)
        handle.setopt(pycurl.READFUNCTION, self._give)
        handle.setopt(pycurl.SEEKFUNCTION, self._rewind)

    def prepare(self, plan: Plan) -> None:
        fresh = plan.connections == "fresh"
        self.handle.setopt(pycurl.FRESH_CONNECT, fresh)
        self.handle.setopt(pycurl.FORBID_REUSE, fresh)
        self.handle.setopt(pycurl.TIMEOUT_MS, round(plan.timeout_s * 1000))

    def begin(self, request: Request, index: int) -> None:
        if request is not self._request:
            self._request = request
            headers = [f"{name}: {value}" for name, value in request.headers]
            self.handle.setopt(pycurl.URL, request.url)
            self.handle.setopt(pycurl.POST, 1)
            self.handle.setopt(pycurl.CUSTOMREQUEST, request.method)
            self.handle.setopt(pycurl.POSTFIELDSIZE_LARGE, len(request.body))
            self.handle.setopt(pycurl.HTTPHEADER, [*headers, "Expect:"])
        self.index, self.request_body, self.position, self.attempts, self.size = index, request.body, 0, 1, 0
        self.chunks.clear()
        self.header_lines.clear()

    def _give(self, most: int) -> bytes:
        chunk = self.request_body[self.position : self.position + most]
        self.position += len(chunk)
        return chunk

    def _rewind(self, offset: int, _origin: int) -> Any:
        # libcurl repeats a request by itself when a reused connection turns out to be dead: that is a second send.
        self.position = offset
        self.attempts += 1
        return pycurl.SEEKFUNC_OK

    def _take(self, chunk: bytes) -> int | None:
        self.size += len(chunk)
        if self.size > MOST_BODY_BYTES:
            return -1
        self.chunks.append(chunk)
        return None

    def exchange(self, now_ns: int, origin_ns: int, code: int, message: str) -> Exchange:
        info, sent_ns = self.handle.getinfo, self.sent_ns
        made = Exchange(
            index=self.index,
            scheduled_ns=self.free_ns - origin_ns,
            sent_ns=sent_ns - origin_ns,
            attempts=self.attempts,
            request_bytes=len(self.request_body),
        )
        ready_us, first_us, total_us = (
            info(pycurl.PRETRANSFER_TIME_T), info(pycurl.STARTTRANSFER_TIME_T), info(pycurl.TOTAL_TIME_T),
        )  # fmt: skip
        if ready_us and info(pycurl.REQUEST_SIZE):  # a refused connection has the first, too
            made.connected_ns = made.sent_ns + ready_us * 1000
            made.connection = "new" if info(pycurl.NUM_CONNECTS) else "reused"
            self._phases(made)
        if code:
            gave_up_connecting = code == pycurl.E_OPERATION_TIMEDOUT and made.connection is None
            made.error = "connect" if gave_up_connecting else ERROR_OF_CODE.get(code, "protocol")
            made.error_detail = f"libcurl {code}: {message}"
            return made
        made.first_byte_ns = made.sent_ns + first_us * 1000
        made.finished_ns = max(now_ns - origin_ns, made.sent_ns + total_us * 1000)
        made.response = Response(info(pycurl.RESPONSE_CODE), _headers(self.header_lines), b"".join(self.chunks))
        return made

    def _phases(self, made: Exchange) -> None:
        if made.connection == "reused":
            made.dns_us = made.tcp_us = made.tls_us = 0
            return
        info = self.handle.getinfo
        resolved, connected, secured = (
            info(pycurl.NAMELOOKUP_TIME_T), info(pycurl.CONNECT_TIME_T), info(pycurl.APPCONNECT_TIME_T),
        )  # fmt: skip
        made.dns_us = resolved
        made.tcp_us = connected - resolved
        made.tls_us = secured - connected if secured else 0


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        if line.startswith(b"HTTP/"):
            headers.clear()  # an interim answer came before
            continue
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.decode("latin-1").strip().lower()] = value.decode("latin-1").strip()
    return headers
