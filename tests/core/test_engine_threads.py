"""The closed loop over threads: for what no HTTP request can express."""

import threading
import time

import pytest

import sebs_core as sebs
from sebs_core.engine.threads import run_threads
from sebs_core.models import Invocation


class Kept:
    def __init__(self, due=False):
        self.exchanges, self.flushed, self.due, self.abandoned = [], [], due, 0

    def add(self, exchange):
        self.exchanges.append(exchange)

    def abandon(self, sends):
        self.abandoned += sends

    def flush(self):
        self.flushed.append(len(self.exchanges))


class OneStage:
    """Stages with an ``sebs_invoke`` only."""

    def __init__(self, invoke):
        self._invoke = invoke
        self.calls, self.most_at_once, self._now = 0, 0, 0
        self._lock = threading.Lock()

    def call(self, stage, *, function, trigger, payload):
        assert stage == "sebs_invoke"
        with self._lock:
            self.calls += 1
            self._now += 1
            number = self.calls
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            return self._invoke(number, payload)
        finally:
            with self._lock:
                self._now -= 1


def told(**more):
    return Invocation(**{"index": 0, "function": "f", "phase": "", "client_us": None, "status": 200, "error": None, **more})


def plan(repetitions=1, concurrency=1, **more):
    given = {
        "load": sebs.Closed(concurrency=concurrency, repetitions=repetitions), "connections": "reused", "timeout_s": 5,
        "origin_ns": time.monotonic_ns(), "first_index": 10, "function": None, "trigger": None, "payloads": (b"{}",),
        "requests": (),
    }  # fmt: skip
    return sebs.Plan.model_construct(**{**given, **more})


def run(stages, **load):
    sink = Kept()
    report = run_threads(plan(**load), sink, stages)
    return sorted(sink.exchanges, key=lambda exchange: exchange.index), report, sink


@pytest.mark.parametrize(("repetitions", "concurrency"), [(1, 1), (7, 3), (3, 8), (200, 8)])
def test_exactly_the_repetitions_are_sent_each_with_an_index_of_its_own(repetitions, concurrency):
    stages = OneStage(lambda number, payload: told())
    exchanges, report, sink = run(stages, repetitions=repetitions, concurrency=concurrency)
    assert [exchange.index for exchange in exchanges] == list(range(10, 10 + repetitions))
    assert stages.calls == repetitions == report.sent
    assert sink.flushed[-1] == repetitions


def test_eight_clients_overlap_and_one_does_not():
    slow = OneStage(lambda number, payload: time.sleep(0.03) or told())
    run(slow, repetitions=16, concurrency=8)
    assert slow.most_at_once == 8
    alone = OneStage(lambda number, payload: time.sleep(0.003) or told())
    run(alone, repetitions=5)
    assert alone.most_at_once == 1


def test_times_bracket_the_invocation_and_phases_are_unknown():
    exchanges, report, _ = run(OneStage(lambda number, payload: time.sleep(0.05) or told()), repetitions=2)
    for exchange in exchanges:
        assert 50_000_000 <= exchange.finished_ns - exchange.sent_ns < 90_000_000
        assert report.started_ns <= exchange.scheduled_ns <= exchange.sent_ns
        assert exchange.finished_ns <= report.ended_ns
        assert (exchange.connection, exchange.connected_ns, exchange.tcp_us, exchange.response) == (None, None, None, None)
    assert "threads" in report.engine


def test_what_the_invocation_told_is_in_the_fields():
    said = told(
        request_id="r", instance_id="i", instance_sequence=3, handler_us=5, error="function_error",
        error_detail="ValueError: x", provider={"duration_us": 9}, measurement={"compute_us": 1}, output=[1], generation="g",
    )  # fmt: skip
    ((exchange,), _, _) = run(OneStage(lambda number, payload: said))
    fields = exchange.fields
    assert (fields.request_id, fields.instance_id, fields.instance_sequence, fields.handler_us) == ("r", "i", 3, 5)
    assert (fields.error, fields.error_detail, fields.output) == ("function_error", "ValueError: x", [1])
    assert (fields.provider, fields.measurement) == ({"duration_us": 9}, {"compute_us": 1})
    assert fields.generation == "g"


def test_a_failing_function_is_a_row_and_the_load_goes_on():
    def invoke(number, payload):
        return told(error="function_error" if number % 2 else None)

    exchanges, _, _ = run(OneStage(invoke), repetitions=10, concurrency=2)
    assert sorted(exchange.fields.error or "" for exchange in exchanges) == [""] * 5 + ["function_error"] * 5


def test_a_function_that_cannot_be_reached_is_a_row_with_a_connect_error():
    def invoke(number, payload):
        raise sebs.InvokeError("nobody there")

    exchanges, report, _ = run(OneStage(invoke), repetitions=3)
    assert report.sent == 3
    for exchange in exchanges:
        assert (exchange.error, exchange.error_detail, exchange.finished_ns) == ("connect", "nobody there", None)


def test_payloads_are_used_in_turn():
    seen = []
    run(OneStage(lambda number, payload: seen.append(payload) or told()), repetitions=4, payloads=(b"a", b"b"))
    assert seen == [b"a", b"b", b"a", b"b"]


@pytest.mark.parametrize("fault", [RuntimeError("a defect of the plugin"), KeyboardInterrupt()], ids=repr)
def test_what_a_plugin_must_not_raise_ends_the_load_but_loses_no_row(fault):
    def invoke(number, payload):
        if number == 4:
            raise fault
        return told()

    sink = Kept()
    with pytest.raises(type(fault)):
        run_threads(plan(repetitions=100), sink, OneStage(invoke))
    assert len(sink.exchanges) == 3
    assert sink.flushed[-1] == 3


def test_the_sink_is_flushed_in_between_when_it_is_due():
    class Due(Kept):
        @property
        def due(self):
            return len(self.exchanges) >= 3 and not self.flushed

        @due.setter
        def due(self, value):
            pass

    sink = Due()
    run_threads(plan(repetitions=30), sink, OneStage(lambda number, payload: time.sleep(0.005) or told()))
    assert len(sink.exchanges) == 30
    assert sink.flushed[0] < 30
    assert sink.flushed[-1] == 30


def test_a_sink_that_says_stop_ends_the_load_at_once_with_what_is_known():
    class Stopping(Kept):
        @property
        def due(self):
            if len(self.exchanges) == 2 and stages.calls == 3:
                raise KeyboardInterrupt
            return False

        @due.setter
        def due(self, value):
            pass

    def invoke(number, payload):
        time.sleep(0.01 if number <= 2 else 3)
        return told()

    sink, stages = Stopping(), OneStage(invoke)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_threads(plan(repetitions=10), sink, stages)
    assert time.monotonic() - begin < 1
    assert len(sink.exchanges) == 2
    assert sink.abandoned == 1
    assert sink.flushed[-1] == 2
