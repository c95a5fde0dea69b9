"""What the program stores: records that survive versions and missing plugins.

A `Record` is frozen and keeps fields it does not know. A `Tagged` record is the root of a family: a plugin subclasses it
with a tag (``class MyFunction(Function, tag="mine")``), and wherever a ``Function`` is read, the tag decides the class.
Without the plugin the record loads as the root with every field kept, and is written back identically.

Units stand in the names (``_us`` microseconds, ``_ns`` nanoseconds, ``_mb`` MiB, ``_s`` seconds). Secrets are never in a
record. Reading one never touches the network or the environment.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from sebs_core.errors import PluginError

__all__ = [
    "ERROR_KINDS",
    "EngineReport",
    "Function",
    "FunctionConfig",
    "Inputs",
    "Invocation",
    "Metrics",
    "Package",
    "Record",
    "Resource",
    "RunManifest",
    "Runtime",
    "StoredValues",
    "Tagged",
    "Trigger",
]

ERROR_KINDS = (
    "connect",
    "tls",
    "timeout",
    "reset",
    "protocol",
    "throttled",
    "refused",
    "function_error",
    "init_error",
    "oom",
    "crash",
    "bad_response",
    "too_large",
)
"""The closed list of what can be wrong with one invocation (docs/measurement.md)."""

MOST_CHANGES = 5
"""Named when a package is built anew; of the others only the number."""

ColdKind = Literal["first_deploy", "enforced", "scale_out", "evicted", "zygote", "snapshot", "unknown"]


class Record(BaseModel):
    """Something the program stores. Frozen; unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True, polymorphic_serialization=True)

    schema_version: int = 1


