"""Checks: invocations, cold starts, failures, metrics, logs and results are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from sebs_core.errors import MetricsError
from sebs_core.load import Closed
from sebs_core.models import ERROR_KINDS, RunManifest

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence
    from pathlib import Path

    from sebs_core.models import Function, Metrics
    from sebs_core.offers import Capabilities
    from sebs_core.result import Result
    from sebs_core.session import Session

PATIENCE_S = 10
"""How long metrics may be late."""


class InvokingChecks:
    """See `PlatformConformance`."""

    def test_a_run_measures(self, session: Session, benchmark_folder: Path) -> None:
        """Catches most of what can be wrong: rows, ids, times, outputs.

        Mend: look at the first assertion that fails; docs/measurement.md defines every column.
        """
        result = session.run(benchmark_folder, "test", load=Closed(concurrency=2, repetitions=10))
        rows = _rows(result)
        assert [row["error"] for row in rows] == [None] * 10
        assert all(row["output_ok"] for row in rows)
        requests = [row["request_id"] for row in rows]
        assert None not in requests, "each row has the request id by which the provider knows it"
        assert len(set(requests)) == 10, "request ids are of one invocation each"
        for row in rows:
            assert 0 <= row["handler_us"] <= row["client_us"], "the handler cannot take longer than the whole call"
            assert row["instance_id"]
        assert type(session).__name__ == "Session"
        assert RunManifest.model_validate_json((result.directory / "run.json").read_text()) == result.manifest

    def test_concurrent_invocations_do_not_meet(self, session: Session, function: Function, capabilities: Capabilities) -> None:
        """Catches clients that are no good in several threads, and answers that reach the wrong caller.

        Mend: one SDK client per thread, or one that is documented to be safe; nothing about a call in shared attributes.
        """
        for trigger in capabilities.triggers:
            result = session.run(
                session.benchmark(_folder(session)), payload={"value": "x"}, load=Closed(concurrency=8, repetitions=32),
                trigger=trigger, start="any",
            )  # fmt: skip
            rows = _rows(result)
            assert [row["error"] for row in rows] == [None] * 32, f"trigger {trigger}: {[row['error_detail'] for row in rows]}"
            assert len({row["request_id"] for row in rows}) == 32
        kinds = capabilities.triggers
        with ThreadPoolExecutor(8) as pool:
            request = [
                session.stages.ask(
                    "sebs_request", function=function, trigger=session.trigger(function, kinds[0]), payload=b"{}"
                )
            ]
            again = pool.map(lambda _: session.stages.ask("sebs_request", function=function,
                             trigger=session.trigger(function, kinds[0]), payload=b"{}") is not None, range(16))  # fmt: skip
            assert set(again) == {request[0] is not None}

    def test_a_failing_function_is_a_row_and_no_exception(self, session: Session, function: Function) -> None:
        """Catches exceptions out of an invocation whose function failed: a failing benchmark is data.

        Mend: ``sebs_response`` (or ``sebs_invoke``) tells an error kind; raise only when the function cannot be reached.
        """
        failed = session.invoke(function, {"fail": "on purpose"})
        assert failed.error == "function_error", f"a handler that raises is a function_error, not {failed.error}"
        assert "on purpose" in (failed.error_detail or ""), f"the detail tells what was raised, not {failed.error_detail!r}"
        assert session.invoke(function, {"value": 1}).error is None

    def test_a_crash_and_a_time_out_are_told(self, session: Session, benchmark_folder: Path) -> None:
        """Catches ends of the runtime that look like success, or like each other.

        Mend: map the provider's error type or status in ``sebs_response`` to one of the kinds in docs/measurement.md.
        """
        function = session.deploy(session.package(benchmark_folder), timeout_s=1)
        crashed = session.invoke(function, {"crash": 3})
        assert crashed.error in ("crash", "function_error"), f"a process that ended is a crash, not {crashed.error}"
        slow = session.invoke(function, {"sleep_ms": 3000})
        assert slow.error == "timeout", f"a call beyond the time limit is a timeout, not {slow.error}"
        assert {crashed.error, slow.error} <= set(ERROR_KINDS)
        assert session.invoke(function, {"value": 1}).error is None, "after a crash the function must answer again"

    def test_warm_is_not_told_as_cold(self, session: Session, function: Function) -> None:
        """Catches warm invocations that are told as cold, and the other way round.

        Mend: only the first invocation of an instance is cold; the shim counts (``instance_sequence``), do not guess from
        durations or headers.
        """
        told = [session.invoke(function, {"value": number}) for number in range(3)]
        assert told[0].cold is True, "the first invocation after a deployment meets a new instance"
        for one in told[1:]:
            same = one.instance_id == told[0].instance_id
            assert one.cold is (not same), f"an instance that answered before is warm: {one}"
        assert [one.instance_sequence for one in told if one.instance_id == told[0].instance_id][:2] in ([0, 1], [0])

    def test_enforced_cold_starts_are_cold(self, session: Session, benchmark_folder: Path, capabilities: Capabilities) -> None:
        """Catches «cold» numbers of warm instances: one by one, and eight at once.

        Mend: ``sebs_enforce_cold_start`` makes the instances of before unreachable and returns a new generation, which the shim
        echoes. A platform that cannot says so: ``Capabilities(cold_start=False)``.
        """
        if not capabilities.cold_start:
            pytest.skip("the platform says that it cannot enforce cold starts")
        for load in (Closed(concurrency=1, repetitions=3), Closed(concurrency=8, repetitions=8)):
            result = session.run(benchmark_folder, "test", load=load, start="cold")
            rows = _rows(result)
            assert len(rows) == load.repetitions, result.manifest.notes
            assert all(row["cold"] for row in rows)
            assert all(row["instance_sequence"] == 0 for row in rows)
            assert len({row["instance_id"] for row in rows}) == load.repetitions, "each cold start is an instance of its own"
            assert session.generations[result.manifest.function.name] is not None, "an enforced cold start has a generation"

    def test_asynchronous_triggers_are_made_or_refused(
        self, session: Session, function: Function, capabilities: Capabilities
    ) -> None:
        """Catches asynchronous triggers that invoke synchronously.

        Mend: ``sebs_create_trigger`` with ``asynchronous=True`` makes a trigger whose record says so, or raises `ConfigError`.
        """
        if not capabilities.asynchronous:
            with pytest.raises(Exception, match=r"\w+ \w+") as refused:
                session.stages.call("sebs_create_trigger", function=function, kind=capabilities.triggers[0], asynchronous=True)
            assert getattr(refused.value, "exit_status", None) == 2, f"{refused.value!r} is no ConfigError"
            return
        made = session.stages.call("sebs_create_trigger", function=function, kind=capabilities.triggers[0], asynchronous=True)
        assert made.asynchronous

    def test_metrics_are_of_their_requests(self, session: Session, function: Function) -> None:
        """Catches metrics in the wrong order, of the wrong request, invented ones, and lost ones.

        Mend: key them by the request id, and put those of which nothing is told (yet) into ``missing``.
        """
        begun = _now()
        sleeps = [0, 120, 30, 60]
        told = [session.invoke(function, {"sleep_ms": sleep}) for sleep in sleeps]
        requests = [one.request_id or "" for one in told]
        foreign = str(uuid.uuid4())
        metrics = _patiently(session, function, [*requests, foreign, requests[0]], begun, wanted=set(requests))
        assert set(metrics.values) <= {*requests, foreign}, "numbers of requests that were not asked for"
        assert foreign not in metrics.values, "numbers of a request that never was"
        assert foreign in metrics.missing, "a request of which nothing is known is missing"
        assert set(metrics.values) | set(metrics.missing) == {*requests, foreign}, "each request has values, or is missing"
        durations = [metrics.values.get(request, {}).get("duration_us") for request in requests]
        for sleep, duration, one in zip(sleeps, durations, told, strict=True):
            if isinstance(duration, (int, float)):
                assert duration >= sleep * 1000 * 0.9, f"a call that slept {sleep} ms is told to have taken {duration} us"
                assert one.client_us is None or duration <= one.client_us * 1.1, "the provider's time exceeds the client's"
        again = _patiently(session, function, list(reversed(requests)), begun, wanted=set(requests))
        assert {r: again.values.get(r) for r in requests} == {r: metrics.values.get(r) for r in requests}, "asked again, others"

    def test_what_a_function_prints_can_be_read_or_that_is_said(self, session: Session, function: Function) -> None:
        """Catches logs of another request, and silence.

        Mend: ``sebs_logs`` returns what this request printed, or raises `MetricsError`.
        """
        word = uuid.uuid4().hex
        one = session.invoke(function, {"print": word})
        other = session.invoke(function, {"print": "something else"})
        try:
            log = session.logs(function, one.request_id or "")
            other_log = session.logs(function, other.request_id or "")
        except MetricsError as error:
            assert len(str(error).split()) > 3
            return
        assert word in log
        assert word not in other_log

    def test_a_result_needs_no_plugin(self, session: Session, benchmark_folder: Path) -> None:
        """Catches results that only the plugin can read again.

        Mend: records are plain data; whatever the plugin knows beyond them is no field.
        """
        result = session.run(benchmark_folder, "test", load=Closed(repetitions=2))
        code = (
            "import sys; from sebs_core.result import Result; r = Result.load(sys.argv[1]); r.finish();"
            "print(r.manifest.model_dump_json()); print(len(r), file=sys.stderr); assert r.summary().count == 2"
        )
        done = subprocess.run([sys.executable, "-c", code, str(result.directory)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == json.loads((result.directory / "run.json").read_text())


def _folder(session: Session) -> Path:
    from sebs_core.testing.fixtures import HELLO

    return HELLO


def _rows(result: Result) -> list[dict[str, Any]]:
    table = result.invocations
    columns = {name: table[name].to_pylist() for name in table.column_names}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [row for row in rows if row["phase"] == "measured"]


def _now() -> datetime.datetime:
    import datetime

    return datetime.datetime.now(datetime.timezone.utc)


def _patiently(
    session: Session, function: Function, requests: Sequence[str], begun: datetime.datetime, wanted: set[str]
) -> Metrics:
    """Metrics may be late: ask until all are there or nobody would wait longer."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        metrics: Metrics = session.stages.call(
            "sebs_collect_metrics", function=function, requests=requests, window=(begun, _now())
        )
        if wanted <= set(metrics.values) or time.monotonic() > deadline:
            return metrics
        time.sleep(0.1)
