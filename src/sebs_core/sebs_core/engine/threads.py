"""The closed loop over threads, for triggers that no HTTP request can express (``sebs_invoke``)."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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
    indices = itertools.count(plan.first_index)
    end = plan.first_index + plan.load.repetitions
    stop = threading.Event()
    lock = threading.Lock()
    sent = 0

    def client() -> None:
        nonlocal sent
        free_ns = time.monotonic_ns()
        while not stop.is_set():
            with lock:
                index = next(indices)
                if index >= end:
                    return
                sent += 1
            exchange = _send(plan, stages, index, free_ns)
            with lock:
                sink.add(exchange)
            free_ns = time.monotonic_ns()

    workers = min(plan.load.concurrency, plan.load.repetitions)
    with ThreadPoolExecutor(workers, "sebs-client") as pool:
        clients = [pool.submit(client) for _ in range(workers)]
        try:
            for running in clients:
                running.result()
        finally:
            stop.set()
    sink.flush()
    ended_ns = time.monotonic_ns() - plan.origin_ns
    return EngineReport(engine="threads over sebs_invoke", sent=sent, started_ns=started_ns, ended_ns=ended_ns)


def _send(plan: Plan, stages: Stages, index: int, free_ns: int) -> Exchange:
    payload = plan.payloads[index % len(plan.payloads)]
    sent_ns = time.monotonic_ns()
    made = Exchange(index, free_ns - plan.origin_ns, sent_ns - plan.origin_ns, request_bytes=len(payload))
    try:
        told = stages.call("sebs_invoke", function=plan.function, trigger=plan.trigger, payload=payload)
    except InvokeError as error:
        made.error, made.error_detail = "connect", str(error)
        return made
    made.finished_ns = time.monotonic_ns() - plan.origin_ns
    made.fields = _fields(told)
    return made


def _fields(told: Invocation) -> Fields:
    known = told.model_dump(include=set(Fields.__dataclass_fields__))
    return Fields(**known)
