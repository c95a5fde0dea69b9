"""What travels between engine, platform and function: requests, responses, and the envelope a shim answers with.

These are plain dataclasses, not records: one is made per invocation, and none is stored as it is.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from sebs_core.errors import ConfigError
from sebs_core.models import ERROR_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Exchange", "Fields", "Request", "Response", "Sink", "fields_from_envelope", "json_text", "payload_text"]


@dataclass(frozen=True)
class Request:
    """An HTTP request that invokes a function."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    valid_until: datetime.datetime | None = None
    """When a signature in the headers ends; None: never."""


@dataclass(frozen=True)
class Response:
    """What came back, headers with lower-case names (the last one wins)."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Fields:
    """What a platform reads from a response; names and meanings are the row's columns. None: not told."""

    request_id: str | None = None
    status: int | None = None
    """Where no HTTP response tells it."""
    error: str | None = None
    error_detail: str | None = None
    instance_id: str | None = None
    instance_sequence: int | None = None
    instance_uptime_us: int | None = None
    generation: str | None = None
    cold_kind: str | None = None
    handler_us: int | None = None
    import_us: int | None = None
    init_us: int | None = None
    function_begin_us: int | None = None
    function_end_us: int | None = None
    provider: Mapping[str, Any] | None = None
    measurement: Mapping[str, Any] | None = None
    output: Any = None
    """The handler's return value, decoded."""

    def but(self, **changes: Any) -> Fields:
        """The same, with some fields replaced."""
        return replace(self, **changes)


@dataclass
class Exchange:
    """One attempted invocation as the engine saw it. ``_ns`` are monotonic nanoseconds since the run's start."""

    index: int
    scheduled_ns: int
    sent_ns: int
    connected_ns: int | None = None
    connection: str | None = None
    """``"new"`` or ``"reused"``; None when none was made."""
    dns_us: int | None = None
    tcp_us: int | None = None
    tls_us: int | None = None
    first_byte_ns: int | None = None
    finished_ns: int | None = None
    attempts: int = 1
    error: str | None = None
    error_detail: str | None = None
    request_bytes: int = 0
    response: Response | None = None
    fields: Fields | None = None
    """Already known, where no HTTP response tells them (``sebs_invoke``)."""


ENVELOPE: dict[str, type] = {
    **dict.fromkeys(("request_id", "instance_id", "generation"), str),
    **dict.fromkeys(("instance_sequence", "instance_uptime_us", "handler_us", "import_us", "init_us"), int),
    **dict.fromkeys(("begin_us", "end_us"), int),
    **dict.fromkeys(("measurement", "error"), dict),
}
"""Keys of the shim's envelope that become columns."""


def _fits(value: Any, kind: type) -> bool:
    if value is None:
        return True
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if kind is dict and isinstance(value, dict):
        return value.get("kind") is None or value["kind"] in ERROR_KINDS
    return isinstance(value, kind)


class Sink(Protocol):
    """Where an engine delivers exchanges."""

    def add(self, exchange: Exchange) -> None:
        """Take one exchange. Cheap: nothing is decoded or written here."""

    @property
    def due(self) -> bool:
        """True when it is time to `flush`: the engine lets what is in flight finish, then calls it.

        Raises ``KeyboardInterrupt`` when the user wants to stop: look at it often, and never from a callback in C.
        """

    def abandon(self, sends: int) -> None:
        """Say that so many sends were begun and will never be known to end (an interrupt)."""

    def flush(self) -> None:
        """Decode and write what was added. Never called while an invocation is in flight."""


def fields_from_envelope(body: bytes) -> Fields:
    """Read the envelope that SeBS' shims answer with (``sebs_function.measured`` documents it).

    A body that is no envelope gives ``error="bad_response"`` with the beginning of what came instead.
    """
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        envelope = None
    if not isinstance(envelope, dict) or "sebs" not in envelope:
        shown = body[:200].decode("utf-8", "replace")
        return Fields(error="bad_response", error_detail=f"the answer is not from a SeBS shim: {shown!r}")
    for key, kind in ENVELOPE.items():
        if not _fits(envelope.get(key), kind):
            return Fields(error="bad_response", error_detail=f"the shim's {key} is {envelope[key]!r:.80}, not {kind.__name__}")
    error = envelope.get("error") or {}
    detail = f"{error.get('type', 'error')}: {error.get('message', '')}" if error else None
    return Fields(
        request_id=envelope.get("request_id"),
        error=error.get("kind", "function_error") if error else None,
        error_detail=detail,
        instance_id=envelope.get("instance_id"),
        instance_sequence=envelope.get("instance_sequence"),
        instance_uptime_us=envelope.get("instance_uptime_us"),
        generation=envelope.get("generation"),
        handler_us=envelope.get("handler_us"),
        import_us=envelope.get("import_us"),
        init_us=envelope.get("init_us"),
        function_begin_us=envelope.get("begin_us"),
        function_end_us=envelope.get("end_us"),
        measurement=envelope.get("measurement"),
        output=envelope.get("result"),
    )


def payload_text(payload: Any) -> bytes:
    """The payload as the JSON text that is sent; `ConfigError` when it is no JSON."""
    if isinstance(payload, dict) and "__sebs__" in payload:
        raise ConfigError("the key __sebs__ of a payload is reserved for sebs itself: choose another name")
    return json_text(payload)


def json_text(payload: Any) -> bytes:
    """The event as JSON text."""
    try:
        return json.dumps(payload, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the payload cannot be written as JSON: {error}") from None
