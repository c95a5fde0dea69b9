"""All instances of one function, and the calls that wait for one."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from sebs_local.gateway.instance import Instance

if TYPE_CHECKING:
    from sebs_local.gateway.instance import House, Spec
    from sebs_local.gateway.records import Logs, Numbers

__all__ = ["Call", "Client", "Pool", "failure_of"]

ID_WITHIN = 160
"""The first bytes of an envelope, in which the id of its request stands."""

_MEASUREMENT = '"measurement": '
_WELL = ', "error": null, '
_DECODER = json.JSONDecoder()


class Client(Protocol):
    """Who is waiting for the answer of a call."""

    def answer(self, call: Call, envelope: bytes | None, error: str | None, detail: str, cold_kind: str | None) -> None:
        """The call has ended. `envelope` is what the shim sent, if it did; `error` one of core's kinds, or None."""


class Call:
    """One request, from complete arrival to its answer. ``_ns`` are monotonic nanoseconds."""

    __slots__ = ("abandoned", "arrived_ns", "assigned_ns", "client", "cpu_ns", "event", "request_id", "written_ns")

    def __init__(self, client: Client, request_id: str, event: bytes) -> None:
        self.client, self.request_id, self.event = client, request_id, event
        self.arrived_ns = time.monotonic_ns()
        self.assigned_ns = self.arrived_ns
        self.written_ns: int | None = None
        self.cpu_ns: int | None = None
        self.abandoned = False
        """The client has gone: no instance is to be taken for it any more."""


