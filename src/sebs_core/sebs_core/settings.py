"""What a person writes: settings of a platform, and how a function is to be run. Unknown keys are errors."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sebs_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RunConfig", "Settings", "validated"]


class Settings(BaseModel):
    """Root of every platform's settings. Secrets are ``pydantic.SecretStr`` and never leave memory."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    of_client: ClassVar[frozenset[str]] = frozenset()
    """Names of those that concern only this client (time limits of calls, say). A package is built and a function deployed anew
    when any other setting differs from those of before."""


class RunConfig(Settings):
    """How a function is to be built and run; what is not given is decided by benchmark and platform."""

    language: str = "python"
    language_version: str | None = None
    """E.g. ``"3.12"``; default: the platform's preferred one."""
    language_variant: str = "default"
    """Another implementation of the language, e.g. ``"pypy"``."""
    system_variant: str | None = None
    """How the platform takes the function: ``"package"``, ``"container"``, …; default: the platform's first."""
    architecture: Literal["x64", "arm64"] | None = None
    """Default: the platform's first."""
    memory_mb: int | None = Field(default=None, gt=0)
    """Memory of an instance in MiB; default: the benchmark's."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds after which the platform ends an invocation; default: the benchmark's."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the function. They are stored: no secrets here."""
    function_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Default: made of resources id, benchmark and variants."""


AnySettings = TypeVar("AnySettings", bound=Settings)


def validated(model: type[AnySettings], values: Mapping[str, Any], what: str) -> AnySettings:
    """Make ``model`` from ``values``; mistakes become one `ConfigError` that names each key and what it may be."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            key = ".".join(str(part) for part in problem["loc"]) or "value"
            if problem["type"] == "extra_forbidden":
                known = sorted(model.model_fields)
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
                lines.append(f"{what} has no {key} ({hint})")
            else:
                lines.append(f"{what} {key}: {problem['msg']}")
        raise ConfigError("; ".join(lines)) from None
