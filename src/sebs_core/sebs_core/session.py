"""A session: one platform, opened; and the stages in order.

What is fresh and what can be reused is decided here alone. A session is synchronous and belongs to one thread.
"""

from __future__ import annotations

import contextlib
import datetime
import graphlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretBytes, SecretStr

from sebs_core import benchmark as benchmark_folders
from sebs_core.benchmark import Benchmark
from sebs_core.builtin import BuiltInStages
from sebs_core.cache import Cache, default_cache_folder
from sebs_core.errors import ConfigError, FunctionGoneError, MetricsError, PluginError, SebsError
from sebs_core.events import Notice, StageFinished, StageStarted
from sebs_core.interrupts import Interrupts
from sebs_core.load import Closed
from sebs_core.models import Function, FunctionConfig, Invocation, Metrics, Package, Resource, Trigger
from sebs_core.offers import Context
from sebs_core.plugins import Plugins, Stages, installed
from sebs_core.settings import RunConfig, Settings, validated

if TYPE_CHECKING:
    from sebs_core.result import Result

__all__ = ["Removal", "Session", "connect"]

logger = logging.getLogger(__name__)

LONGEST_NAME = 63
"""Of a function: what the strictest providers take."""


def connect(
    platform: str = "local",
    *,
    extensions: Sequence[str] = (),
    benchmarks: Sequence[str | os.PathLike[str]] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    observers: Sequence[object] = (),
    plugins: Plugins | None = None,
    settings: Mapping[str, Any] | None = None,
    **more_settings: Any,
) -> Session:
    """Open a platform.

    Settings of the platform (``sebs platform list --json`` shows them) are given by name, or as a mapping. `benchmarks` are
    folders to look in before the installed ones; runs are written below `output_dir` (``SEBS_OUTPUT_DIR``, else ``runs``).
    `observers` are objects with a marked ``sebs_event`` method. Use the session as a context manager: what it started ends
    with it.
    """
    plugins = plugins or installed()
    info, plugin = plugins.platform(platform)
    made = validated(info.settings, {**(settings or {}), **more_settings}, f"the platform {platform}")
    cache = Cache(Path(cache_dir) if cache_dir else default_cache_folder())
    context = Context(resources_id=cache.resources_id)
    try:
        stages = Stages(plugins)
        stages.add(BuiltInStages(stages), f"sebs-core {metadata.version('sebs-core')} (built in)")
        try:
            implementation = info.create(made, context)
        except SebsError:
            raise
        except Exception as error:
            raise PluginError(f"the platform {platform} ({plugin.label}) could not be made: {error}") from error
        stages.add(implementation, f"{plugin.label} ({platform})")
        for extension, brought_by in plugins.extensions(extensions):
            stages.add(extension.create(), f"{brought_by.label} (extension {extension.name})")
        from sebs_core.notebook import notebook_observer

        for observer in (*observers, *notebook_observer()):
            stages.add(observer, f"observer {type(observer).__name__} {id(observer):x}")
        folders = [*map(Path, benchmarks), *plugins.benchmark_folders()]
        output = Path(output_dir or os.environ.get("SEBS_OUTPUT_DIR") or "runs")
        session = Session(platform, made, plugins, stages, cache, context, folders, output)
        session.open()
    except BaseException:
        context.close()
        raise
    return session


@dataclass(frozen=True)
class Removal:
    """What became of one resource in a clean-up."""

    resource: Resource
    removed: bool
    """False in a dry run, for what was gone already, and when it failed."""
    error: str | None = None


