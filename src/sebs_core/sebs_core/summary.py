"""What a run says in figures: the object that ``--json`` prints and that ``result.summary()`` returns."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from sebs_core.models import Record, RunManifest
from sebs_core.stats import Quantiles, quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arro3.core import Table

__all__ = ["Figures", "Lag", "Summary", "summarize"]


class Figures(BaseModel, frozen=True):
    """Quantiles of one quantity over measured rows: pooled, and cold and warm apart. None: no such rows."""

    all: Quantiles | None
    cold: Quantiles | None
    """None also where cold starts of several kinds would be pooled: see `Summary.cold_kinds`."""
    warm: Quantiles | None


class Lag(BaseModel, frozen=True):
    """How late sends were, in microseconds."""

    p50: float
    p99: float
    max: float


class ColdKind(BaseModel, frozen=True):
    """Cold starts of one kind."""

    count: int
    """Failures that told no kind included, where there is one kind only."""
    client_us: Quantiles | None
    init_us: Quantiles | None


class Summary(Record):
    """Figures of one run. Failures count as +∞ (docs/measurement.md); what is unknown is None."""

    run: str
    """The run's directory."""
    state: str
    platform: str
    benchmark: str
    size: str | None
    language: str
    language_version: str
    count: int
    """Measured rows."""
    failures: int
    """Measured rows with an error."""
    failure_share: float | None
    cold_count: int
    """Measured rows known to be cold."""
    rejected: int
    """Rows of a cold run that came warm; not measured."""
    warmups: int
    outputs_ok: bool | None
    """Whether every checked output was right; None when none was checked."""
    outputs_wrong: int
    client_us: Figures | None
    response_us: Figures | None
    handler_us: Figures | None
    import_us: Figures | None
    init_us: Figures | None
    provider_us: Figures | None
    """``provider.duration_us``; which time that is says ``provider_time_kind``."""
    provider_init_us: Figures | None
    queue_us: Figures | None
    provider_time_kind: str | None
    memory_mb: float | None
    """Largest ``provider.memory_mb``."""
    achieved_per_s: float | None
    """Measured rows per second from the first send to the last answer; None for cold runs and single rows."""
    most_in_flight: int
    """Largest number of measured invocations under way at once."""
    instances: int
    """Distinct instances that answered measured rows."""
    send_lag_us: Lag | None
    client_saturated: bool | None
    host_contended: bool | None
    cost_usd: float | None
    errors: dict[str, int]
    cold_kinds: dict[str, ColdKind]
    notes: tuple[str, ...] = Field(default=())

    def __str__(self) -> str:
        return "\n".join(text_lines(self))


def summarize(table: Table, manifest: RunManifest, run: str) -> Summary:
    """The summary of a finished table."""
    rows = _columns(table)
    phases = Counter(rows["phase"])
    measured = [place for place, phase in enumerate(rows["phase"]) if phase == "measured"]
    taken = {name: [values[place] for place in measured] for name, values in rows.items()}
    groups = _Groups(taken, manifest.start)
    failures = sum(error is not None for error in taken["error"])
    checked = [ok for ok in taken["output_ok"] if ok is not None]
    memory = [value for value in taken["provider.memory_mb"] if value is not None]
    costs = [value for value in taken["provider.cost_usd"] if value is not None]
    notes = list(manifest.notes)
    if manifest.metrics_missing:
        notes.append(f"the platform did not tell its own numbers of {manifest.metrics_missing} invocations")
    return Summary(
        run=run,
        state=manifest.state,
        platform=manifest.platform,
        benchmark=manifest.benchmark,
        size=manifest.size,
        language=manifest.package.language,
        language_version=manifest.package.language_version,
        count=len(measured),
        failures=failures,
        failure_share=failures / len(measured) if measured else None,
        cold_count=sum(cold is True for cold in taken["cold"]),
        rejected=phases["rejected"],
        warmups=phases["warmup"],
        outputs_ok=all(checked) if checked else None,
        outputs_wrong=len(checked) - sum(checked),
        client_us=groups.figures("client_us"),
        response_us=groups.figures("response_us"),
        handler_us=groups.figures("handler_us"),
        import_us=groups.figures("import_us", of_starts=True),
        init_us=groups.figures("init_us", of_starts=True),
        provider_us=groups.figures("provider.duration_us"),
        provider_init_us=groups.figures("provider.init_us", of_starts=True),
        queue_us=groups.figures("provider.queue_us"),
        provider_time_kind=manifest.function.provider_time_kind,
        memory_mb=max(memory, default=None),
        achieved_per_s=None if manifest.start == "cold" else _rate(taken),
        most_in_flight=_most_in_flight(taken),
        instances=len({instance for instance in taken["instance_id"] if instance}),
        send_lag_us=_lag(taken),
        client_saturated=manifest.client_saturated,
        host_contended=manifest.host_contended,
        cost_usd=math.fsum(costs) if costs and len(costs) == len(measured) else None,
        errors=dict(Counter(error for error in taken["error"] if error)),
        cold_kinds=groups.cold_kinds(),
        notes=tuple(notes + groups.notes()),
    )


