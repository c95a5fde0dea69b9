"""Loads and plans: what is to be sent, when, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from sebs_core.exchange import Request
from sebs_core.models import Function, Record, Trigger
from sebs_core.settings import Settings

__all__ = ["MOST_CLIENTS", "Closed", "Plan"]

MOST_CLIENTS = 1000
"""One client is one connection, and one descriptor."""


class Closed(Settings):
    """A closed loop: `concurrency` clients, each sends its next invocation when its last one is answered.

    `repetitions` is the number of measured invocations of all clients together. ``Closed(repetitions=5)`` is sequential.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["closed"] = "closed"
    repetitions: int = Field(default=5, gt=0)
    concurrency: int = Field(default=1, gt=0, le=MOST_CLIENTS)

    def __init__(self, concurrency: int = 1, repetitions: int = 5, **data: object) -> None:
        super().__init__(**{"concurrency": concurrency, "repetitions": repetitions, **data})


class Plan(Record):
    """One load, ready to be run by ``sebs_run_load``."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    load: Closed
    connections: Literal["reused", "fresh"] = "reused"
    timeout_s: float
    """After which the client gives up; longer than the function's own limit, so that the platform speaks first."""
    origin_ns: int
    """``time.monotonic_ns()`` that counts as 0 in this run's rows."""
    first_index: int = 0
    """Index of the first row; the others count up from it."""
    function: Function = Field(exclude=True)
    trigger: Trigger = Field(exclude=True)
    payloads: tuple[bytes, ...] = Field(exclude=True)
    """JSON texts, used in turn."""
    requests: tuple[Request, ...] = Field(default=(), exclude=True)
    """One for each payload; empty when the trigger needs ``sebs_invoke``."""
