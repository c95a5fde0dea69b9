"""What can be set, what this platform can do, and the record of one function."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pydantic import Field

from sebs_core.models import Function
from sebs_core.offers import Capabilities, LanguageSupport
from sebs_core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CAPABILITIES", "PYTHON_VERSIONS", "LocalFunction", "LocalSettings"]

PYTHON_VERSIONS = ("3.10", "3.11", "3.12", "3.13")


class LocalSettings(Settings):
    """How the gateway behaves. All of it is decided when the session opens."""

    of_client = frozenset(
        {"port", "keep_alive_s", "max_instances", "request_limit_mb", "response_limit_mb", "init_timeout_s"}
    )  # of the gateway, which ends with the session; neither packages nor functions depend on them

    port: int = Field(default=0, ge=0, le=65535)
    """Of the gateway, on 127.0.0.1 only; 0: any free one."""
    keep_alive_s: float = Field(default=600, ge=0)
    """Seconds without a call after which an instance is removed; 0: after each call."""
    max_instances: int = Field(default=64, gt=0)
    """Instances of one function at the same time; more calls wait in the order in which they came."""
    request_limit_mb: int = Field(default=6, gt=0, le=1024)
    """Largest event in MiB: as AWS Lambda's for synchronous invocations."""
    response_limit_mb: int = Field(default=6, gt=0, le=1024)
    """Largest answer in MiB, the shim's envelope included: as AWS Lambda's for synchronous invocations."""
    init_timeout_s: float = Field(default=10, gt=0)
    """Seconds within which a new instance must be ready, import of the function's code included: as on AWS Lambda."""


class LocalFunction(Function, tag="local"):
    """A function that the gateway of one session serves."""

    folder: str
    """Of the package; instances run in it, and nothing writes there."""
    python: str
    """The interpreter of its instances."""
    gateway: str
    """Which gateway serves it: a gateway, and what it serves, ends with its session."""
    generation: str
    """Marker of the last enforced cold start (of the deployment, before the first)."""


def _versions() -> Sequence[str]:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    newest_first = sorted(PYTHON_VERSIONS, key=lambda version: (version == own, int(version[2:])), reverse=True)
    return tuple(newest_first)


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(machine, machine)


CAPABILITIES = Capabilities(
    languages=(LanguageSupport("python", _versions(), architectures=(_architecture(),)),),
    triggers=("http", "library"),
    memory_mb=(128, 10240),
    timeout_s=(0.1, 900),
    cold_start=True,
)
"""Memory is not limited on this platform (`limits_enforced`); its range is AWS Lambda's."""
