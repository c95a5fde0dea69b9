"""Finding plugins, and calling them: tolerant when loading, strict in use.

A plugin that cannot be imported, or that breaks the contract of the hooks, is one warning and one line of ``sebs plugin
list``; only asking for *its* platform raises. Nothing here imports a provider's SDK.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from sebs_core import builtin
from sebs_core.errors import ConfigError, PluginError, StageMissingError, UnknownPlatformError
from sebs_core.hookspecs import DiscoveryHooks, StageHooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sebs_core.offers import Extension, Language, PlatformInfo

__all__ = ["InstalledPlugin", "Plugins", "Stages", "installed"]

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "sebs"
STAGES = tuple(name for name in vars(StageHooks) if name.startswith("sebs_"))
DISCOVERY = tuple(name for name in vars(DiscoveryHooks) if name.startswith("sebs_"))


class _Manager(pluggy.PluginManager):
    """pluggy's manager, made strict: what looks like a hook and would be ignored is an error instead."""

    def __init__(self) -> None:
        super().__init__("sebs")
        self.add_hookspecs(DiscoveryHooks)
        self.add_hookspecs(StageHooks)

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        if not name.startswith("sebs_"):
            return None
        method = getattr(plugin, name)
        if inspect.ismodule(method) or not callable(method):
            return None
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None:
            raise PluginError(f"{name} is not marked: put @sebs_core.hookimpl above it, or it would never be called")
        if name not in STAGES and name not in DISCOVERY:
            near = difflib.get_close_matches(name, (*STAGES, *DISCOVERY), 1)
            raise PluginError(f"{name} is no hook{f'; did you mean {near[0]}?' if near else ''}")
        defaults = [p.name for p in inspect.signature(method).parameters.values() if p.default is not p.empty]
        if defaults:
            raise PluginError(f"{name}: hook arguments have no defaults, but {', '.join(defaults)} has one")
        return options

    def add(self, plugin: object, name: str) -> None:
        """Register `plugin`; every breach of the contract is a `PluginError` that begins with its name."""
        if isinstance(plugin, type):
            raise PluginError(f"{name}: registered the class {plugin.__name__}; forgotten the ()?")
        if self.is_registered(plugin):
            raise PluginError(f"{name}: this module is already registered, as {self.get_name(plugin)}")
        if self.has_plugin(name):  # one distribution may bring several plugins
            name = f"{name} ({getattr(plugin, '__name__', type(plugin).__name__)})"
        try:
            self.register(plugin, name)
        except PluginError as error:
            self._forget(plugin)
            raise PluginError(f"{name}: {error}") from None
        except (pluggy.PluginValidationError, ValueError) as error:
            self._forget(plugin)
            raise PluginError(f"{name}: {' '.join(str(error).split())}") from None

    def _forget(self, plugin: object) -> None:
        if self.is_registered(plugin):
            self.unregister(plugin)


@dataclass(frozen=True)
class InstalledPlugin:
    """One entry point of the group ``sebs``, loaded or not."""

    name: str
    distribution: str
    version: str
    module: object | None
    error: str | None = None
    """Why it could not be loaded; None when it was."""

    @property
    def label(self) -> str:
        """Distribution and version, as manifests name it."""
        return f"{self.distribution} {self.version}"


def _stages_that_replace(module: object) -> list[str]:
    marked = ((name, getattr(module, name, None)) for name in STAGES)
    return [name for name, method in marked if method is not None and not method.sebs_impl["wrapper"]]


