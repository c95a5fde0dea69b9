"""Core's own answers: the languages it builds, and the stages that most platforms share.

Registered like any plugin, and asked last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sebs_core.exchange import Fields, Request, Response, fields_from_envelope
from sebs_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sebs_core.benchmark import Benchmark
    from sebs_core.exchange import Sink
    from sebs_core.load import Plan
    from sebs_core.models import EngineReport, FunctionConfig, Package, Trigger
    from sebs_core.offers import Language
    from sebs_core.plugins import Stages

__all__ = ["BuiltInStages", "sebs_languages"]

ERROR_OF_STATUS = {413: "too_large", 429: "throttled", 504: "timeout"}


@hookimpl
def sebs_languages() -> Iterable[Language]:
    """Python."""
    from sebs_core.packaging.python import PYTHON

    return [PYTHON]


class BuiltInStages:
    """The stages that core answers when the platform does not."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._engine: object | None = None

    @hookimpl(trylast=True)
    def sebs_package(self, benchmark: Benchmark, config: FunctionConfig, folder: Path) -> Package:
        """A deterministic zip."""
        from sebs_core.packaging import zip_package

        return zip_package(benchmark, config, folder)

    @hookimpl(trylast=True)
    def sebs_publish(self, package: Package) -> Package:
        """Nothing to publish."""
        return package

    @hookimpl(trylast=True)
    def sebs_request(self, trigger: Trigger, payload: bytes) -> Request | None:
        """A POST of the payload to the trigger's url."""
        if trigger.url is None:
            return None
        return Request("POST", trigger.url, (("content-type", "application/json"),), payload)

    @hookimpl(trylast=True)
    def sebs_response(self, response: Response) -> Fields:
        """SeBS' envelope; where there is none, what the status says."""
        fields = fields_from_envelope(response.body)
        if response.status < 400 or fields.error not in (None, "bad_response"):
            return fields
        kind = ERROR_OF_STATUS.get(response.status, "bad_response" if response.status < 500 else "function_error")
        shown = response.body[:200].decode("utf-8", "replace")
        return fields.but(error=kind, error_detail=f"HTTP status {response.status}: {shown}")

    @hookimpl(trylast=True)
    def sebs_run_load(self, plan: Plan, sink: Sink) -> EngineReport:
        """HTTP requests over libcurl; what no request can express, over threads."""
        if not plan.requests:
            from sebs_core.engine.threads import run_threads

            return run_threads(plan, sink, self._stages)
        from sebs_core.engine.closed import ClosedLoop

        if not isinstance(self._engine, ClosedLoop):
            self._engine = ClosedLoop()
        return self._engine.run(plan, sink)

    @hookimpl
    def sebs_close(self) -> None:
        """Close the connections."""
        from sebs_core.engine.closed import ClosedLoop

        if isinstance(self._engine, ClosedLoop):
            self._engine.close()
            self._engine = None
