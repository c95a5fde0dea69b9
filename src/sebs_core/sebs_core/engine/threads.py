"""The closed loop over threads, for triggers that no HTTP request can express (``sebs_invoke``).

As in the loop over libcurl, rows are decoded and written only while nothing is in flight, and in the thread that called.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from sebs_core.errors import InvokeError
from sebs_core.exchange import Exchange, Fields
from sebs_core.models import EngineReport

if TYPE_CHECKING:
    from sebs_core.exchange import Sink
    from sebs_core.load import Plan
    from sebs_core.models import Invocation
    from sebs_core.plugins import Stages

__all__ = ["run_threads"]


def run_threads(plan: Plan, sink: Sink, stages: Stages) -> EngineReport:
    """Send the plan's repetitions from one thread per client; phases of a connection are unknown here."""
    started_ns = time.monotonic_ns() - plan.origin_ns
    clients = _Clients(plan, sink, stages)
    try:
        clients.run()
    except BaseException:
        sink.abandon(clients.in_flight)
        raise
    finally:
        clients.stopped = True
        with clients.changed:
            sink.flush()
    ended_ns = time.monotonic_ns() - plan.origin_ns
    return EngineReport(engine="threads over sebs_invoke", sent=clients.sent, started_ns=started_ns, ended_ns=ended_ns)


class _Clients:
    def __init__(self, plan: Plan, sink: Sink, stages: Stages) -> None:
        self.plan, self.sink, self.stages = plan, sink, stages
        self.changed = threading.Condition()
        self.sent = self.in_flight = self.resumed_ns = 0
        self.stopped = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        load = self.plan.load
        workers = [
            threading.Thread(target=self._client, name="sebs-client", daemon=True)
            for _ in range(min(load.concurrency, load.repetitions))
        ]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            with self.changed:
                self.changed.wait(0.05)
                if self.failure is not None:
                    raise self.failure
                if self.sink.due and not self.in_flight:
                    self.sink.flush()
                    self.resumed_ns = time.monotonic_ns()
                    self.changed.notify_all()
        if self.failure is not None:
            raise self.failure

    def _client(self) -> None:
        free_ns = time.monotonic_ns()
        try:
            while (index := self._next()) is not None:
                exchange = self._send(index, max(free_ns, self.resumed_ns))
                with self.changed:
                    if self.stopped:
                        return
                    self.in_flight -= 1
                    self.sink.add(exchange)
                    self.changed.notify_all()
                free_ns = time.monotonic_ns()
        except BaseException as error:
            self.failure = error

    def _next(self) -> int | None:
        with self.changed:
            while self.sink.due and not self.stopped:
                self.changed.wait(0.05)
            if self.stopped or self.sent == self.plan.load.repetitions:
                return None
            self.sent += 1
            self.in_flight += 1
            return self.plan.first_index + self.sent - 1

    def _send(self, index: int, free_ns: int) -> Exchange:
        plan = self.plan
        payload = plan.payloads[index % len(plan.payloads)]
        sent_ns = time.monotonic_ns()
        made = Exchange(index, free_ns - plan.origin_ns, sent_ns - plan.origin_ns, request_bytes=len(payload))
        try:
            told = self.stages.call("sebs_invoke", function=plan.function, trigger=plan.trigger, payload=payload)
        except InvokeError as error:
            made.error, made.error_detail = "connect", str(error)
            return made
        made.finished_ns = time.monotonic_ns() - plan.origin_ns
        made.fields = _fields(told)
        return made


def _fields(told: Invocation) -> Fields:
    return Fields(**told.model_dump(include=set(Fields.__dataclass_fields__)))
