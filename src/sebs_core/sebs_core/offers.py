"""What plugins offer when they are discovered, before any SDK is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sebs_core.errors import ConfigError
from sebs_core.models import FunctionConfig, Runtime
from sebs_core.settings import Settings

if TYPE_CHECKING:
    from sebs_core.context import Context

__all__ = ["Capabilities", "Extension", "Language", "LanguageSupport", "PlatformInfo"]


@dataclass(frozen=True)
class LanguageSupport:
    """One language on one platform. The first of each sequence is the default.

    Example: ``LanguageSupport("python", versions=("3.12", "3.11"), system_variants=("package", "container"))``.
    """

    language: str
    """Name of a `Language` that a plugin offers."""
    versions: Sequence[str]
    """As in ``--language-version``: ``"3.12"``."""
    language_variant: str = "default"
    """Another implementation of the language, e.g. ``"pypy"``."""
    system_variants: Sequence[str] = ("package",)
    """How the platform takes the function: ``"package"``, ``"container"``, …"""
    architectures: Sequence[str] = ("x64",)
    """``"x64"``, ``"arm64"``."""


@dataclass(frozen=True)
class Capabilities:
    """What a platform can do. Core refuses the rest with a sentence, before anything is built."""

    languages: Sequence[LanguageSupport]
    triggers: Sequence[str]
    """Kinds of triggers, the usual one first: ``"http"``, ``"library"``."""
    memory_mb: tuple[int, int]
    """Smallest and largest memory of an instance, in MiB."""
    timeout_s: tuple[float, float]
    """Shortest and longest time limit, in seconds."""
    cold_start: bool
    """Whether cold starts can be enforced."""
    asynchronous: bool = False
    """Whether a trigger can take an event and answer before it is dealt with."""

    def support(self, language: str, variant: str) -> LanguageSupport | None:
        """The entry for this language and variant, or None."""
        for entry in self.languages:
            if (entry.language, entry.language_variant) == (language, variant):
                return entry
        return None

    def check(self, config: FunctionConfig, platform: str) -> None:
        """Raise `ConfigError`, naming what there is, unless the platform can run a function so configured."""
        entry = self.support(config.language, config.language_variant)
        if entry is None:
            known = ", ".join(f"{e.language} ({e.language_variant})" for e in self.languages)
            raise ConfigError(f"{platform} does not run {config.language} ({config.language_variant}). It runs: {known}.")
        for word, value, known_values in (
            (f"{config.language} version", config.language_version, entry.versions),
            ("system variant", config.system_variant, entry.system_variants),
            ("architecture", config.architecture, entry.architectures),
        ):
            if value not in known_values:
                raise ConfigError(f"{platform} has no {word} {value}. It has: {', '.join(known_values)}.")
        for word, number, (low, high), unit in (
            ("memory", config.memory_mb, self.memory_mb, "MiB"),
            ("timeout", config.timeout_s, self.timeout_s, "s"),
        ):
            if not low <= number <= high:
                raise ConfigError(f"{word} of {number:g} {unit} is outside what {platform} has: {low:g} to {high:g}.")


@dataclass(frozen=True)
class PlatformInfo:
    """A platform, as its plugin announces it."""

    name: str
    """As in ``--platform``; two plugins that offer one name are an error."""
    summary: str
    """One sentence for ``sebs platform list``."""
    settings: type[Settings]
    """What a user may set: a subclass of `Settings`, secrets as ``pydantic.SecretStr``."""
    capabilities: Capabilities
    create: Callable[[Any, Context], object]
    """``create(settings, context)`` imports the SDK and returns the object whose methods are the stage hooks.

    Called once per session, before `sebs_open`. An exception that is no `SebsError` becomes a `PluginError` with its text.
    """
    error: ClassVar[None] = None
    """A platform that can be listed was loaded; what could not be is an `InstalledPlugin` with its error."""
    doctor: Callable[[Any], Sequence[tuple[str, bool, str]]] | None = None
    """``doctor(settings)`` → rows of (what was checked, whether it is well, what was found or how to mend it)."""


@dataclass(frozen=True)
class Language:
    """How code in one language becomes a package."""

    name: str
    """As in ``--language``, and as the code's folder in a benchmark is called."""
    code_file: str
    """The file a benchmark must have in its folder for this language, e.g. ``function.py``."""
    requirement_texts: Callable[[Path, FunctionConfig], dict[str, str]]
    """``(code folder, config)`` → file name → text of what the benchmark requires; enters the inputs digest."""
    ignored: tuple[str, ...]
    """Patterns of files in the code folder that are no input, e.g. ``__pycache__``."""
    install: Callable[[Path, Sequence[str], Sequence[str], Runtime, FunctionConfig], dict[str, str]]
    """``(folder, requirements, constraints, runtime, config)``: put dependencies into the folder; returns name → version.

    Constraints are the lines of those requirement texts whose name begins with ``constraints.txt``: they decide versions, also
    of what the requirements require in turn, and add nothing.
    """


@dataclass(frozen=True)
class Extension:
    """Something that replaces stages, and acts only when the user chooses it (``connect(…, extensions=[name])``)."""

    name: str
    """As in ``--extension``; two plugins that offer one name are an error."""
    summary: str
    """One sentence: what it replaces, and why one would want it."""
    create: Callable[[], object]
    """Makes the object whose ``sebs_*`` methods go before the platform's. Called once per session, without arguments."""
