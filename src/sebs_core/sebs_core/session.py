"""A session: one platform, opened; and the stages in order.

What is fresh and what can be reused is decided here alone. A session is synchronous and belongs to one thread.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, SecretBytes, SecretStr

from sebs_core import benchmark as benchmark_folders
from sebs_core.benchmark import Benchmark
from sebs_core.builtin import BuiltInStages
from sebs_core.cache import Cache, default_cache_folder
from sebs_core.confidential import Confidential
from sebs_core.context import Context
from sebs_core.errors import ConfigError, MetricsError, PluginError, SebsError
from sebs_core.events import Notice, StageFinished, StageStarted
from sebs_core.functions import Functions
from sebs_core.identity import Identity
from sebs_core.interrupts import Interrupts
from sebs_core.inventory import Holding, Inventory, Removal
from sebs_core.load import Closed
from sebs_core.machine import machine_identity
from sebs_core.models import Function, FunctionConfig, Invocation, Metrics, Package, Resource, Trigger
from sebs_core.packages import Packages
from sebs_core.plugins import Plugins, Stages, installed
from sebs_core.settings import RunConfig, Settings, validated
from sebs_core.state import Ledger, State, default_state_folder

if TYPE_CHECKING:
    from sebs_core.offers import PlatformInfo
    from sebs_core.result import Result

__all__ = ["Session", "connect"]

logger = logging.getLogger(__name__)


def connect(
    platform: str = "local",
    *,
    extensions: Sequence[str] = (),
    benchmarks: Sequence[str | os.PathLike[str]] = (),
    resource_prefix: str | None = None,
    resources_id: str | None = None,
    ignore_cached: Collection[str] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    observers: Sequence[object] = (),
    plugins: Plugins | None = None,
    settings: Mapping[str, Any] | None = None,
    **more_settings: Any,
) -> Session:
    """Open a platform.

    Settings of the platform (``sebs platform list --json`` shows them) are given by name, or as a mapping. `benchmarks` are
    folders to look in before the installed ones; runs are written below `output_dir` (``SEBS_OUTPUT_DIR``, else ``runs``).

    Everything that is made on the platform has the resources id in its name: `resources_id`, or one that begins with
    `resource_prefix` (found on the platform, else made), or without both the one of before. `ignore_cached` names what is
    deployed or stored anew although it is known: ``functions``, ``storage``. What can be rebuilt is kept in `cache_dir`
    (``SEBS_CACHE_DIR``), what exists in the world is written down in `state_dir` (``SEBS_STATE_DIR``).

    `observers` are objects with a marked ``sebs_event`` method. Use the session as a context manager: what it started ends
    with it.
    """
    plugins = plugins or installed()
    info, plugin = plugins.platform(platform)
    made = validated(info.settings, {**(settings or {}), **more_settings}, f"the platform {platform}")
    unknown = set(ignore_cached) - {"functions", "storage"}
    if unknown:
        raise ConfigError(f"functions and storage can be ignored in the cache, not {', '.join(sorted(unknown))}")
    stages = Stages(plugins)
    session = Session(
        info=info,
        settings=made,
        plugins=plugins,
        stages=stages,
        identity=Identity(resources_id, resource_prefix),
        ignore_cached=ignore_cached,
        cache_folder=Path(cache_dir) if cache_dir else default_cache_folder(),
        state_folder=Path(state_dir) if state_dir else default_state_folder(),
        benchmark_folders=[*map(Path, benchmarks), *plugins.benchmark_folders()],
        output=Path(output_dir or os.environ.get("SEBS_OUTPUT_DIR") or "runs"),
    )
    try:
        stages.add(BuiltInStages(stages), f"sebs-core {metadata.version('sebs-core')} (built in)")
        try:
            implementation = info.create(made, session.context)
        except SebsError:
            raise
        except Exception as error:
            raise PluginError(f"the platform {platform} ({plugin.label}) could not be made: {error}") from error
        stages.add(implementation, f"{plugin.label} ({platform})")
        for extension, brought_by in plugins.extensions(extensions):
            stages.add(extension.create(), f"{brought_by.label} (extension {extension.name})")
        from sebs_core.notebook import notebook_observer

        for number, observer in enumerate((*observers, *notebook_observer()), 1):
            stages.add(observer, f"observer {number}: {type(observer).__module__}.{type(observer).__qualname__}")
        session.open()
    except BaseException:
        session.release()
        raise
    return session


class Session:
    """An open platform. Made by `connect`."""

    def __init__(
        self,
        *,
        info: PlatformInfo,
        settings: Settings,
        plugins: Plugins,
        stages: Stages,
        identity: Identity,
        ignore_cached: Collection[str],
        cache_folder: Path,
        state_folder: Path,
        benchmark_folders: list[Path],
        output: Path,
    ) -> None:
        self.platform = info.name
        self.settings = settings
        self.plugins = plugins
        self.stages = stages
        self.output = output
        self.is_open = False
        self.interrupts = Interrupts()
        self.generations: dict[str, str | None] = {}
        """Function → marker of its last enforced cold start in this session."""
        self.confidential = Confidential()
        for name, value in settings:
            for secret in _secrets_in(value):
                self.confidential.add(f"the setting {name}", secret)
        self.cache = Cache(cache_folder, ignore=ignore_cached, confidential=self.confidential, tell=self.tell)
        self.state = State(state_folder, self.confidential)
        self.context = Context(lambda: self._identified(identity), lambda: self.ledger)
        self.packages = Packages(self)
        self.functions = Functions(self)
        self.inventory = Inventory(self)
        self._folders = benchmark_folders
        self._capabilities = info.capabilities

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
            self.stages.close()
        finally:
            self.release()

    def release(self) -> None:
        """Let go of what the session itself holds. Called by `close`, and by `connect` when it fails."""
        self.context.close()
        self.cache.close()

    @property
    def lasting(self) -> bool:
        """Whether what the platform makes outlives the session (`Context.lasting`)."""
        return self.context.lasting

    @functools.cached_property
    def account(self) -> str:
        """In which account on the platform this session works; this machine, if nothing outlives the session."""
        if not self.lasting:
            return machine_identity()
        account: str = self.stages.call("sebs_account")
        return account

    @property
    def resources_id(self) -> str:
        """Stands in the name of everything that this session makes on the platform."""
        return self.context.resources_id

    def _identified(self, identity: Identity) -> str:
        if not self.is_open:
            raise PluginError(f"{self.platform} asks for the resources id in its create: it is known when the session is open")
        return identity.resources_id(self)

    @property
    def ledger(self) -> Ledger:
        """What is written down of this account on this platform."""
        return self.state.ledger(self.platform, self.account)

    # --- the four verbs -------------------------------------------------------------------------------------------------

    def package(self, benchmark: str | Path | Benchmark, *, rebuild: bool = False, **config: Any) -> Package:
        """Build the package of a benchmark, or take the one that was built from the same inputs before.

        `config` are fields of `RunConfig` (``language_version="3.12"``, …). Raises `ConfigError`, `PackagingError`.
        """
        found = self.benchmark(benchmark)
        resolved = self._resolved(found, validated(RunConfig, config, "the run"))
        return self.packages.get(found, resolved, rebuild=rebuild)

    def deploy(
        self, package: Package, *, secrets: Mapping[str, str] | None = None, rebuild: bool = False, **config: Any
    ) -> Function:
        """Make a function of the package, or bring the one we know up to date; nothing is done when nothing differs.

        `config` are fields of `RunConfig` that concern a function: memory_mb, timeout_s, environment, function_name.
        `secrets` become environment variables too, and are stored nowhere. `rebuild` deploys although nothing differs.
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
            memory_mb=given.memory_mb or package.memory_mb,
            timeout_s=given.timeout_s or package.timeout_s,
            environment=given.environment,
            **built,
        )
        self._capabilities.check(resolved, self.platform)
        named = self._named(resolved, package, given.function_name)
        return self.functions.deploy(package, named, secrets or {}, rebuild=rebuild)

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
        replace_inputs: bool = False,
        secrets: Mapping[str, str] | None = None,
        output_dir: str | os.PathLike[str] | None = None,
        **config: Any,
    ) -> Result:
        """Package, deploy, invoke under a load, collect metrics: a whole measurement.

        Give a `size` of the benchmark's inputs or a `payload` of your own. ``start="cold"``: every measured invocation
        meets a new instance, enforced and verified; ``start="warm"``: instances are warmed up first. `rebuild` builds and
        deploys anew; `replace_inputs` forgets which inputs of the benchmark are stored on the platform, so that they are made
        and stored anew. Ctrl-C leaves a valid partial result on disk. Raises what the stages raise; a failing
        function is a row.
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
        given = validated(RunConfig, config, "the run")
        resolved = self._resolved(found, given)
        self._check_trigger(trigger)
        with self.interrupts.watched():
            if replace_inputs:
                for kind in ("storage", "nosql"):
                    self.cache.forget_data(kind, self.platform, self.account, found.name)
            package = self.packages.get(found, resolved, rebuild=rebuild)
            named = self._named(resolved, package, given.function_name)
            with self.functions.deployed(package, named, secrets or {}, rebuild=rebuild) as function:
                from sebs_core.run import Run  # only now: the platform gets ready meanwhile

                package = self.packages.as_published(package)

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
        self._check_trigger(kind)
        return self.functions.trigger(function, kind)

    def logs(self, function: Function, request_id: str) -> str:
        """What the function printed during one invocation. Raises `MetricsError` when the platform does not have it."""
        text: str = self.stages.call("sebs_logs", function=function, request_id=request_id)
        return text

    def resources(self) -> list[Holding]:
        """Everything of ours: what the platform lists and what was written down when it was made. Read-only."""
        return self.inventory.holdings()

    def remove(self, *keys: str, dry_run: bool = False) -> list[Removal]:
        """Remove some of it (``"function/my-name"``). Raises `ConfigError` when something else still uses one of them."""
        return self.inventory.remove(keys, dry_run=dry_run)

    def cleanup(self, *, kinds: Collection[str] = (), dry_run: bool = False) -> list[Removal]:
        """Remove everything of ours, or everything of these kinds, what depends on others first.

        One failure does not stop the rest. What is gone already is no error. A dry run only tells what would be removed.
        """
        return self.inventory.cleanup(kinds, dry_run=dry_run)

    def listed(self) -> list[Resource]:
        """What the platform lists, also of other resources ids."""
        answers = self.stages.ask("sebs_resources")
        return [resource for answer in answers for resource in answer]

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

    def tell(self, text: str) -> None:
        """Tell the person at the keyboard."""
        self.stages.tell(Notice(text))
        logger.info("%s", text)

    def public_settings(self) -> dict[str, Any]:
        """The platform's settings without secrets, as the manifest holds them."""
        return self.settings.model_dump(mode="json", exclude=set(_secret_names(self.settings)))

    def function_settings(self) -> dict[str, Any]:
        """Those of them in which packages and functions may differ, so that equal ones compare equal in every process."""
        public, of_client = self.public_settings(), type(self.settings).of_client
        sets = {name for name, value in self.settings if isinstance(value, (set, frozenset))}
        told = {
            name: sorted(value, key=str) if name in sets else value for name, value in public.items() if name not in of_client
        }
        return {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value for name, value in told.items()
        }

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
            memory_mb=config.memory_mb or benchmark.config.memory,
            timeout_s=config.timeout_s or benchmark.config.timeout,
            environment=config.environment,
            **choices,
        )
        self._capabilities.check(resolved, self.platform)
        return resolved

    def _named(self, config: FunctionConfig, package: Package, name: str | None) -> FunctionConfig:
        return config.model_copy(update={"function_name": name or self.functions.default_name(package)})

    def _check_trigger(self, kind: str) -> None:
        known = self._capabilities.triggers
        if kind not in known:
            raise ConfigError(f"{self.platform} has no trigger {kind!r}. It has: {', '.join(known)}.")


@dataclass
class StageNote:
    """How a stage went, filled in while it runs."""

    reused: bool = False
    reason: str = ""


def _secret_names(settings: Settings) -> list[str]:
    return [name for name, value in settings if isinstance(value, (SecretStr, SecretBytes))]


def _secrets_in(value: object) -> Iterator[str]:
    """Secrets in a setting, also in nested ones."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode("utf-8", "surrogateescape")
    elif isinstance(value, BaseModel):
        yield from _secrets_in(dict(value))
    elif isinstance(value, Mapping):
        yield from _secrets_in(list(value.values()))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from _secrets_in(part)