def _columns(table: Table) -> dict[str, list[Any]]:
    names = [
        "phase",
        "error",
        "cold",
        "cold_kind",
        "output_ok",
        "instance_id",
        "scheduled_ns",
        "sent_ns",
        "finished_ns",
        "client_us",
        "response_us",
        "handler_us",
        "import_us",
        "init_us",
    ]
    columns: dict[str, list[Any]] = {name: list(table[name].to_pylist()) for name in names}
    provider = table["provider"].to_pylist()
    for name in ("duration_us", "init_us", "queue_us", "memory_mb", "cost_usd"):
        columns[f"provider.{name}"] = [None if value is None else value[name] for value in provider]
    return columns


class _Groups:
    """Measured rows as all, cold and warm."""

    def __init__(self, rows: dict[str, list[Any]], start: str) -> None:
        self.rows = rows
        # A failure that tells nothing of its instance belongs to what was asked for.
        unknown = {"cold": True, "warm": False}.get(start)
        self.failed = [error is not None for error in rows["error"]]
        self.cold = [
            unknown if cold is None and failed else cold for cold, failed in zip(rows["cold"], self.failed, strict=True)
        ]
        self.kinds = {kind for kind in rows["cold_kind"] if kind}

    def figures(self, name: str, *, of_starts: bool = False) -> Figures | None:
        """Figures of one column; `of_starts`: only cold rows carry it."""

        def values(wanted: Callable[[bool | None], bool]) -> Iterable[float]:
            for value, cold, failed in zip(self.rows[name], self.cold, self.failed, strict=True):
                if wanted(cold) and (not of_starts or cold):
                    if failed:
                        yield math.inf
                    elif value is not None:
                        yield value

        if all(value is None for value in self.rows[name]):
            return None
        pooled = len(self.kinds) > 1
        return Figures(
            all=Quantiles.of(values(lambda cold: True)),
            cold=None if pooled else Quantiles.of(values(lambda cold: cold is True)),
            warm=Quantiles.of(values(lambda cold: cold is False)),
        )

    def cold_kinds(self) -> dict[str, ColdKind]:
        """By kind; a failure that told none belongs to the only one there is, and where there are more nothing is known."""
        kinds = {}
        untold = sum(cold is True and failed and not kind for cold, failed, kind in self._told())
        for kind in sorted(self.kinds):
            places = [place for place, own in enumerate(self.rows["cold_kind"]) if own == kind]
            failures = untold + sum(self.failed[place] for place in places)
            known = not untold or len(self.kinds) == 1
            kinds[kind] = ColdKind(
                count=len(places) + (untold if len(self.kinds) == 1 else 0),
                client_us=self._of_kind("client_us", places, failures) if known else None,
                init_us=self._of_kind("init_us", places, failures) if known else None,
            )
        return kinds

    def _told(self) -> Iterable[tuple[bool | None, bool, str | None]]:
        return zip(self.cold, self.failed, self.rows["cold_kind"], strict=True)

    def _of_kind(self, name: str, places: list[int], failures: int) -> Quantiles | None:
        well = [self.rows[name][place] for place in places if not self.failed[place]]
        return Quantiles.of([value for value in well if value is not None] + [math.inf] * failures)

    def notes(self) -> list[str]:
        said = []
        if len(self.kinds) > 1:
            said.append(f"cold starts of different kinds are not pooled ({', '.join(sorted(self.kinds))}): see cold_kinds")
        failures = sum(self.failed)
        if failures:
            said.append(
                f"{failures} of {len(self.failed)} invocations failed and count as infinitely long: a figure that falls among "
                "them is unknown"
            )
        unknown = sum(cold is None and failed for cold, failed in zip(self.cold, self.failed, strict=True))
        if unknown:
            said.append(f"of {unknown} failures it is not known whether they met a cold instance: they count in «all» only")
        return said