class Pool:
    """One request at a time per instance; the most recently used idle one first; a new one when none is idle."""

    def __init__(
        self,
        house: House,
        spec: Spec,
        *,
        max_instances: int,
        keep_alive_s: float,
        logs: Logs,
        numbers: Numbers,
    ) -> None:
        self.house, self.spec = house, spec
        self.instances: set[Instance] = set()
        self.queue: deque[Call] = deque()
        self._max, self._keep_alive_s = max_instances, keep_alive_s
        self._logs, self._numbers = logs, numbers
        self._idle: list[Instance] = []
        self._closed = False
        self._enforced = 0
        self._sweeping = False
        self._renew()

    def _renew(self) -> None:
        self.generation = f"{self._enforced}-{os.urandom(4).hex()}"
        self._finished = 0
        self._evicted = False

    # From outside

    def submit(self, call: Call) -> None:
        """Give the call an idle instance, or a new one, or a place in the queue."""
        if self._idle:
            self._assign(self._idle.pop(), call)
        elif len(self.instances) < self._max:
            self._start_for(call)
        else:
            self.queue.append(call)

    def enforce_cold_start(self) -> str:
        """No instance of before serves a later request; returns the new generation."""
        self._enforced += 1
        self._renew()
        self._kill_idle()
        return self.generation

    def close(self) -> list[Call]:
        """Take no more: idle instances end now, busy ones after their call. Returns the calls that were waiting."""
        self._closed = True
        self._kill_idle()
        waiting, self.queue = list(self.queue), deque()
        return waiting

    def _kill_idle(self) -> None:
        idle, self._idle = self._idle, []
        for instance in idle:
            self._remove(instance)

    def _remove(self, instance: Instance) -> None:
        self.instances.discard(instance)
        instance.kill()

    # A call finds its instance

    def _start_for(self, call: Call) -> None:
        try:
            instance = Instance(self.house, self, self.spec, self.generation, self._cold_kind())
        except (OSError, ValueError) as error:
            self._record(call, None)
            call.client.answer(call, None, "init_error", f"no process could be started: {error}", self._cold_kind())
            return
        self.instances.add(instance)
        self._evicted = False
        instance.call = call
        call.assigned_ns = instance.spawn_began_ns

    def _cold_kind(self) -> str:
        if not self._finished:
            return "enforced" if self._enforced else "first_deploy"
        if any(instance.generation == self.generation for instance in self.instances):
            return "scale_out"
        return "evicted" if self._evicted else "unknown"

    def _assign(self, instance: Instance, call: Call) -> None:
        call.assigned_ns = time.monotonic_ns()
        self._send(instance, call)

    def _send(self, instance: Instance, call: Call) -> None:
        instance.call = call
        call.cpu_ns = instance.cpu_ns()
        call.written_ns = time.monotonic_ns()
        try:
            instance.send(call.request_id.encode(), call.event)
        except OSError:
            if not instance.calls:  # it ended right after its start: the reading side will tell, as of an init_error
                return
            instance.call = None  # it ended while it was idle, which the loop has not seen yet; the call is still whole
            self._remove(instance)
            self.submit(call)

    def _next(self, instance: Instance) -> None:
        """The instance is free: the next waiting call, or rest, or the end."""
        if self._closed or instance.spent or instance.failed or instance.generation != self.generation:
            self._remove(instance)
            self._refill()
            return
        while self.queue:
            call = self.queue.popleft()
            if not call.abandoned:
                self._assign(instance, call)
                return
        instance.rest()
        self._idle.append(instance)
        self._sweep_later()

    def _refill(self) -> None:
        while self.queue and len(self.instances) < self._max:
            call = self.queue.popleft()
            if not call.abandoned:
                self._start_for(call)

    # What instances tell (instance.Owner)

    def ready(self, instance: Instance) -> None:
        """The shim can take events now."""
        call: Call = instance.call
        if call.abandoned:
            instance.call = None
            self._next(instance)
        else:
            self._send(instance, call)

    def answered(self, instance: Instance, envelope: bytes | None) -> None:
        """The answer has arrived completely; None: it was too large."""
        ended_ns = time.monotonic_ns()
        error: str | None
        head = b"" if envelope is None else envelope[:ID_WITHIN]
        if b'"request_id"' in head and instance.call.request_id.encode() not in head:
            # A handler that forks has two processes that answer: the later one is not of this call.
            self.ended(instance, "wrote an answer to another call")
            return
        if envelope is None:
            limit = self.house.response_limit >> 20
            error, detail = "too_large", f"the function answered with more than the limit of {limit} MiB"
        else:
            error, detail = failure_of(envelope)
        self._settle(instance, envelope, error, detail, ended_ns)
        self._next(instance)

    def ended(self, instance: Instance, reason: str) -> None:
        """The process ended, or broke the protocol."""
        if instance.state == "starting":
            self._fail(instance, "init_error", f"the instance {reason} while it was starting")
        else:
            self._fail(instance, "crash", f"the instance {reason} during the call")

    def overdue(self, instance: Instance) -> None:
        """A time limit has passed."""
        if instance.state == "starting":
            limit = self.house.init_timeout_s
            self._fail(instance, "init_error", f"the instance was not ready within {limit:g} s, and was ended")
        else:
            self._fail(instance, "timeout", f"the call took longer than {self.spec.timeout_s:g} s, and was ended")

    def _fail(self, instance: Instance, error: str, detail: str) -> None:
        ended_ns = time.monotonic_ns()
        if instance.state == "idle":
            self._idle.remove(instance)
        usage = None if instance.spent else (instance.cpu_ns(), instance.peak_memory_mb())
        self._remove(instance)
        if instance.call is not None:
            self._settle(instance, None, error, detail, ended_ns, usage)
        self._refill()

    # A call ends

    def _settle(
        self,
        instance: Instance,
        envelope: bytes | None,
        error: str | None,
        detail: str,
        ended_ns: int,
        usage: tuple[int | None, int | None] | None = None,
    ) -> None:
        """Answer first, then look at what the call used: the client does not wait for that."""
        call: Call = instance.call
        first = instance.calls <= 1
        instance.call = None
        self._finished += instance.generation == self.generation
        if instance.state != "gone":
            instance.drain()
        printed, instance.printed = instance.printed, None
        self._logs.keep(call.request_id, printed)
        call.client.answer(call, envelope, error, detail, instance.cold_kind if first else None)
        if usage is None and instance.state != "gone":
            usage = instance.cpu_ns(), instance.peak_memory_mb()
        self._record(call, instance if first else None, ended_ns, usage or (None, None))

    def _record(
        self,
        call: Call,
        started: Instance | None,
        ended_ns: int = 0,
        usage: tuple[int | None, int | None] = (None, None),
    ) -> None:
        cpu_ns, memory_mb = usage
        begun = started.spawn_began_ns if started else None
        self._numbers.add(
            self.spec.name,
            {
                "id": call.request_id,
                "queue_us": (call.assigned_ns - call.arrived_ns) // 1000,
                "spawn_us": _between(begun, started.spawned_ns) if started else None,
                "runtime_us": _between(begun, started.shim_began_ns) if started else None,
                "init_us": _between(begun, started.ready_ns) if started else None,
                "duration_us": _between(call.written_ns, ended_ns),
                "cpu_us": _between(call.cpu_ns, cpu_ns),
                "memory_mb": memory_mb,
            },
        )

    # Instances that nobody needs

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self.house.loop.call_at(self._idle[0].idle_since + self._keep_alive_s, self._sweep)

    def _sweep(self) -> None:
        """Remove what has been idle for the keep-alive; the list is in the order in which they became idle."""
        self._sweeping = False
        limit = self.house.loop.time() - self._keep_alive_s + 0.001
        while self._idle and self._idle[0].idle_since <= limit:
            self._remove(self._idle.pop(0))
            self._evicted = not self.instances
        if self._idle:
            self._sweep_later()


def failure_of(envelope: bytes) -> tuple[str | None, str]:
    """Kind and description of the error that an envelope tells of; (None, "") when it tells of none.

    The handler's result, which may be megabytes, need not be decoded to know that: before ``measurement`` stand only numbers
    and ids, and where a null ``error`` follows it, all is well. An envelope that is written otherwise is decoded.
    """
    if envelope.startswith(b"null" + _WELL.encode(), envelope.find(_MEASUREMENT.encode()) + len(_MEASUREMENT)):
        return None, ""
    try:
        text = envelope.decode()
        if _is_well(text):
            return None, ""
        error = json.loads(text)["error"]
        return (None, "") if error is None else (str(error["kind"]), f"{error['type']}: {error['message']}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return "bad_response", "the answer is not an envelope of a SeBS shim"


def _is_well(text: str) -> bool:
    """Whether a null ``error`` follows the measurement; False when that cannot be seen so."""
    at = text.find(_MEASUREMENT)
    try:
        _, end = _DECODER.raw_decode(text, at + len(_MEASUREMENT))
    except ValueError:
        return False
    return at >= 0 and text.startswith(_WELL, end)


def _between(begun_ns: int | None, ended_ns: int | None) -> int | None:
    return None if begun_ns is None or ended_ns is None else (ended_ns - begun_ns) // 1000
