"""The gateway's HTTP side: one connection, its requests answered in order, as little work for each as possible.

``POST /functions/NAME`` is the http trigger: the status tells how the call ended. ``POST /invocations/NAME`` is the library
trigger, the platform's own interface: 200 whenever the platform did its part, whatever the function did. Both answer with
the shim's envelope as it is (where there is none: ``{"message": …}``) and these headers:

``x-sebs-request-id``     always, when a function was called
``x-sebs-cold-kind``      on the first call of an instance: why it was started
``x-sebs-error``          what went wrong: one of core's error kinds
``x-sebs-error-detail``   a sentence about it, percent-encoded UTF-8
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import quote

import httptools

from sebs_local.gateway.pool import Call

if TYPE_CHECKING:
    from sebs_local.gateway.pool import Pool

__all__ = ["Connection", "Switchboard"]

STATUSES = {
    "function_error": 500,
    "init_error": 502,
    "crash": 502,
    "bad_response": 502,
    "timeout": 504,
    "too_large": 413,
    "refused": 404,
}
URL_LIMIT = 4096
WAITING_LIMIT = 64
"""Pipelined requests of one connection that may wait; then it is not read from until they are answered."""


class Switchboard(Protocol):
    """Who knows the functions."""

    request_limit: int
    """Bytes of an event."""
    connections: set[Connection]

    def pool(self, name: bytes) -> Pool | None:
        """The instances of the function of this name."""

    def new_request_id(self) -> str:
        """An id that no other request has, of this gateway or another."""


class _Incoming(NamedTuple):
    method: bytes
    url: bytes
    event: bytes | None
    """None: it was larger than the limit."""
    keep_alive: bool


class Connection(asyncio.Protocol):
    """One client. The event loop has set TCP_NODELAY on its socket; each answer is one write."""

    def __init__(self, switchboard: Switchboard, loop: asyncio.AbstractEventLoop) -> None:
        self._switchboard, self._loop = switchboard, loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Incoming] = deque()
        self._call: Call | None = None
        self._library = self._keep_alive = False
        self._proceeding = self._clogged = self._paused = False
        self.on_message_begin()

    # The event loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._switchboard.connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The client has gone: what waits is dropped, what runs finishes unheard."""
        self._transport = None
        self._switchboard.connections.discard(self)
        self._waiting.clear()
        if self._call is not None:
            self._call.abandoned = True

    def data_received(self, data: bytes) -> None:
        """Parse what has come; complete requests start."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse_connection(400, f"this is no HTTP request that the gateway understands: {error}")

    def pause_writing(self) -> None:
        """The client does not read its answers: it gets no more for now."""
        self._clogged = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self._clogged = False
        self._proceed()

    def abort(self) -> None:
        """Drop the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    # The parser's side

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._body: list[bytes] = []
        self._size = 0
        self._expects = False

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url
        if len(self._url) > URL_LIMIT:
            raise ValueError(f"a target of more than {URL_LIMIT} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Only one header means anything here."""
        if len(name) == 6 and name.lower() == b"expect":
            self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Libcurl asks before it sends a large body; without an answer it would wait for a second."""
        if self._expects and self._call is None and not self._waiting and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of the event; more than the limit is read, so that the client gets an answer, but not kept."""
        self._size += len(body)
        if self._size <= self._switchboard.request_limit:
            self._body.append(body)
        else:
            self._body.clear()

    def on_message_complete(self) -> None:
        """A request is there."""
        event = None
        if self._size <= self._switchboard.request_limit:
            event = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        incoming = _Incoming(self._parser.get_method(), self._url, event, self._parser.should_keep_alive())
        self._waiting.append(incoming)
        if len(self._waiting) > WAITING_LIMIT and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._proceed()

    # One request at a time

    def _proceed(self) -> None:
        if self._proceeding:
            return
        self._proceeding = True
        while self._waiting and self._call is None and not self._clogged and self._transport is not None:
            self._begin(self._waiting.popleft())
        self._proceeding = False
        if self._paused and not self._waiting and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _begin(self, incoming: _Incoming) -> None:
        method, url, event, self._keep_alive = incoming
        if method != b"POST":
            self._refuse_connection(405, "functions are invoked by POST, with the event as a JSON body")
            return
        parts = url.partition(b"?")[0].split(b"/")
        known = len(parts) == 3 and parts[1] in {b"functions", b"invocations"}
        pool = self._switchboard.pool(parts[2]) if known else None
        if pool is None:
            self._answer_shortly(404, "refused", f"this gateway serves no function at {url.decode('ascii', 'replace')}")
            return
        self._library = parts[1] == b"invocations"
        call = Call(self, self._switchboard.new_request_id(), event or b"")
        if event is None:
            limit = self._switchboard.request_limit >> 20
            detail = f"the event is larger than the limit of {limit} MiB"
            self._answer_shortly(413, "too_large", detail, call.request_id)
        else:
            self._call = call
            pool.submit(call)

    def answer(self, call: Call, envelope: bytes | None, error: str | None, detail: str, cold_kind: str | None) -> None:
        """The call has ended (`pool.Client`)."""
        if self._call is not call or self._transport is None:
            return
        self._call = None
        status = 200 if error is None or self._library else STATUSES.get(error, 502)
        body = _message(detail) if envelope is None else envelope
        self._write(status, body, call.request_id, error, detail, cold_kind)
        if self._waiting or self._paused:
            self._loop.call_soon(self._proceed)  # not at once: the instance that has answered is not free yet

    def _answer_shortly(self, status: int, error: str, detail: str, request_id: str = "") -> None:
        self._write(status, _message(detail), request_id, error, detail, None)

    def _refuse_connection(self, status: int, detail: str) -> None:
        """For what leaves no way to know where the next request begins, or is not worth knowing."""
        self._keep_alive = False
        self._waiting.clear()
        if self._call is not None:
            self._call.abandoned = True
            self._call = None
        self._answer_shortly(status, "protocol", detail)

    def _write(self, status: int, body: bytes, request_id: str, error: str | None, detail: str, cold_kind: str | None) -> None:
        if self._transport is None:
            return
        more = f"x-sebs-request-id: {request_id}\r\n" if request_id else ""
        if cold_kind is not None:
            more += f"x-sebs-cold-kind: {cold_kind}\r\n"
        if error is not None:
            more += f"x-sebs-error: {error}\r\nx-sebs-error-detail: {quote(detail[:1000], safe=' ', errors='replace')}\r\n"
        if not self._keep_alive:
            more += "connection: close\r\n"
        phrase = "OK" if status == 200 else HTTPStatus(status).phrase
        head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\n{more}content-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode("ascii") + body)
        if not self._keep_alive:
            self._transport.close()
            self._transport = None  # what follows on this connection is not answered


def _message(text: str) -> bytes:
    return json.dumps({"message": text}).encode()
