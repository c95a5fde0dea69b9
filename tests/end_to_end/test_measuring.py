"""The main job through the command line, and whether its numbers are physically possible."""

import json

import pytest

CONTRACT = (
    "run platform benchmark size language count failures cold_count outputs_ok client_us response_us handler_us init_us "
    "provider_us achieved_per_s send_lag_us client_saturated host_contended cost_usd errors"
).split()
FIGURES = {"p50", "p95", "p99", "mean", "min", "max"}

pytestmark = pytest.mark.usefixtures("packaged")


def rows_of(run):
    from sebs_core import Result

    table = Result.load(run).invocations
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_json_is_one_object_with_every_key_of_the_contract(sebs):
    done = sebs("benchmark", "invoke", "110.dynamic-html", "test", "--json")
    assert done.status == 0, done.err
    told = done.json
    assert set(CONTRACT) <= set(told)
    assert (told["count"], told["failures"], told["outputs_ok"], told["errors"]) == (5, 0, True, {})
    assert set(told["client_us"]) == {"all", "cold", "warm"}
    assert set(told["client_us"]["all"]) == FIGURES
    assert set(told["send_lag_us"]) == {"p50", "p99", "max"}
    assert (sebs.folder / told["run"] / "result.parquet").exists()


def test_twenty_enforced_cold_starts_are_cold_with_their_phases(sebs):
    told = sebs("benchmark", "invoke", "110.dynamic-html", "small", "--cold", "--repetitions", 20, "--json").json
    assert (told["count"], told["cold_count"], told["rejected"], told["failures"]) == (20, 20, 0, 0)
    assert told["client_us"]["warm"] is None
    assert told["cold_kinds"].keys() == {"enforced"}
    rows = rows_of(sebs.folder / told["run"])
    assert len({row["instance_id"] for row in rows}) == 20
    assert len({row["generation"] for row in rows}) == 20
    for row in rows:
        # process start → first line → import done → callable → answered: each inside the next
        assert 0 < row["import_us"] < row["init_us"]
        assert row["provider"]["runtime_us"] < row["init_us"]
        assert row["init_us"] <= row["provider"]["init_us"] + 1000
        assert row["provider"]["init_us"] < row["client_us"]
        assert row["handler_us"] <= row["provider"]["duration_us"] <= row["client_us"]


def test_warm_runs_are_warm_and_quicker_than_cold_ones(sebs):
    warm = sebs("benchmark", "invoke", "110.dynamic-html", "small", "--warm", "--repetitions", 20, "--json").json
    assert (warm["count"], warm["cold_count"]) == (20, 0)
    assert warm["client_us"]["cold"] is None
    assert warm["warmups"] >= 1
    assert warm["init_us"] is None or warm["init_us"]["warm"] is None
    cold = sebs("benchmark", "invoke", "110.dynamic-html", "small", "--cold", "--repetitions", 5, "--json").json
    assert warm["client_us"]["warm"]["p50"] < cold["client_us"]["cold"]["p50"] / 2


def test_concurrency_really_overlaps_in_as_many_instances(sebs):
    told = sebs(
        "benchmark", "invoke", "010.sleep", "test", "--warm", "--concurrency", 8, "--repetitions", 32, "--json"
    ).json  # fmt: skip
    assert (told["most_in_flight"], told["instances"], told["cold_count"]) == (8, 8, 0)
    assert told["achieved_per_s"] > 8 / 0.1 / 2
    rows = rows_of(sebs.folder / told["run"])
    assert sum(row["phase"] == "warmup" for row in rows) >= 8
    # In a closed loop the next is wanted when the last one has been answered: that is the plan, and it must stand in the rows.
    measured = [row for row in rows if row["phase"] == "measured"]
    ends = sorted(row["finished_ns"] for row in measured)
    starts = sorted(row["scheduled_ns"] for row in measured)
    assert all(abs(start - end) < 2_000_000 for start, end in zip(starts[8:16], ends[:8], strict=True))
    assert told["response_us"]["warm"]["p50"] < 130_000


@pytest.mark.parametrize("trigger", ["http", "library"])
def test_a_known_duration_is_measured(sebs, trigger):
    told = sebs("benchmark", "invoke", "010.sleep", "test", "--warm", "--repetitions", 5, "--trigger", trigger, "--json").json
    for quantity in ("handler_us", "provider_us", "client_us"):
        assert 100_000 <= told[quantity]["warm"]["min"]
        assert told[quantity]["warm"]["p50"] < 130_000
    assert told["handler_us"]["warm"]["p50"] <= told["provider_us"]["warm"]["p50"] <= told["client_us"]["warm"]["p50"]


def test_connections_are_reused_or_fresh_as_asked(sebs):
    for policy, new in (("reused", 1), ("fresh", 5)):
        told = sebs("benchmark", "invoke", "010.sleep", "test", "--connections", policy, "--json").json
        rows = rows_of(sebs.folder / told["run"])
        assert sum(row["connection"] == "new" for row in rows) == new
        assert all((row["tcp_us"] > 0) == (row["connection"] == "new") for row in rows)