class Session:
    """An open platform. Made by `connect`."""

    def __init__(
        self,
        platform: str,
        settings: Settings,
        plugins: Plugins,
        stages: Stages,
        cache: Cache,
        context: Context,
        benchmark_folders: list[Path],
        output: Path,
    ) -> None:
        self.platform = platform
        self.settings = settings
        self.stages = stages
        self.output = output
        self.is_open = False
        self.interrupts = Interrupts()
        self.generations: dict[str, str | None] = {}
        """Function → marker of its last enforced cold start in this session."""
        self.plugins = plugins
        self._cache = cache
        self._context, self._folders = context, benchmark_folders
        self._capabilities = plugins.platform(platform)[0].capabilities

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session on {self.platform}, {'open' if self.is_open else 'closed'}>"

    def open(self) -> None:
        """Get the platform ready. Called by `connect`."""
        self.is_open = True
        try:
            self.stages.ask("sebs_open")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release everything; more than once is no error."""
        if not self.is_open:
            return
        self.is_open = False
        try:
            self.stages.ask("sebs_close")
        finally:
            self._context.close()

    # --- the four verbs -------------------------------------------------------------------------------------------------

    def package(self, benchmark: str | Path | Benchmark, *, rebuild: bool = False, **config: Any) -> Package:
        """Build the package of a benchmark, or take the one that was built from the same inputs before.

        `config` are fields of `RunConfig` (``language_version="3.12"``, …). Raises `ConfigError`, `PackagingError`.
        """
        found = self.benchmark(benchmark)
        return self._package(found, self._resolved(found, validated(RunConfig, config, "the run")), rebuild=rebuild)

    def deploy(self, package: Package, *, secrets: Mapping[str, str] | None = None, **config: Any) -> Function:
        """Make a function of the package, or bring the one we know up to date; nothing is done when nothing differs.

        `config` are fields of `RunConfig` that concern a function: memory_mb, timeout_s, environment, function_name.
        `secrets` become environment variables too, and are stored nowhere.
        """
        given = validated(RunConfig, config, "the run")
        built: dict[str, Any] = {
            key: getattr(package, key)
            for key in ("language", "language_version", "language_variant", "system_variant", "architecture")
        }
        for key, value in built.items():
            if key in config and config[key] != value:
                raise ConfigError(f"the package was built with {key} {value}, not {config[key]}: package it again")
        resolved = FunctionConfig(
            function_name=given.function_name or self._function_name(package.benchmark, package.workload_version, built),
            memory_mb=given.memory_mb or package.memory_mb,
            timeout_s=given.timeout_s or package.timeout_s,
            environment=given.environment,
            **built,
        )
        self._capabilities.check(resolved, self.platform)
        return self._deploy(package, resolved, dict(secrets or {}))

    def invoke(self, function: Function, payload: Any, *, trigger: str = "http") -> Invocation:
        """Invoke once. A function that fails is an `Invocation` with its error, not an exception."""
        from sebs_core.run import invoke_once

        # A cold start that was enforced since this record was made has another marker.
        current = self.generations.get(function.name, function.generation)
        function = function.model_copy(update={"generation": current})
        return invoke_once(self, function, self.trigger(function, trigger), payload)

    def collect_metrics(self, result: Result) -> Metrics:
        """The platform's own numbers about a result's invocations, joined to it. Raises `MetricsError`."""
        if result.manifest.platform != self.platform:
            raise MetricsError(f"{result!r} was made on {result.manifest.platform}, this session is on {self.platform}")
        from sebs_core.run import collect

        return collect(self, result)

    def run(
        self,
        benchmark: str | Path | Benchmark,
        size: str | None = None,
        *,
        payload: Any = ...,
        load: Closed | None = None,
        start: Literal["any", "cold", "warm"] = "any",
        trigger: str = "http",
        connections: Literal["reused", "fresh"] = "reused",
        metrics: Literal["now", "later", "none"] = "now",
        check_outputs: bool = True,
        keep_outputs: bool = False,
        rebuild: bool = False,
        secrets: Mapping[str, str] | None = None,
        output_dir: str | os.PathLike[str] | None = None,
        **config: Any,
    ) -> Result:
        """Package, deploy, invoke under a load, collect metrics: a whole measurement.

        Give a `size` of the benchmark's inputs or a `payload` of your own. ``start="cold"``: every measured invocation
        meets a new instance, enforced and verified; ``start="warm"``: instances are warmed up first. Ctrl-C leaves a
        valid partial result on disk. Raises what the stages raise; a failing function is a row.
        """
        if start not in ("any", "cold", "warm"):
            raise ConfigError(f"start is any, cold or warm, not {start!r}")
        if start == "cold" and not self._capabilities.cold_start:
            raise ConfigError(f"{self.platform} cannot enforce cold starts: leave out start='cold' (--cold)")
        if metrics not in ("now", "later", "none"):
            raise ConfigError(f"metrics are collected now, later or none, not {metrics!r}")
        if connections not in ("reused", "fresh"):
            raise ConfigError(f"connections are reused or fresh, not {connections!r}")
        found = self.benchmark(benchmark)
        if (size is None) == (payload is ...):
            sizes = f" (sizes: {', '.join(found.sizes)})" if found.sizes else ""
            raise ConfigError(f"give either an input size of {found.name} or a payload{sizes}")
        event = found.payload(size) if size is not None else payload
        resolved = self._resolved(found, validated(RunConfig, config, "the run"))
        self._check_trigger(trigger)
        with self.interrupts.watched():
            package = self._package(found, resolved, rebuild=rebuild)
            function = self._deploy(package, resolved, dict(secrets or {}))
            from sebs_core.run import Run  # only now: the platform gets ready meanwhile

            run = Run(
                session=self,
                benchmark=found,
                size=size,
                payload=event,
                package=package,
                function=function,
                trigger=self.trigger(function, trigger),
                load=load or Closed(),
                start=start,
                connections=connections,
                check=found.checker() if check_outputs else None,
                keep_outputs=keep_outputs,
                output=Path(output_dir) if output_dir else self.output,
            )
            return run.execute(collect_now=metrics == "now")

    # --- around them ----------------------------------------------------------------------------------------------------

    def benchmark(self, benchmark: str | Path | Benchmark) -> Benchmark:
        """A benchmark by its name, its folder, or itself."""
        if isinstance(benchmark, Benchmark):
            return benchmark
        if isinstance(benchmark, Path):
            return Benchmark.load(benchmark)
        return benchmark_folders.find(benchmark, self._folders)

    def trigger(self, function: Function, kind: str) -> Trigger:
        """The function's trigger of this kind, made if need be."""
        kept = self._cache.function(self.platform, function.name)
        same = kept is not None and kept.model_copy(update={"triggers": ()}) == function.model_copy(update={"triggers": ()})
        # Another session may have deployed under this name since: its triggers are not ours.
        current = kept if kept is not None and same else function
        known = function.trigger(kind) or current.trigger(kind)
        if known is not None:
            return known
        self._check_trigger(kind)
        made: Trigger = self.stages.call("sebs_create_trigger", function=function, kind=kind, asynchronous=False)
        if same:
            self._cache.keep_function(current.model_copy(update={"triggers": (*current.triggers, made)}))
        return made

    def logs(self, function: Function, request_id: str) -> str:
        """What the function printed during one invocation. Raises `MetricsError` when the platform does not have it."""
        text: str = self.stages.call("sebs_logs", function=function, request_id=request_id)
        return text

    def resources(self) -> list[Resource]:
        """Everything of ours on the platform."""
        answers = self.stages.ask("sebs_resources")
        return [resource for answer in answers for resource in answer]

    def cleanup(self, *, dry_run: bool = False) -> list[Removal]:
        """Remove everything of ours, what depends on others first. One failure does not stop the rest."""
        resources = {resource.key: resource for resource in self.resources()}
        needed_by: dict[str, set[str]] = {key: set() for key in resources}
        for resource in resources.values():
            for key in resource.depends_on:
                needed_by.setdefault(key, set()).add(resource.key)
        try:
            order = [key for key in graphlib.TopologicalSorter(needed_by).static_order() if key in resources]
        except graphlib.CycleError as error:
            raise PluginError(f"{self.platform}: resources depend on each other in a circle: {error.args[1]}") from None
        return [self._remove(resources[key], dry_run=dry_run) for key in order]

    def _remove(self, resource: Resource, *, dry_run: bool) -> Removal:
        if dry_run:
            return Removal(resource, removed=False)
        try:
            removed = bool(self.stages.call("sebs_remove", resource=resource))
        except Exception as error:  # an SDK may raise anything: the rest must go all the same
            return Removal(resource, removed=False, error=str(error) if isinstance(error, SebsError) else repr(error))
        if resource.kind == "function":
            self._cache.forget_function(self.platform, resource.name)
        return Removal(resource, removed)

    @contextlib.contextmanager
    def stage(self, name: str, subject: str) -> Iterator[StageNote]:
        """Tell observers that a stage begins and ends."""
        note = StageNote()
        self.interrupts.check()
        self.stages.tell(StageStarted(name, subject))
        begun = time.monotonic()
        yield note
        seconds = time.monotonic() - begun
        self.stages.tell(StageFinished(name, subject, seconds, note.reused, note.reason))
        logger.info("%s of %s took %.3f s%s", name, subject, seconds, " (reused)" if note.reused else "")

    def notice(self, text: str) -> None:
        """Warn the person at the keyboard."""
        self.stages.tell(Notice(text, warning=True))
        logger.info("%s", text)

    def public_settings(self) -> dict[str, Any]:
        """The platform's settings without secrets, as the manifest holds them."""
        hidden = {name for name in type(self.settings).model_fields if _is_secret(getattr(self.settings, name))}
        return self.settings.model_dump(mode="json", exclude=hidden)

    def _resolved(self, benchmark: Benchmark, config: RunConfig) -> FunctionConfig:
        benchmark.code(config.language)
        support = self._capabilities.support(config.language, config.language_variant)
        choices: dict[str, Any] = {
            "language": config.language,
            "language_version": config.language_version or (support.versions[0] if support else "any"),
            "language_variant": config.language_variant,
            "system_variant": config.system_variant or (support.system_variants[0] if support else "any"),
            "architecture": config.architecture or (support.architectures[0] if support else "any"),
        }
        resolved = FunctionConfig(
            function_name=config.function_name
            or self._function_name(benchmark.name, benchmark.config.workload_version, choices),
            memory_mb=config.memory_mb or benchmark.config.memory,
            timeout_s=config.timeout_s or benchmark.config.timeout,
            environment=config.environment,
            **choices,
        )
        self._capabilities.check(resolved, self.platform)
        return resolved

    def _function_name(self, benchmark: str, version: str, choices: Mapping[str, str]) -> str:
        parts = ["sebs", self._cache.resources_id, benchmark, version, choices["language"], choices["language_version"]]
        variants = [choices[key] for key in ("language_variant", "system_variant", "architecture")]
        parts += [variant for variant in variants if variant != "default"]
        name = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(parts))
        if len(name) > LONGEST_NAME or not benchmark.isascii():
            name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"
        return name

    def _package(self, benchmark: Benchmark, config: FunctionConfig, *, rebuild: bool) -> Package:
        from sebs_core.packaging import Sources, stage, unpinned

        with self.stage("package", benchmark.name) as note:
            runtime = self.stages.call("sebs_runtime", benchmark=benchmark, config=config)
            sources = Sources(benchmark, config, runtime, self.plugins.language(config.language))
            inputs = sources.digest()
            package = None if rebuild else self._cache.package(self.platform, inputs)
            if package is not None:
                note.reused = True
                # What the benchmark asks for is no input of the package: it may have changed since.
                asked = {"memory_mb": benchmark.config.memory, "timeout_s": benchmark.config.timeout}
                package = package.model_copy(update={"benchmark": benchmark.name, **asked})
            else:
                note.reason = "a rebuild was asked for" if rebuild else "nothing was built from these inputs yet"
                loose = unpinned(sources.requirements)
                if loose:
                    self.notice(f"{benchmark.name} requires {', '.join(loose)} without a version: a later build may differ")
                with self._cache.building() as place:
                    dependencies = stage(sources, place / "code")
                    built = self.stages.call("sebs_package", benchmark=benchmark, config=config, folder=place / "code")
                    built = built.model_copy(
                        update={"inputs": inputs, "dependencies": dependencies, "entry_point": runtime.entry_point}
                    )
                    package = self._cache.keep_package(self.platform, built)
        published: Package = self.stages.call("sebs_publish", package=package)
        return published

    def _deploy(self, package: Package, config: FunctionConfig, secrets: dict[str, str]) -> Function:
        with self.stage("deploy", config.function_name) as note:
            previous, note.reason = self._known_function(config.function_name)
            if previous is not None:
                note.reason = _difference(previous, package, config)
                if not note.reason and (secrets or previous.has_secrets):
                    note.reason = "secrets are given" if secrets else "secrets were given before, and none now"
                if not note.reason:
                    note.reused = True
                    self.generations[previous.name] = previous.generation
                    return previous
            function: Function = self.stages.call(
                "sebs_deploy",
                package=package,
                config=config,
                previous=previous,
                environment=config.environment,
                secrets=secrets,
            )
            function = function.model_copy(update={"has_secrets": bool(secrets)})
            self._cache.keep_function(function)
        self.generations[function.name] = function.generation
        return function

    def _check_trigger(self, kind: str) -> None:
        known = self._capabilities.triggers
        if kind not in known:
            raise ConfigError(f"{self.platform} has no trigger {kind!r}. It has: {', '.join(known)}.")

    def _known_function(self, name: str) -> tuple[Function | None, str]:
        known = self._cache.function(self.platform, name)
        if known is None:
            return None, "it was not deployed yet"
        try:
            return self.stages.call("sebs_refresh", function=known), ""
        except FunctionGoneError as error:
            self._cache.forget_function(self.platform, name)
            return None, str(error)


@dataclass
class StageNote:
    """How a stage went, filled in while it runs."""

    reused: bool = False
    reason: str = ""


def _difference(function: Function, package: Package, config: FunctionConfig) -> str:
    """Why the function must be brought up to date; empty when nothing differs."""
    changed = [name for name in FunctionConfig.model_fields if getattr(function.config, name) != getattr(config, name)]
    if changed:
        return f"its configuration differs: {', '.join(changed)}"
    return "its code differs" if function.package_digest != package.digest else ""


def _is_secret(value: object) -> bool:
    return isinstance(value, (SecretStr, SecretBytes))


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


def now() -> datetime.datetime:
    """This moment, UTC."""
    return datetime.datetime.now(datetime.timezone.utc)