def _rate(rows: dict[str, list[Any]]) -> float | None:
    ends = [finished for finished in rows["finished_ns"] if finished is not None]
    if len(ends) < 2:
        return None
    return float(len(ends) / ((max(ends) - min(rows["sent_ns"])) / 1e9))


def _lag(rows: dict[str, list[Any]]) -> Lag | None:
    lags = sorted((sent - planned) / 1000 for sent, planned in zip(rows["sent_ns"], rows["scheduled_ns"], strict=True))
    if not lags:
        return None
    return Lag(p50=quantile(lags, 0.5) or 0.0, p99=quantile(lags, 0.99) or 0.0, max=lags[-1])


def _most_in_flight(rows: dict[str, list[Any]]) -> int:
    changes = []
    for sent, finished in zip(rows["sent_ns"], rows["finished_ns"], strict=True):
        if finished is not None:
            changes += [(sent, 1), (finished, -1)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


LABELS = {
    "client_us": "client time",
    "provider_us": "provider time",
    "handler_us": "handler",
    "queue_us": "queued",
    "provider_init_us": "instance start",
    "init_us": "  until callable",
    "import_us": "  code import",
}


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def text_lines(summary: Summary) -> Iterable[str]:
    """The summary as a person reads it: one table, times in milliseconds."""
    size = f" {summary.size}" if summary.size else ""
    yield f"{summary.benchmark}{size} on {summary.platform}, {summary.language} {summary.language_version}"
    parts = [_counted(summary.count, "invocation"), f"{summary.cold_count} cold", f"{summary.failures} failed"]
    parts += [_counted(summary.instances, "instance"), f"{summary.most_in_flight} at once"]
    if summary.outputs_ok is not None:
        parts.append("outputs right" if summary.outputs_ok else f"{summary.outputs_wrong} outputs WRONG")
    if summary.warmups:
        parts.append(f"{_counted(summary.warmups, 'warm-up')} left out")
    if summary.rejected:
        parts.append(f"{summary.rejected} rejected")
    yield ", ".join(parts)
    yield ""
    yield f"{'milliseconds':<18}{'':<6}{'p50':>10}{'p95':>10}{'p99':>10}{'mean':>10}{'min':>10}{'max':>10}"
    for name, label in LABELS.items():
        figures = getattr(summary, name)
        for group in ("cold", "warm"):
            quantiles = getattr(figures, group) if figures else None
            if quantiles is not None:
                shown = "".join(
                    f"{'-' if value is None else f'{value / 1000:.3f}':>10}"
                    for value in (getattr(quantiles, key) for key in ("p50", "p95", "p99", "mean", "min", "max"))
                )
                yield f"{label:<18}{group:<6}{shown}"
    yield ""
    if summary.achieved_per_s is not None:
        yield f"throughput  {summary.achieved_per_s:.1f} invocations/s"
    if summary.memory_mb is not None:
        yield f"memory      {summary.memory_mb:g} MiB at most"
    for kind, count in summary.errors.items():
        yield f"error       {kind}: {count}"
    for note in summary.notes:
        yield f"note        {note}"
    yield f"run         {summary.run}"