class Plugins:
    """Everything that is installed, loaded once."""

    def __init__(self, entry_points: Iterable[metadata.EntryPoint] | None = None) -> None:
        self.manager = _Manager()
        self.installed = [InstalledPlugin("core", "sebs-core", metadata.version("sebs-core"), builtin)]
        self.manager.add(builtin, self.installed[0].label)
        found = metadata.entry_points(group=ENTRY_POINT_GROUP) if entry_points is None else entry_points
        for entry_point in sorted(found, key=lambda e: (e.name, e.value)):
            self.installed.append(self._load(entry_point))

    def _load(self, entry_point: metadata.EntryPoint) -> InstalledPlugin:
        dist = entry_point.dist
        distribution, version = (dist.name, dist.version) if dist else (entry_point.value, "unknown")
        try:
            module = entry_point.load()
            self.manager.add(module, f"{distribution} {version}")
            replaced = _stages_that_replace(module)
            if replaced:
                self.manager.unregister(module)
                raise PluginError(
                    f"{', '.join(replaced)} at module level would act on every platform. Wrap it (@hookimpl(wrapper=True)), "
                    "or offer an Extension that the user chooses."
                )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, also SystemExit
            cause = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            logger.warning("plugin %s (%s of %s) was not loaded: %s", entry_point.name, entry_point.value, distribution, cause)
            return InstalledPlugin(entry_point.name, distribution, version, None, cause)
        return InstalledPlugin(entry_point.name, distribution, version, module)

    def _offered(self, hook: str) -> list[tuple[InstalledPlugin, Any]]:
        """What every plugin answers to a discovery hook, with who answered; a plugin that raises is skipped with a warning."""
        offered: list[tuple[InstalledPlugin, Any]] = []
        for place, plugin in enumerate(self.installed):
            implementation = getattr(plugin.module, hook, None)
            if implementation is None or plugin.error:
                continue
            try:
                offered += [(plugin, offer) for offer in implementation()]
            except Exception as error:
                self.installed[place] = replace(plugin, error=f"{hook} failed: {type(error).__name__}: {error}")
                logger.warning("plugin %s: %s", plugin.label, self.installed[place].error)
        return offered

    def _only(self, hook: str, what: str) -> dict[str, tuple[Any, InstalledPlugin]]:
        """What is offered by its name; `PluginError` where two offer the same one: installing must not change numbers."""
        found: dict[str, tuple[Any, InstalledPlugin]] = {}
        for plugin, offer in self._offered(hook):
            if offer.name in found:
                who = f"{found[offer.name][1].label} and {plugin.label}"
                raise PluginError(f"the {what} {offer.name!r} is offered by {who}: uninstall one of them")
            found[offer.name] = (offer, plugin)
        return found

    def add_commands(self, cli: Any) -> None:
        """Let plugins add to the command line; one that cannot is left out with a warning."""
        for plugin in self.installed:
            implementation = getattr(plugin.module, "sebs_commands", None)
            if implementation is not None:
                try:
                    implementation(cli)
                except Exception as error:
                    logger.warning("plugin %s could not add its commands: %s: %s", plugin.label, type(error).__name__, error)

    def platforms(self) -> list[PlatformInfo]:
        """Every platform that an installed plugin offers, by name."""
        return sorted((info for _, info in self._offered("sebs_platforms")), key=lambda info: info.name)

    def platform(self, name: str) -> tuple[PlatformInfo, InstalledPlugin]:
        """The platform of this name and the plugin that brings it.

        Raises `UnknownPlatformError` when nobody offers it, `PluginError` when its plugin is broken or two plugins offer it.
        """
        offered = self._only("sebs_platforms", "platform")
        if name in offered:
            return offered[name]
        for plugin in self.installed:
            if plugin.error and name in (plugin.name, plugin.distribution, plugin.distribution.removeprefix("sebs-")):
                raise PluginError(f"the plugin for {name!r} ({plugin.label}) could not be loaded: {plugin.error}")
        names = sorted(offered)
        near = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean {near[0]}? Otherwise, if" if near else "If"
        raise UnknownPlatformError(
            f"no installed plugin offers the platform {name!r}. {hint} there is a plugin for it, `pip install sebs-{name}` "
            f"adds it. Installed: {', '.join(names) or 'none (pip install sebs-local adds one for this machine)'}."
        )

    def benchmark_folders(self) -> list[Path]:
        """Folders with benchmarks, of all plugins."""
        return [folder for _, folder in self._offered("sebs_benchmarks")]

    def language(self, name: str) -> Language:
        """The language of this name; `PluginError` when no plugin builds it."""
        offered = self._only("sebs_languages", "language")
        if name not in offered:
            raise PluginError(f"nothing installed builds packages in {name}. Known languages: {', '.join(sorted(offered))}.")
        language: Language = offered[name][0]
        return language

    def extensions(self, names: Sequence[str]) -> list[tuple[Extension, InstalledPlugin]]:
        """The chosen extensions, in this order; `ConfigError` for one that nobody offers."""
        offered = self._only("sebs_extensions", "extension")
        for name in names:
            if name not in offered:
                known = ", ".join(sorted(offered)) or "none"
                raise ConfigError(f"no installed plugin offers the extension {name!r}. Installed: {known}.")
        return [offered[name] for name in names]


