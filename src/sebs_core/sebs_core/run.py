"""One run: warm-up or enforced cold starts, the load, metrics, and the run directory that holds them."""

from __future__ import annotations

import datetime
import hashlib
import platform as platform_module
import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from sebs_core.errors import InvokeError, MetricsError
from sebs_core.events import LoadProgress, Notice, RunFinished
from sebs_core.exchange import json_text, payload_text
from sebs_core.load import Closed, Plan
from sebs_core.machine import machine_facts
from sebs_core.models import EngineReport, Function, Invocation, Metrics, Package, RunManifest, Trigger
from sebs_core.result import Result
from sebs_core.rundir import RowSink, RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sebs_core.benchmark import Benchmark
    from sebs_core.session import Session

__all__ = ["Run", "collect", "invoke_once"]

CLIENT_MARGIN_S = 75
"""The client waits this much longer than the function may run: for queue and cold start, and so that the platform speaks."""
COLD_TRIES = 3
WARM_ROUNDS = 6
FIRST_HOLD_MS = 50
NOTED_PAUSE = 0.03
CLOCKS_NS = 30_000_000_000
"""How often the wall clock is read beside the monotonic one, between timed sections."""


@dataclass
class Run:
    """Everything that one run is made of; `execute` does it."""

    session: Session
    benchmark: Benchmark
    size: str | None
    payload: Any
    package: Package
    function: Function
    trigger: Trigger
    load: Closed
    start: Literal["any", "cold", "warm"]
    connections: Literal["reused", "fresh"]
    check: Callable[[Any, Any], str | None] | None
    keep_outputs: bool
    output: Path
    origin_ns: int = 0
    _index: int = 0
    _reports: list[EngineReport] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _clocks: list[tuple[int, int]] = field(default_factory=list)

    def execute(self, *, collect_now: bool) -> Result:
        """Run it; the directory is complete whatever happens."""
        text = payload_text(self.payload)
        created = datetime.datetime.now(datetime.timezone.utc)
        size = f"-{self.size}" if self.size else ""
        name = f"{created:%Y%m%d-%H%M%S}-{self.session.platform}-{self.benchmark.name}{size}"
        directory = RunDirectory.create(self.output, name)
        manifest = self._manifest(directory.path.name, created, text)
        self.session.confidential.refuse(manifest.model_dump_json(), "the manifest of the run")
        directory.write_manifest(manifest)
        result = Result(directory.path, self.session)
        self.origin_ns = time.monotonic_ns()
        self._read_clocks()
        sink = self._sink(directory)
        state, failure = "failed", None
        try:
            with self.session.stage("load", self.benchmark.name):
                {"any": self._measure, "warm": self._measure_warm, "cold": self._measure_cold}[self.start](sink, text)
            self._note_pauses()
            state = "complete"
        except KeyboardInterrupt:
            state, failure = "interrupted", "interrupted by the user"
            self._notes.append(f"the run was interrupted: {sink.abandoned} invocations were in flight and are not rows")
            raise
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._read_clocks()
            result.update_manifest(
                state=state,
                failure=failure,
                function=self.function,
                engine=tuple(self._reports),
                notes=tuple(self._notes),
                clocks=tuple(self._clocks),
            )
            if state != "complete":
                result.finish()
                self.session.stages.tell(RunFinished(str(directory.path)))
        self._after(result, collect_now=collect_now)
        return result

    def _after(self, result: Result, *, collect_now: bool) -> None:
        try:
            if collect_now:
                with self.session.stage("metrics", self.benchmark.name):
                    collect(self.session, result)
        except MetricsError as error:
            self._notes.append(f"no metrics of the platform: {error}")
            result.update_manifest(notes=tuple(self._notes))
            self.session.stages.tell(Notice(str(error), warning=True))
        finally:
            if result.manifest.metrics_missing is None:
                result.finish()
            self.session.stages.tell(RunFinished(str(result.directory)))

    def _sink(self, directory: RunDirectory) -> RowSink:
        check = self.check
        sink = RowSink(
            directory,
            self.session.stages,
            function=self.function,
            trigger=self.trigger,
            workload_version=self.benchmark.config.workload_version,
            check=None if check is None else lambda output: check(self.payload, output),
            keep_outputs=self.keep_outputs,
            interrupts=self.session.interrupts,
            written=lambda: self._written(sink),
        )
        sink.generation = self.function.generation
        return sink

    def _written(self, sink: RowSink) -> None:
        if time.monotonic_ns() - self.origin_ns - self._clocks[-1][0] > CLOCKS_NS:
            self._read_clocks()
        self.session.stages.tell(LoadProgress(sink.measured, self.load.repetitions, sink.failures))

    def _note_pauses(self) -> None:
        paused = sum(report.paused_ns or 0 for report in self._reports)
        whole = sum(report.ended_ns - report.started_ns for report in self._reports)
        if whole and paused / whole > NOTED_PAUSE:
            self._notes.append(
                f"clients paused for {paused / whole:.0%} of the load while rows were written: achieved_per_s is lower for it"
            )

    def _read_clocks(self) -> None:
        self._clocks.append((time.monotonic_ns() - self.origin_ns, time.time_ns()))

    def _send(self, sink: RowSink, load: Closed, payload: bytes) -> None:
        plan = plan_of(
            self.session, self.function, self.trigger, load, payload, origin_ns=self.origin_ns, first_index=self._index,
            connections=self.connections,
        )  # fmt: skip
        self._index += load.repetitions
        sink.overlapping = min(load.concurrency, load.repetitions) > 1
        with self.session.interrupts.held():
            self._reports.append(self.session.stages.call("sebs_run_load", plan=plan, sink=sink))

    def _measure(self, sink: RowSink, text: bytes) -> None:
        self._send(sink, self.load, text)

    def _measure_warm(self, sink: RowSink, text: bytes) -> None:
        """Overlapping, held calls until as many instances have answered as there will be clients; then the load."""
        wanted = min(self.load.concurrency, self.load.repetitions)
        sink.phase = "warmup"
        for attempt in range(WARM_ROUNDS):
            told: list[tuple[str | None, str | None]] = []
            sink.observe = lambda row, seen=told: seen.append((row["instance_id"], row["error"]))
            held = wanted > 1 and isinstance(self.payload, dict)
            hold_ms = min(FIRST_HOLD_MS << attempt, int(500 * self.function.config.timeout_s))  # not into its time limit
            hold = {"__sebs__": {"hold_ms": hold_ms}} if held else {}
            event = json_text({**self.payload, **hold}) if held else text
            self._send(sink, Closed(concurrency=wanted, repetitions=wanted), event)
            answered = {instance for instance, _ in told if instance}
            if len(answered) >= wanted:
                break
            if all(error for _, error in told):
                self._notes.append("every call of a round of the warm-up failed")
                break
        else:
            self._notes.append(f"the warm-up reached {len(answered)} of {wanted} instances at once")
        sink.phase, sink.observe = "measured", None
        self._send(sink, self.load, text)

    def _measure_cold(self, sink: RowSink, text: bytes) -> None:
        """Enforce, send one batch at once, replace what came warm; until all repetitions are there."""
        left, stayed_warm = self.load.repetitions, 0
        sink.only_cold = True
        while left:
            batch = min(self.load.concurrency, left)
            left -= batch
            for _ in range(1 + COLD_TRIES):
                rejected: list[int] = []
                sink.observe = lambda row, seen=rejected: seen.append(1) if row["phase"] == "rejected" else None
                self._enforce_cold(sink)
                self._send(sink, Closed(concurrency=batch, repetitions=batch), text)
                batch = len(rejected)
                if not batch:
                    break
            stayed_warm += batch
        if stayed_warm:
            self._notes.append(
                f"{stayed_warm} invocations met a warm instance in {1 + COLD_TRIES} tries each: they are missing"
            )

    def _enforce_cold(self, sink: RowSink) -> None:
        (self.function,) = self.session.stages.call("sebs_enforce_cold_start", functions=[self.function])
        sink.renew(self.function)
        sink.generation = self.session.generations[self.function.name] = self.function.generation

    def _manifest(self, name: str, created: datetime.datetime, text: bytes) -> RunManifest:
        versions = {plugin.distribution: plugin.version for plugin in self.session.plugins.installed}
        versions |= {package: metadata.version(package) for package in ("pluggy", "pydantic", "pycurl", "arro3-core")}
        return RunManifest(
            run=name,
            state="running",
            created=created,
            platform=self.session.platform,
            settings=self.session.public_settings(),
            benchmark=self.benchmark.name,
            workload_version=self.benchmark.config.workload_version,
            size=self.size,
            input_digest=hashlib.sha256(text).hexdigest(),
            distinct_payloads=1,
            start=self.start,
            plan={
                "load": self.load.model_dump(),
                "connections": self.connections,
                "timeout_s": self.function.config.timeout_s,
            },
            function=self.function,
            package=self.package,
            trigger=self.trigger,
            stages=self.session.stages.provenance(),
            versions={**versions, "python": platform_module.python_version()},
            machine=machine_facts(),
        )