class Tagged(Record):
    """Root of a family of records that plugins extend: ``class Function(Tagged)``, then ``class X(Function, tag="x")``."""

    tag: str = ""
    """Which subclass this is; empty for the root itself."""

    _own_tag: ClassVar[str] = ""
    _family: ClassVar[dict[str, type[Tagged]]] = {}

    def __init_subclass__(cls, tag: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if Tagged in cls.__bases__:
            cls._family = {}
            return
        if not tag:
            raise PluginError(f"{cls.__module__}.{cls.__qualname__} needs a tag: class {cls.__name__}(…, tag='my-platform')")
        known = cls._family.get(tag)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise PluginError(
                f"two records claim the tag {tag!r}: {known.__module__}.{known.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}. Uninstall one of the two plugins, or rename the tag in yours."
            )
        cls._own_tag = tag
        cls._family[tag] = cls

    @model_validator(mode="wrap")
    @classmethod
    def _choose_class(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if isinstance(data, Mapping):
            data = {"tag": cls._own_tag, **data}
            chosen = cls._family.get(data["tag"]) if isinstance(data["tag"], str) else None
            if chosen is not None and chosen is not cls and issubclass(chosen, cls):
                return chosen.model_validate(data)
        return handler(data)


class FunctionConfig(Record):
    """How one function is built and run, with every choice made. A change in any field is a change of the function."""

    function_name: str = ""
    """Empty until the function is deployed: a package does not depend on it."""
    language: str
    language_version: str
    language_variant: str
    system_variant: str
    architecture: str
    memory_mb: int
    timeout_s: float
    environment: dict[str, str] = Field(default_factory=dict)


class Runtime(Record):
    """What a platform adds to a benchmark's code, and what the code will meet there. Enters the inputs digest."""

    files: dict[str, Path]
    """Name in the package → file to copy there: the shim, and the platform's part of ``sebs_function``."""
    requirements: tuple[str, ...] = ()
    """What the shim itself needs, in the language's own notation."""
    wheel_platform: str | None = None
    """Target for prebuilt dependencies in uv's notation (``x86_64-manylinux2014``); None: the machine that builds."""
    base_image: str | None = None
    entry_point: str = "handler.handler"


class Inputs(Record):
    """What went into a package, piece by piece."""

    parts: dict[str, str]
    """What (a file's name in the package, ``requirements.txt``, ``target``, …) → its digest or value."""

    @property
    def digest(self) -> str:
        """SHA-256 of all parts: the key under which the package is kept."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()

    def difference(self, before: Inputs) -> str:
        """What changed since then, in words: ``function/function.py changed, function/new.py added``."""
        changes = {
            "changed": [part for part, value in self.parts.items() if before.parts.get(part, value) != value],
            "added": [part for part in self.parts if part not in before.parts],
            "removed": [part for part in before.parts if part not in self.parts],
        }
        told = [f"{part} {verb}" for verb, parts in changes.items() for part in sorted(parts)]
        return ", ".join(
            [*told[:MOST_CHANGES], *([f"and {len(told) - MOST_CHANGES} more"] if len(told) > MOST_CHANGES else [])]
        )


class StoredValues(Record):
    """Nested values of a platform, such as its configuration or a benchmark's buckets."""

    values: dict[str, Any] = Field(default_factory=dict)


class Package(Tagged):
    """A built benchmark. `digest` is its identity: equal digests run the same code in the same way."""

    benchmark: str
    workload_version: str
    digest: str
    """Of the built folder (names, executable bits, contents), and of how it is run: kind, entry point, base image."""
    inputs: str
    """Digest of everything that went in (`Inputs`); the cache key."""
    why_rebuilt: str = ""
    """What changed since the build before, or why else this one was made."""
    kind: Literal["folder", "zip", "container"]
    path: Path
    """The folder or zip; of a container what its image was built from."""
    artefact: str = ""
    """Digest of what lies there, to notice when it was changed."""
    size_bytes: int
    language: str
    language_version: str
    language_variant: str
    system_variant: str
    architecture: str
    memory_mb: int
    """What the benchmark asks for, in MiB."""
    timeout_s: float
    """What the benchmark asks for."""
    entry_point: str
    dependencies: dict[str, str] = Field(default_factory=dict)
    """Distribution → version, as resolved when the package was built."""
    uri: str | None = None
    """Where the provider holds it, once published."""
    published: str = ""
    """Marker of the account's state at that moment."""
    image_id: str | None = None
    """Of a container: the image on this machine."""
    created: datetime.datetime

    @property
    def variant(self) -> str:
        """Of which builds follow each other: benchmark, language and its version, variants, architecture."""
        parts = (self.benchmark, self.language, self.language_version, self.language_variant, self.system_variant)
        return "/".join((*parts, self.architecture))


class Trigger(Tagged):
    """A way to reach a function. A record: no secret, no behaviour."""

    kind: str
    """``"http"``, ``"library"``; later ``"queue"``, ``"storage"``, ``"timer"``."""
    url: str | None = None
    asynchronous: bool = False


class Function(Tagged):
    """A deployed function."""

    name: str
    platform: str
    benchmark: str
    package_digest: str
    config: FunctionConfig
    triggers: tuple[Trigger, ...] = ()
    resources_id: str = ""
    """Of the session that deployed it."""
    deployment: str = ""
    """Marker of this deployment: the ledger has the same as long as nobody changed the function since."""
    deployed_by: tuple[str, ...] = ()
    """Who implemented and wrapped ``sebs_deploy``, with versions."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of the platform, without secrets and without those that concern only a client."""
    secrets_hash: str | None = None
    """Keyed hash of the secrets with which it was deployed; None: it has none. They themselves are stored nowhere."""
    generation: str | None = None
    """Marker of the last enforced cold start; the shim echoes it. None: the platform has none."""
    provider_time_kind: Literal["runtime", "host", "frontend", "sandbox"] | None = None
    """Which time ``provider.duration_us`` is (docs/measurement.md); None: the platform tells none."""
    memory_kind: Literal["instance_peak", "call_peak"] | None = None
    """Which memory ``provider.memory_mb`` is."""
    limits_enforced: dict[str, bool] = Field(default_factory=dict)
    """Limit (``memory``, ``timeout``, ``cpu``) → whether the platform really keeps it."""

    def trigger(self, kind: str, *, asynchronous: bool = False) -> Trigger | None:
        """The trigger of this kind that was made before, or None."""
        for known in self.triggers:
            if (known.kind, known.asynchronous) == (kind, asynchronous):
                return known
        return None


class Resource(Tagged):
    """Something of ours that exists on a platform and can be removed."""

    kind: str
    name: str
    platform: str
    resources_id: str = ""
    """To which resources id it belongs; empty: the plugin lists only those of its session's."""
    depends_on: tuple[str, ...] = ()
    """``kind/name`` of what this one uses: it is removed before them."""

    @property
    def key(self) -> str:
        """``kind/name``, as in `depends_on`."""
        return f"{self.kind}/{self.name}"


class Metrics(Record):
    """A platform's own numbers about some invocations."""

    values: dict[str, dict[str, int | float | str | None]]
    """Request id → column of the ``provider`` struct → value."""
    sources: dict[str, Literal["measured", "derived", "aggregate"]] = Field(default_factory=dict)
    """Column → where its values come from."""
    missing: tuple[str, ...] = ()
    """Request ids of which the platform did not tell (yet)."""
    aggregates: dict[str, Any] = Field(default_factory=dict)
    """What the platform tells of the whole window only."""
    raw: tuple[Any, ...] = ()
    """The platform's answers as they came."""


class Invocation(Record):
    """One invocation: a row of the result (columns as in docs/measurement.md) and the function's answer."""

    index: int
    function: str
    phase: str
    client_us: int | None
    response_us: int | None = None
    status: int | None
    error: str | None
    """None, or one of `ERROR_KINDS`."""
    error_detail: str | None = None
    request_id: str | None = None
    instance_id: str | None = None
    instance_sequence: int | None = None
    cold: bool | None = None
    cold_kind: ColdKind | None = None
    handler_us: int | None = None
    import_us: int | None = None
    init_us: int | None = None
    provider: dict[str, Any] | None = None
    measurement: dict[str, Any] | None = None
    output: Any = None
    """What the handler returned, decoded."""
    output_ok: bool | None = None


class EngineReport(Record):
    """What an engine says of one load: what it did, and with what."""

    engine: str
    """Name and versions of what sent the requests."""
    sent: int
    """Sends that were begun; each is a row, as long as nobody interrupted."""
    started_ns: int
    ended_ns: int
    paused_ns: int | None = None
    """How long clients were kept from sending while rows were written; None: the engine does not tell."""


class RunManifest(Record):
    """``run.json``: everything a reader of a result needs besides the rows."""

    run: str
    """Name of the run directory when it was made."""
    state: Literal["running", "complete", "interrupted", "failed"]
    failure: str | None = None
    """Why the run ended early."""
    created: datetime.datetime
    platform: str
    settings: dict[str, Any]
    """Of the platform; secrets left out."""
    benchmark: str
    workload_version: str
    size: str | None
    input_digest: str
    """SHA-256 of the payload as sent."""
    distinct_payloads: int
    start: Literal["any", "cold", "warm"]
    """What the user asked for."""
    plan: dict[str, Any]
    function: Function
    package: Package
    trigger: Trigger
    stages: dict[str, dict[str, list[str]]]
    """Stage → who implemented it, who wrapped it, with versions."""
    versions: dict[str, str]
    machine: dict[str, Any]
    clocks: tuple[tuple[int, int], ...] = ()
    """Pairs of (monotonic ns since the run's start, wall-clock epoch ns) of the client."""
    engine: tuple[EngineReport, ...] = ()
    metrics_missing: int | None = None
    """Requests of which the platform did not tell; None before metrics were collected."""
    provider_sources: dict[str, str] = Field(default_factory=dict)
    """Column of ``provider`` → measured, derived or aggregate."""
    notes: tuple[str, ...] = ()
    """What a reader should know, in sentences."""
    host_contended: bool | None = None
    client_saturated: bool | None = None
