"""The gateway's numbers: what they say of work whose cost is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sebs_core.errors import MetricsError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not tell of other processes")

WORK = """
    import time
    kept = []
    def handler(event):
        if event == "sleep":
            time.sleep(0.05)
        if event == "spin":
            end = time.process_time() + 0.05
            while time.process_time() < end:
                pass
        if event == "allocate":
            kept.append(b"x" * (50 << 20))
"""


def test_a_sleep_takes_time_and_no_processor(local):
    function = local.deploy(WORK)
    local.call(function)
    (numbers,) = local.numbers(function, local.call(function, "sleep"))
    assert 50_000 <= numbers["duration_us"] < 80_000
    if sys.platform.startswith("linux"):
        assert numbers["cpu_us"] < 10_000


@linux
def test_a_spin_takes_processor_time(local):
    function = local.deploy(WORK)
    local.call(function)
    (numbers,) = local.numbers(function, local.call(function, "spin"))
    assert 50_000 <= numbers["cpu_us"] < 65_000
    assert numbers["cpu_us"] <= numbers["duration_us"] + 1000


@linux
def test_memory_is_the_instances_peak(local):
    function = local.deploy(WORK)
    before, after, later = local.numbers(function, *[local.call(function, event) for event in ("", "allocate", "")])
    assert 1 < before["memory_mb"] < 50
    assert 50 <= after["memory_mb"] - before["memory_mb"] < 60
    assert later["memory_mb"] >= after["memory_mb"]


def test_a_cold_start_has_phases_in_order_and_a_warm_call_has_none(local):
    function = local.deploy("import time\ntime.sleep(0.05)\ndef handler(event): return 1")
    answers = [local.call(function), local.call(function)]
    cold, warm = local.numbers(function, *answers)
    assert 0 < cold["spawn_us"] < cold["init_us"]
    assert 0 < cold["runtime_us"] < cold["init_us"] - 50_000
    assert answers[0].fields.init_us <= cold["init_us"] < answers[0].fields.init_us + 50_000
    assert {warm[column] for column in ("spawn_us", "runtime_us", "init_us")} == {None}
    assert 0 <= warm["queue_us"] < 10_000
    assert warm["duration_us"] >= answers[1].fields.handler_us


def test_a_failed_call_has_the_numbers_that_are_known(start):
    local = start(init_timeout_s=0.3)
    stuck = local.deploy("import time\ntime.sleep(9)", name="stuck")
    (numbers,) = local.numbers(stuck, local.call(stuck))
    assert numbers["spawn_us"] > 0
    assert (numbers["init_us"], numbers["duration_us"]) == (None, None)
    crashing = local.deploy("import os\ndef handler(event): os._exit(1)", name="crashing")
    (numbers,) = local.numbers(crashing, local.call(crashing))
    assert numbers["init_us"] > 0
    assert numbers["duration_us"] > 0


def test_unknown_requests_are_listed_as_missing_and_sources_are_said(local):
    from datetime import datetime, timezone

    window = (datetime.now(timezone.utc),) * 2
    function = local.deploy(WORK)
    assert local.platform.sebs_collect_metrics(function, ["a", "b"], window).missing == ("a", "b")
    known = local.call(function).fields.request_id
    metrics = local.platform.sebs_collect_metrics(function, ["a", known], window)
    assert metrics.missing == ("a",)
    assert list(metrics.values) == [known]
    assert set(metrics.sources.values()) == {"measured"}
    assert {"queue_us", "init_us", "duration_us"} <= set(metrics.sources)


def test_after_the_session_there_are_no_numbers(start):
    from datetime import datetime, timezone

    local = start()
    function = local.deploy(WORK)
    request = local.call(function).fields.request_id
    local.close()
    with pytest.raises(MetricsError, match="before it closes"):
        local.platform.sebs_collect_metrics(function, [request], (datetime.now(timezone.utc),) * 2)


@linux
def test_a_full_disk_stops_the_numbers_and_not_the_serving(local):
    function = local.deploy(WORK)
    numbers = Path(local.platform.gateway.folder) / "numbers" / "test.jsonl"
    numbers.symlink_to("/dev/full")
    answer = local.call(function)
    assert answer.status == 200
    with pytest.raises(MetricsError, match="No space left"):
        local.numbers(function, answer)
    assert local.call(function).status == 200
