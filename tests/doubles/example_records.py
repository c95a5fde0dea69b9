"""Records with something in every field that is required."""

from __future__ import annotations

import datetime
from pathlib import Path

from sebs_core.models import Function, FunctionConfig, Package, RunManifest, Trigger

NOW = datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)
CONFIG = FunctionConfig(
    function_name="f",
    language="python",
    language_version="3.12",
    language_variant="default",
    system_variant="package",
    architecture="x64",
    memory_mb=128,
    timeout_s=3,
)
FUNCTION = Function(name="f", platform="double", benchmark="b", package_digest="d", config=CONFIG)
PACKAGE = Package(
    benchmark="b",
    workload_version="1",
    digest="d",
    inputs="i",
    kind="zip",
    path=Path("/x"),
    size_bytes=1,
    language="python",
    language_version="3.12",
    language_variant="default",
    system_variant="package",
    architecture="x64",
    memory_mb=1,
    timeout_s=1,
    entry_point="h",
    created=NOW,
)


def a_manifest(**more):
    """A manifest of a run that goes on."""
    given = {
        "run": "r",
        "state": "running",
        "created": NOW,
        "platform": "double",
        "settings": {},
        "benchmark": "b",
        "workload_version": "1",
        "size": "test",
        "input_digest": "0",
        "distinct_payloads": 1,
        "start": "any",
        "plan": {},
        "function": FUNCTION,
        "package": PACKAGE,
        "trigger": Trigger(kind="http", url="http://x"),
        "stages": {},
        "versions": {},
        "machine": {},
    }
    return RunManifest(**{**given, **more})
