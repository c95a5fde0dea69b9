"""Measure serverless platforms: package, deploy, invoke, collect metrics; providers are plugins.

::

    import sebs_core as sebs

    with sebs.connect("local") as local:
        result = local.run("110.dynamic-html", size="test")
    print(result.summary())

Names are imported when they are first used, so that ``import sebs_core`` stays quick in a plugin's module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sebs_core.benchmark import Benchmark, BenchmarkConfig, BrokenBenchmark
    from sebs_core.context import Context
    from sebs_core.errors import (
        CacheError,
        ConfigError,
        CredentialsError,
        DeployError,
        FunctionGoneError,
        InvokeError,
        MetricsError,
        PackagingError,
        PluginError,
        SebsError,
        StageMissingError,
        StorageError,
        UnknownPlatformError,
    )
    from sebs_core.events import Event, LoadProgress, Notice, RunFinished, StageFinished, StageStarted
    from sebs_core.exchange import Exchange, Fields, Request, Response, Sink, fields_from_envelope
    from sebs_core.hookspecs import DiscoveryHooks, StageHooks, hookimpl
    from sebs_core.inventory import Holding, Removal
    from sebs_core.load import Closed, Plan
    from sebs_core.models import (
        EngineReport,
        Function,
        FunctionConfig,
        Invocation,
        Metrics,
        Package,
        Record,
        Resource,
        RunManifest,
        Runtime,
        Tagged,
        Trigger,
    )
    from sebs_core.offers import Capabilities, Extension, Language, LanguageSupport, PlatformInfo
    from sebs_core.plugins import InstalledPlugin, Plugins
    from sebs_core.result import Result
    from sebs_core.session import Session, connect
    from sebs_core.settings import RunConfig, Settings
    from sebs_core.stats import Quantiles
    from sebs_core.summary import Figures, Summary

__version__ = "0.1.0"

_HOME = {
    "benchmark": ("Benchmark", "BenchmarkConfig", "BrokenBenchmark"),
    "context": ("Context",),
    "errors": (
        "CacheError", "ConfigError", "CredentialsError", "DeployError", "FunctionGoneError", "InvokeError", "MetricsError",
        "PackagingError", "PluginError", "SebsError", "StageMissingError", "StorageError", "UnknownPlatformError",
    ),
    "events": ("Event", "LoadProgress", "Notice", "RunFinished", "StageFinished", "StageStarted"),
    "exchange": ("Exchange", "Fields", "Request", "Response", "Sink", "fields_from_envelope"),
    "hookspecs": ("DiscoveryHooks", "StageHooks", "hookimpl"),
    "inventory": ("Holding", "Removal"),
    "load": ("Closed", "Plan"),
    "models": (
        "EngineReport", "Function", "FunctionConfig", "Invocation", "Metrics", "Package", "Record", "Resource",
        "RunManifest", "Runtime", "Tagged", "Trigger",
    ),
    "offers": ("Capabilities", "Extension", "Language", "LanguageSupport", "PlatformInfo"),
    "plugins": ("InstalledPlugin", "Plugins"),
    "result": ("Result",),
    "session": ("Session", "connect"),
    "settings": ("RunConfig", "Settings"),
    "stats": ("Quantiles",),
    "summary": ("Figures", "Summary"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Benchmark",
    "BenchmarkConfig",
    "BrokenBenchmark",
    "CacheError",
    "Capabilities",
    "Closed",
    "ConfigError",
    "Context",
    "CredentialsError",
    "DeployError",
    "DiscoveryHooks",
    "EngineReport",
    "Event",
    "Exchange",
    "Extension",
    "Fields",
    "Figures",
    "Function",
    "FunctionConfig",
    "FunctionGoneError",
    "Holding",
    "InstalledPlugin",
    "Invocation",
    "InvokeError",
    "Language",
    "LanguageSupport",
    "LoadProgress",
    "Metrics",
    "MetricsError",
    "Notice",
    "Package",
    "PackagingError",
    "Plan",
    "PlatformInfo",
    "PluginError",
    "Plugins",
    "Quantiles",
    "Record",
    "Removal",
    "Request",
    "Resource",
    "Response",
    "Result",
    "RunConfig",
    "RunFinished",
    "RunManifest",
    "Runtime",
    "SebsError",
    "Session",
    "Settings",
    "Sink",
    "StageFinished",
    "StageHooks",
    "StageMissingError",
    "StageStarted",
    "StorageError",
    "Summary",
    "Tagged",
    "Trigger",
    "UnknownPlatformError",
    "benchmarks",
    "connect",
    "fields_from_envelope",
    "hookimpl",
    "platforms",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def platforms() -> list[PlatformInfo | InstalledPlugin]:
    """Every platform that is installed, and every plugin that could not be loaded (with its ``error``)."""
    from sebs_core.plugins import installed

    plugins = installed()
    return [*plugins.platforms(), *(plugin for plugin in plugins.installed if plugin.error)]


def benchmarks() -> list[Benchmark | BrokenBenchmark]:
    """Every benchmark that is installed, broken ones with their ``error``."""
    from sebs_core.benchmark import find_all
    from sebs_core.plugins import installed

    return find_all(installed().benchmark_folders())