class Stages:
    """The stages of one session: its platform, core's own answers, and whoever wraps or replaces them."""

    def __init__(self, plugins: Plugins) -> None:
        self._manager = _Manager()
        for plugin in plugins.installed:
            if plugin.module is not None:
                self._manager.add(plugin.module, plugin.label)
        self._observers_failed: set[str] = set()

    def add(self, plugin: object, name: str) -> None:
        """Register an object with hooks; what is added later is asked first."""
        self._manager.add(plugin, name)

    def call(self, stage: str, **arguments: Any) -> Any:
        """The answer of the first implementation that has one; `StageMissingError` when none has."""
        answer = self.ask(stage, **arguments)
        if answer is None:
            raise StageMissingError(f"nobody implements {stage}: the platform's plugin lacks this stage")
        return answer

    def ask(self, stage: str, **arguments: Any) -> Any:
        """Like `call`, but ``None`` when nobody answers; for collecting stages the list of all answers."""
        return getattr(self._manager.hook, stage)(**arguments)

    def close(self) -> None:
        """Let everybody release what they took: each is called, also when another one fails; the first failure is raised."""
        failures: list[BaseException] = []

        def guarded(function: Callable[..., object]) -> Callable[..., None]:
            def close_one(*arguments: object) -> None:
                try:
                    function(*arguments)
                except BaseException as error:
                    failures.append(error)

            return close_one

        for implementation in self._manager.hook.sebs_close.get_hookimpls():
            if not implementation.wrapper:
                # pluggy alone stops at the first that raises, and has no other way in
                implementation.function = guarded(implementation.function)  # type: ignore[misc]
        self.ask("sebs_close")
        if failures:
            raise failures[0]

    def tell(self, event: object) -> None:
        """Tell every observer. One that raises is reported once and left out from then on."""
        for implementation in self._manager.hook.sebs_event.get_hookimpls():
            if implementation.plugin_name in self._observers_failed:
                continue
            try:
                implementation.function(*[event for name in implementation.argnames if name == "event"])
            except Exception:
                self._observers_failed.add(implementation.plugin_name)
                logger.exception("%s failed as an observer and is not asked again", implementation.plugin_name)

    def involved(self, *stages: str) -> tuple[str, ...]:
        """Who implements and who wraps these stages, with versions; what changes when installed or chosen code changes."""
        told = self.provenance()
        return tuple(label for stage in stages for who in told.get(stage, {}).values() for label in who)

    def provenance(self) -> dict[str, dict[str, list[str]]]:
        """Stage → who implements it (first asked first) and who wraps it."""
        told: dict[str, dict[str, list[str]]] = {}
        for stage in STAGES:
            implementations = list(reversed(getattr(self._manager.hook, stage).get_hookimpls()))
            if implementations:
                told[stage] = {
                    "implemented_by": [i.plugin_name for i in implementations if not i.wrapper],
                    "wrapped_by": [i.plugin_name for i in implementations if i.wrapper],
                }
        return told


@functools.cache
def installed() -> Plugins:
    """The plugins of this environment, loaded on first need."""
    return Plugins()
