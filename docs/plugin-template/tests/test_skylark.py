"""The plugin and the emulator, used as by anybody. Install it first (``pip install -e .``): core finds it by its entry point."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sebs_core as sebs
from skylark_emulator import Emulator


def work(event: dict[str, Any]) -> dict[str, Any]:
    """Does what the event says."""
    print("value", event.get("value"))
    time.sleep(event.get("sleep_s", 0))
    if event.get("crash"):
        os._exit(1)
    return {"result": 2 * event.get("value", 0)}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def session(emulator: Emulator, tmp_path: Path) -> Iterator[sebs.Session]:
    settings = {"endpoint": emulator.url, "token": emulator.token}
    cache, state, output = tmp_path / "cache", tmp_path / "state", tmp_path / "runs"
    with sebs.connect("skylark", settings=settings, cache_dir=cache, state_dir=state, output_dir=output) as session:
        yield session
        assert [removal for removal in session.cleanup() if removal.error] == []
        assert session.resources() == []


def test_a_whole_run_with_cold_starts(session: sebs.Session) -> None:
    benchmark = sebs.Benchmark.from_function(work)
    result = session.run(benchmark, payload={"value": 4}, start="cold", load=sebs.Closed(concurrency=2, repetitions=4))
    assert result.summary().cold_count == 4
    assert result.summary().errors == {}
    assert result.manifest.metrics_missing == 0
    request = result.invocations["request_id"].to_pylist()[0]
    assert session.logs(result.manifest.function, request) == "value 4\n"
    assert [holding.status for holding in session.resources()] == ["exists", "exists"]


def test_a_function_is_reused_until_something_differs(session: sebs.Session, emulator: Emulator) -> None:
    package = session.package(sebs.Benchmark.from_function(work))
    function = session.deploy(package)
    written = len([method for method, _, _ in emulator.calls if method != "GET"])
    assert session.deploy(package) == function
    assert len([method for method, _, _ in emulator.calls if method != "GET"]) == written
    assert session.deploy(package, memory_mb=512, secrets={"KEY": "a secret"}).config.memory_mb == 512
    assert session.invoke(function, {"value": 3}).output == {"result": 6}


def test_failures_are_told_apart(session: sebs.Session) -> None:
    function = session.deploy(session.package(sebs.Benchmark.from_function(work)), timeout_s=1)
    failing: list[dict[str, Any]] = [{"value": {}}, {"sleep_s": 3}, {"crash": True}]
    assert [session.invoke(function, event).error for event in failing] == ["function_error", "timeout", "crash"]
    assert session.invoke(function, {"value": 1}).error is None
