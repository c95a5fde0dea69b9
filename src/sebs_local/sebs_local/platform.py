"""The stages of the local platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sebs_core.errors import ConfigError, DeployError, FunctionGoneError, MetricsError
from sebs_core.exchange import Fields, fields_from_envelope
from sebs_core.hookspecs import hookimpl
from sebs_core.models import Function, FunctionConfig, Metrics, Package, Resource, Runtime, Trigger
from sebs_local.connection import Gateway
from sebs_local.interpreters import interpreter
from sebs_local.models import LocalFunction, LocalSettings

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable, Sequence

    from sebs_core.benchmark import Benchmark
    from sebs_core.context import Context
    from sebs_core.exchange import Response

__all__ = ["LocalPlatform"]

ENTRY_POINT = "handler.py"
SHIM = Path(__file__).parent / "handlers" / "python" / "handler.py"
PATHS = {"http": "functions", "library": "invocations"}


class LocalPlatform:
    """One session's gateway and what it serves."""

    def __init__(self, settings: LocalSettings, context: Context) -> None:
        self._settings, self._context = settings, context
        context.lasting = False  # the gateway and all that it serves end with the session
        self._opened: Gateway | None = None
        self._interpreters: dict[str, Path] = {}

    @property
    def gateway(self) -> Gateway:
        """The gateway of this session. Raises `DeployError` when the session is not open."""
        if self._opened is None:
            raise DeployError("this session of the local platform is not open. Open a new one.")
        return self._opened

    @hookimpl
    def sebs_open(self) -> None:
        """Start the gateway without waiting for it: it gets ready while the package is built."""
        self._opened = Gateway(self._settings)

    @hookimpl
    def sebs_close(self) -> None:
        """End the gateway and all that it started."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @hookimpl
    def sebs_runtime(self, config: FunctionConfig) -> Runtime:
        """Our shim, for the interpreter of the asked version on this machine."""
        self._interpreter(config.language_version)
        return Runtime(files={ENTRY_POINT: SHIM}, entry_point=ENTRY_POINT)

    @hookimpl
    def sebs_package(self, benchmark: Benchmark, config: FunctionConfig, folder: Path) -> Package:
        """The folder as it is: instances run in it."""
        from sebs_core.packaging import package_of

        return package_of(benchmark, config, folder, kind="folder", path=folder, entry_point=ENTRY_POINT)

    @hookimpl
    def sebs_refresh(self, function: Function) -> Function:
        """The function, if this session's gateway serves it."""
        known = self._own(function)
        if known.gateway != self.gateway.name:
            raise FunctionGoneError(f"{function.name} ended with the session that deployed it")
        there = self.gateway.ask("functions", error=FunctionGoneError)["functions"].get(function.name)
        if there is None:
            raise FunctionGoneError(f"{function.name} is not served any more: it was removed")
        if there["folder"] != known.folder:
            raise FunctionGoneError(f"{function.name} is served from another package by now, {there['folder']}")
        if not Path(known.folder).is_dir():
            raise FunctionGoneError(f"the package of {function.name}, {known.folder}, is not there any more")
        return known.model_copy(update={"generation": there["generation"]})

    @hookimpl
    def sebs_deploy(
        self, package: Package, config: FunctionConfig, environment: dict[str, str], secrets: dict[str, str]
    ) -> Function:
        """Put the function into the gateway; instances start when they are needed."""
        python = str(self._interpreter(config.language_version))
        if not package.path.is_dir():
            raise DeployError(f"the package of {package.benchmark} is not at {package.path} any more: package it again")
        answer = self.gateway.ask(
            "put",
            name=config.function_name,
            folder=str(package.path),
            entry_point=package.entry_point,
            python=python,
            memory_mb=config.memory_mb,
            timeout_s=config.timeout_s,
            environment={**config.environment, **environment, **secrets},
        )
        return LocalFunction(
            name=config.function_name,
            platform="local",
            benchmark=package.benchmark,
            package_digest=package.digest,
            config=config,
            provider_time_kind="sandbox",
            memory_kind="instance_peak" if _has_proc() else None,
            limits_enforced={"timeout": True, "memory": False, "cpu": False},
            folder=str(package.path),
            python=python,
            gateway=self.gateway.name,
            generation=answer["generation"],
        )

    @hookimpl
    def sebs_create_trigger(self, function: Function, kind: str, asynchronous: bool) -> Trigger:
        """``http`` answers with the status of the function, ``library`` with that of the platform."""
        if kind not in PATHS or asynchronous:
            what = f"asynchronous {kind}" if asynchronous else kind
            raise ConfigError(f"the local platform has no {what} trigger. It has: {', '.join(PATHS)}, synchronous.")
        return Trigger(kind=kind, url=f"{self.gateway.url}/{PATHS[kind]}/{function.name}")

    @hookimpl
    def sebs_response(self, response: Response) -> Fields:
        """The shim's envelope; what it cannot know, and what happened where there is none, from the gateway's headers."""
        headers = response.headers
        fields = fields_from_envelope(response.body)
        if fields.instance_id is None:
            error = headers.get("x-sebs-error", fields.error)
            detail = unquote(headers.get("x-sebs-error-detail", "")) or fields.error_detail
            fields = Fields(request_id=headers.get("x-sebs-request-id"), error=error, error_detail=detail)
        return fields.but(cold_kind=headers.get("x-sebs-cold-kind"))

    @hookimpl
    def sebs_enforce_cold_start(self, functions: Sequence[Function]) -> list[Function]:
        """No instance of before serves a later call."""
        names = [function.name for function in functions]
        generations = self.gateway.ask("enforce", names=names)["generations"]
        return [self._own(known).model_copy(update={"generation": generations[known.name]}) for known in functions]

    @hookimpl
    def sebs_collect_metrics(
        self, function: Function, requests: Sequence[str], window: tuple[datetime.datetime, datetime.datetime]
    ) -> Metrics:
        """What the gateway measured of these calls; the window is not needed to find them."""
        if self._opened is None or self._own(function).gateway != self.gateway.name:
            raise MetricsError(
                f"the numbers of {function.name} ended with the session that deployed it: collect them before it closes"
            )
        path = self.gateway.ask("metrics", name=function.name, error=MetricsError)["path"]
        values = {} if path is None else _numbers(Path(path), set(requests))
        columns = sorted({column for row in values.values() for column, value in row.items() if value is not None})
        return Metrics(
            values=values,
            sources=dict.fromkeys(columns, "measured"),
            missing=tuple(request for request in requests if request not in values),
        )

    @hookimpl
    def sebs_logs(self, function: Function, request_id: str) -> str:
        """The end of what the call printed, output and error in one."""
        text = self.gateway.ask("logs", request_id=request_id, error=MetricsError)["text"]
        if text is None:
            raise MetricsError(
                f"the gateway does not have what {function.name} printed during request {request_id}: it keeps the latest "
                "thousand requests of its session. Ask sooner."
            )
        return str(text)

    @hookimpl
    def sebs_resources(self) -> Iterable[Resource]:
        """The functions that this session's gateway serves: nothing else outlives a call, and they do not outlive it."""
        names = self.gateway.ask("functions")["functions"]
        return [Resource(kind="function", name=name, platform="local") for name in names]

    @hookimpl
    def sebs_remove(self, resource: Resource) -> bool:
        """Serve the function no more."""
        if resource.kind != "function":
            return False
        return bool(self.gateway.ask("remove", name=resource.name)["removed"])

    def _interpreter(self, version: str) -> Path:
        if version not in self._interpreters:
            self._interpreters[version] = interpreter(version)
        return self._interpreters[version]

    def _own(self, function: Function) -> LocalFunction:
        if not isinstance(function, LocalFunction):
            raise FunctionGoneError(f"{function.name} is not a function of the local platform, but of {function.platform}")
        return function


def _has_proc() -> bool:
    return Path("/proc/self/status").exists()


def _numbers(path: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
    values = {}
    try:
        with path.open(encoding="ascii") as file:
            for line in file:
                row = json.loads(line)
                if row["id"] in wanted:
                    values[row.pop("id")] = row
    except (OSError, ValueError) as error:
        raise MetricsError(f"the gateway's numbers in {path} cannot be read: {error}") from error
    return values