def plan_of(
    session: Session,
    function: Function,
    trigger: Trigger,
    load: Closed,
    payload: bytes,
    *,
    origin_ns: int,
    first_index: int = 0,
    connections: Literal["reused", "fresh"] = "reused",
) -> Plan:
    """A plan whose requests are made; none where the trigger needs ``sebs_invoke``."""
    request = session.stages.ask("sebs_request", function=function, trigger=trigger, payload=payload)
    # model_construct: requests hold bodies that need no second validation.
    return Plan.model_construct(
        load=load,
        connections=connections,
        timeout_s=function.config.timeout_s + CLIENT_MARGIN_S,
        origin_ns=origin_ns,
        first_index=first_index,
        function=function,
        trigger=trigger,
        payloads=(payload,),
        requests=() if request is None else (request,),
    )


def invoke_once(session: Session, function: Function, trigger: Trigger, payload: Any) -> Invocation:
    """One invocation that is kept nowhere."""
    rows: list[dict[str, Any]] = []
    sink = RowSink(
        None, session.stages, function=function, trigger=trigger, workload_version="", check=None, keep_outputs=False,
        written=lambda: None, interrupts=session.interrupts,
    )  # fmt: skip
    sink.generation, sink.observe = function.generation, rows.append
    text = payload_text(payload)
    plan = plan_of(session, function, trigger, Closed(repetitions=1), text, origin_ns=time.monotonic_ns())
    with session.interrupts.watched(), session.interrupts.held():
        session.stages.call("sebs_run_load", plan=plan, sink=sink)
    (row,) = rows
    if row["error"] in ("connect", "tls"):
        raise InvokeError(
            f"{function.name} could not be reached at {trigger.url or trigger.kind}: {row['error_detail']}. "
            "Is the platform still up? Deploy the function again."
        )
    return Invocation.model_validate(row)


def collect(session: Session, result: Result) -> Metrics:
    """Ask for the numbers of all rows of a result, and join them to it."""
    table = result.invocations
    requests = [request for request in table["request_id"].to_pylist() if request]
    begun = result.manifest.created
    ends = [end for end in table["finished_ns"].to_pylist() if end is not None]
    ended = begun + datetime.timedelta(seconds=max(ends, default=0) / 1e9 + 1)
    metrics: Metrics = session.stages.call(
        "sebs_collect_metrics", function=result.manifest.function, requests=requests, window=(begun, ended)
    )
    result.keep_metrics(metrics)
    return metrics