def test_the_second_time_nothing_is_built(sebs):
    done = sebs("benchmark", "invoke", "110.dynamic-html", "test")
    assert "package  110.dynamic-html: reused" in done.err
    done = sebs("benchmark", "invoke", "110.dynamic-html", "test", "--rebuild")
    assert "package  110.dynamic-html: reused" not in done.err


def test_statistics_tells_the_same_figures_again(sebs):
    told = sebs("benchmark", "invoke", "110.dynamic-html", "test", "--json").json
    again = sebs("benchmark", "statistics", told["run"], "--json").json
    assert again == told


def test_sizes_really_differ(sebs):
    sizes = {}
    for size in ("test", "small", "large"):
        done = sebs("benchmark", "invoke", "110.dynamic-html", size, "--warm", "--repetitions", 9, "--json")
        assert done.status == 0, done.err
        rows = rows_of(sebs.folder / done.json["run"])
        # The least of nine: what the work itself takes, whatever else the machine is doing.
        # Time is compared only where sizes differ by far more: between test and small it is a fraction of a millisecond.
        sizes[size] = (rows[-1]["response_bytes"], done.json["handler_us"]["warm"]["min"])
    assert sizes["test"][0] * 10 < sizes["small"][0] < sizes["large"][0] / 10
    assert max(sizes["test"][1], sizes["small"][1]) * 2 < sizes["large"][1]


def test_a_payload_of_ones_own(sebs):
    (sebs.folder / "event.json").write_text(json.dumps({"username": "somebody", "random_len": 3}))
    done = sebs("benchmark", "invoke", "110.dynamic-html", "--payload", "event.json", "--keep-outputs", "--json")
    assert done.status == 0, done.err
    body = json.loads((sebs.folder / done.json["run"] / "bodies" / "4.json").read_text())
    assert "Welcome, somebody!" in body["result"]["result"]


def test_environment_file_and_command_line_in_their_order(sebs):
    (sebs.folder / "run.toml").write_text("repetitions = 3\nmemory = 256\nset = {keep_alive_s = 5}\n")
    told = sebs("benchmark", "invoke", "010.sleep", "test", "--config", "run.toml", "--json").json
    assert told["count"] == 3
    told = sebs("benchmark", "invoke", "010.sleep", "test", "--config", "run.toml", "--json", SEBS_REPETITIONS="2").json
    assert told["count"] == 2
    told = sebs(
        "benchmark", "invoke", "010.sleep", "test", "--config", "run.toml", "--json", "--repetitions", 1, SEBS_REPETITIONS="2"
    ).json  # fmt: skip
    assert told["count"] == 1
    manifest = json.loads((sebs.folder / told["run"] / "run.json").read_text())
    assert manifest["function"]["config"]["memory_mb"] == 256
    assert manifest["settings"]["keep_alive_s"] == 5


@pytest.mark.parametrize(
    ("said", "warmups", "cold"),
    [
        ({"SEBS_COLD": "false"}, 0, 1),
        ({"SEBS_COLD": "1"}, 0, 2),
        ({"SEBS_WARM": "1"}, 1, 0),
        ({"SEBS_COLD": "1", "option": "--warm"}, 1, 0),
    ],
    ids=str,
)
def test_cold_and_warm_as_environment_variables(sebs, said, warmups, cold):
    options = [said["option"]] if "option" in said else []
    environment = {key: value for key, value in said.items() if key != "option"}
    told = sebs("benchmark", "invoke", "010.sleep", "test", "--repetitions", 2, "--json", *options, **environment).json
    assert (told["warmups"], told["cold_count"]) == (warmups, cold)


def test_a_benchmark_and_folders_with_unusual_names(sebs):
    sebs.benchmark("def handler(event): return {}\n", name="bänch 中文 " + "x" * 60)
    done = sebs("benchmark", "invoke", "./bänch 中文 " + "x" * 60, "test", "--output-dir", "läufe '1'", "--json")
    assert (done.status, done.json["count"]) == (0, 5), done.err


def test_slow_functions_keep_their_clients_busy(sebs):
    """Rows are written about once a second; calls that take as long must not be made to wait for each other."""
    sebs.benchmark("import time\ndef handler(event):\n    time.sleep(0.4)\n    return {}\n")
    told = sebs("benchmark", "invoke", "./900.mine", "test", "--warm", "--concurrency", 4, "--repetitions", 24, "--json").json
    assert told["achieved_per_s"] > 0.85 * 4 / 0.4


def test_the_key_that_sebs_reserves_is_refused_in_a_payload(sebs):
    (sebs.folder / "event.json").write_text('{"__sebs__": {"hold_ms": 1}}')
    done = sebs("benchmark", "invoke", "010.sleep", "--payload", "event.json")
    assert done.status == 2
    assert "__sebs__" in done.err
