"""A whole run: cold and warm are what was asked for, and whatever happens the directory is complete."""

import json
import os
import signal
import threading
import time

import pytest
from arro3.io import read_ipc
from double_platform import FakeEntryPoint, plugin_of

import sebs_core as sebs
from sebs_core import hookimpl
from sebs_core.plugins import Plugins


def column(result, name):
    return result.invocations[name].to_pylist()


def run(session, benchmark, *, repetitions=4, concurrency=1, **more):
    load = sebs.Closed(concurrency=concurrency, repetitions=repetitions)
    return session.run(benchmark, **{"payload": {"value": 1}, "load": load, **more})


# --- as it comes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", ["http", "library"])
def test_exactly_the_repetitions_are_measured_over_either_trigger(session, echo, world, trigger):
    result = run(session, echo, repetitions=9, concurrency=3, trigger=trigger)
    told = result.summary()
    assert (told.count, told.failures, told.outputs_ok) == (9, 0, True)
    assert len(world.served) == 9
    assert column(result, "index") == list(range(9))
    assert len(set(column(result, "request_id"))) == 9
    assert result.manifest.engine[0].sent == 9
    assert ("threads" in result.manifest.engine[0].engine) == (trigger == "library")


def test_a_platform_that_can_only_be_called_is_measured_over_threads(world, open_session, echo):
    plugins = Plugins([FakeEntryPoint("double", plugin_of(world, triggers=["library"]))])
    session = open_session(plugins=plugins)
    result = run(session, echo, trigger="library", repetitions=8, concurrency=4)
    told = result.summary()
    assert (told.count, told.failures) == (8, 0)
    assert told.most_in_flight > 1
    assert told.handler_us.all.p50 > 0
    assert set(column(result, "connection")) == {None}
    with pytest.raises(sebs.ConfigError, match="double has no trigger 'http'"):
        run(session, echo)


def test_the_status_that_the_platform_told_stands_in_the_row(session, echo):
    assert set(column(run(session, echo, trigger="library"), "status")) == {200}


@pytest.mark.parametrize("trigger", ["http", "library"])
def test_clients_really_overlap(session, write_benchmark, trigger):
    slow = write_benchmark("slow", code="import time\ndef handler(event):\n    time.sleep(0.1)\n    return {'result': 1}")
    begin = time.monotonic()
    result = run(session, slow, repetitions=8, concurrency=4, trigger=trigger)
    told = result.summary()
    assert told.most_in_flight == 4
    assert told.instances == 4
    assert time.monotonic() - begin < 5
    handler_us, client_us = column(result, "handler_us"), column(result, "client_us")
    assert all(100_000 <= own <= whole for own, whole in zip(handler_us, client_us, strict=True))


def test_failing_functions_are_rows_with_their_errors_and_the_run_is_complete(session, echo):
    result = run(session, echo, payload={"fail": "no such thing"}, repetitions=3)
    told = result.summary()
    assert (told.failures, told.errors, told.outputs_ok) == (3, {"function_error": 3}, None)
    assert result.manifest.state == "complete"
    assert set(column(result, "error_detail")) == {"ValueError: no such thing"}
    assert result.body(0)["error"]["trace"]


CRASHES = {
    "exits": ("import sys\ndef handler(event): sys.exit(3)", "crash"),
    "hangs": ("import time\ndef handler(event): time.sleep(30)", "timeout"),
    "cannot be imported": ("import not_there_at_all\ndef handler(event): return 1", "init_error"),
    "returns no JSON": ("def handler(event): return {1, 2}", "bad_response"),
}


@pytest.mark.parametrize("kind", CRASHES)
def test_a_function_that_goes_wrong_is_rows_of_the_right_kind(session, write_benchmark, kind):
    code, error = CRASHES[kind]
    folder = write_benchmark("wrong", code=code, inputs="def generate_input(size): return 1")
    result = run(session, folder, repetitions=2, timeout_s=0.4)
    assert column(result, "error") == [error] * 2
    assert result.manifest.state == "complete"


def test_a_function_that_prints_megabytes_and_returns_ten_is_measured(session, write_benchmark):
    code = "def handler(event):\n    print('x' * 3_000_000)\n    return {'result': 'y' * 10_000_000}"
    result = run(session, write_benchmark("big", code=code, inputs="def generate_input(size): return 1"), repetitions=2)
    assert column(result, "error") == [None, None]
    assert min(column(result, "response_bytes")) > 10_000_000


def test_a_function_whose_error_is_no_unicode_is_a_row(session, write_benchmark):
    folder = write_benchmark("strange", code="def handler(event): raise ValueError('\\ud800')")
    assert column(run(session, folder, repetitions=1), "error") == ["function_error"]


def test_a_function_that_measures_a_huge_number_is_a_row(session, write_benchmark):
    code = "def handler(event): return {'result': 1, 'measurement': {'own': 2 ** 70}}"
    assert column(run(session, write_benchmark("huge", code=code), repetitions=1), "error") == [None]


def test_answers_of_the_front_end_are_rows_too(session, echo, world):
    world.answers = [(429, b"slow down"), (500, b""), (200, b"<html>")]
    result = run(session, echo, repetitions=4)
    assert column(result, "error") == ["throttled", "function_error", "bad_response", None]
    assert column(result, "status") == [429, 500, 200, 200]


def test_wrong_outputs_are_told_and_checking_can_be_left_out(session, write_benchmark):
    wrong = write_benchmark("wrong", code="def handler(event): return {'result': 'nonsense'}")
    result = run(session, wrong, payload=..., size="test")
    assert result.summary().outputs_ok is False
    assert result.summary().failures == 0
    assert set(column(result, "output_problem")) == {"not the value that was sent"}
    assert run(session, wrong, payload=..., size="test", check_outputs=False).summary().outputs_ok is None


def test_fresh_connections_are_used_when_asked_for(session, echo):
    assert column(run(session, echo, connections="fresh"), "connection") == ["new"] * 4
    assert column(run(session, echo), "connection") == ["new", "reused", "reused", "reused"]


def test_what_the_benchmark_and_the_platform_measured_stands_in_typed_columns(session, echo, world):
    world.numbers = {"memory_mb": 20, "zone": "z1", "share": 0.5}
    result = run(session, echo, repetitions=2)
    measurement, provider = column(result, "measurement"), column(result, "provider")
    assert [(value["compute_us"], value["own"]) for value in measurement] == [(7, "text")] * 2
    assert all(value["duration_us"] > 0 for value in provider)
    assert [(value["memory_mb"], value["zone"], value["share"]) for value in provider] == [(20, "z1", 0.5)] * 2


# --- cold -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("repetitions", "concurrency"), [(3, 1), (5, 2)])
@pytest.mark.parametrize("trigger", ["http", "library"])
def test_a_cold_run_has_cold_rows_only_each_with_an_instance_of_its_own(
    session, echo, world, repetitions, concurrency, trigger
):
    run(session, echo, repetitions=1)  # an instance is warm
    result = run(session, echo, start="cold", repetitions=repetitions, concurrency=concurrency, trigger=trigger)
    told = result.summary()
    assert (told.count, told.cold_count, told.rejected, told.failures) == (repetitions, repetitions, 0, 0)
    assert set(column(result, "cold")) == {True}
    assert len(set(column(result, "instance_id"))) == repetitions
    assert world.count("enforce_cold_start") == -(-repetitions // concurrency)
    assert told.client_us.warm is None
    assert told.init_us.cold.p50 > 0
    assert told.achieved_per_s is None


def test_a_row_that_came_warm_is_rejected_kept_and_replaced(session, echo, world):
    run(session, echo, repetitions=1)
    world.warm_anyway = 2
    result = run(session, echo, start="cold", repetitions=2)
    told = result.summary()
    assert (told.count, told.cold_count, told.rejected) == (2, 2, 2)
    assert column(result, "phase") == ["rejected", "rejected", "measured", "measured"]
    assert column(result, "index") == [0, 1, 2, 3]
    assert told.client_us.all == told.client_us.cold


def test_after_three_replacements_the_row_is_missing_and_a_note_says_so(session, echo, world):
    run(session, echo, repetitions=1)
    world.warm_anyway = 10**6
    result = run(session, echo, start="cold", repetitions=2)
    told = result.summary()
    assert (told.count, told.rejected) == (0, 2 * 4)
    assert world.count("enforce_cold_start") == 2 * 4
    assert any("2 invocations met a warm instance" in note for note in told.notes)


def test_failures_of_a_cold_run_are_measured_and_not_tried_again(session, echo):
    result = run(session, echo, start="cold", repetitions=3, payload={"fail": "x"})
    told = result.summary()
    assert (told.count, told.failures, told.rejected) == (3, 3, 0)


# --- warm -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_warm_run_has_no_cold_row_and_keeps_the_warm_up_apart(session, echo, concurrency):
    result = run(session, echo, start="warm", repetitions=12, concurrency=concurrency)
    told = result.summary()
    assert (told.count, told.cold_count) == (12, 0)
    assert told.warmups >= concurrency
    phases = column(result, "phase")
    assert phases == ["warmup"] * told.warmups + ["measured"] * 12
    assert True in [cold for cold, phase in zip(column(result, "cold"), phases, strict=True) if phase == "warmup"]
    assert told.client_us.cold is None
    assert told.outputs_ok is True


def test_a_warm_up_goes_on_until_as_many_instances_answered_as_there_are_clients(session, write_benchmark):
    code = "import time\ndef handler(event):\n    return {'result': event.get('value')}"
    result = run(session, write_benchmark("quick", code=code), start="warm", repetitions=20, concurrency=4)
    phases, instances = column(result, "phase"), column(result, "instance_id")
    assert len({name for name, phase in zip(instances, phases, strict=True) if phase == "warmup"}) >= 4
    assert result.summary().cold_count == 0


def test_calls_of_the_warm_up_are_held_longer_and_longer_and_those_of_the_load_are_not(session, echo, world, monkeypatch):
    """Otherwise a quick instance answers twice before a second one has started."""
    monkeypatch.setattr("sebs_core.run.WARM_ROUNDS", 2)
    lock, events, begin = threading.Lock(), [], world.invoke

    def one_at_a_time(name, event):
        events.append(json.loads(event))
        with lock:
            return begin(name, event)

    world.invoke = one_at_a_time
    run(session, echo, start="warm", repetitions=4, concurrency=2)
    assert [event.pop("__sebs__", {}).get("hold_ms") for event in events] == [50, 50, 100, 100, None, None, None, None]
    assert events == [{"value": 1}] * 8


def test_a_warm_up_that_cannot_reach_enough_instances_says_so(session, echo, world, monkeypatch):
    monkeypatch.setattr("sebs_core.run.WARM_ROUNDS", 2)
    lock = threading.Lock()
    alone = world.invoke

    def one_at_a_time(name, event):
        with lock:
            return alone(name, event)

    world.invoke = one_at_a_time
    result = run(session, echo, start="warm", repetitions=4, concurrency=2)
    assert any("the warm-up reached 1 of 2 instances at once" in note for note in result.summary().notes)


# --- metrics --------------------------------------------------------------------------------------------------------------


def test_metrics_are_collected_now_later_or_never(session, echo, world):
    world.numbers = {"memory_mb": 20}
    later = run(session, echo, metrics="later")
    assert world.count("collect_metrics") == 0
    assert later.summary().provider_us is None
    assert later.manifest.metrics_missing is None
    later.collect_metrics()
    assert later.summary().provider_us.all.p50 > 0
    assert later.manifest.metrics_missing == 0
    assert later.manifest.provider_sources == {"duration_us": "measured", "memory_mb": "derived"}
    assert run(session, echo, metrics="none").summary().provider_us is None


def test_missing_metrics_are_counted_and_filled_by_a_later_collection(session, echo, world):
    result = run(session, echo, repetitions=4, metrics="later")
    for request in column(result, "request_id")[1::2]:
        world.served[request].late = 1
    result.collect_metrics()
    assert result.manifest.metrics_missing == 2
    assert [value["duration_us"] is None for value in column(result, "provider")] == [False, True, False, True]
    assert any("2 invocations" in note for note in result.summary().notes)
    result.collect_metrics()
    assert result.manifest.metrics_missing == 0
    assert None not in [value["duration_us"] for value in column(result, "provider")]
    assert len(list((result.directory / "metrics").iterdir())) == 2


class TellingOfAnother:
    """Around a platform that tells numbers of a request for which nobody asked."""

    @hookimpl(wrapper=True)
    def sebs_collect_metrics(self):
        told = yield
        return told.model_copy(update={"values": {**told.values, "somebody-else": {"duration_us": 1}}})


@pytest.mark.parametrize("note", ["does not keep its numbers that long", "1 requests that are not of"])
def test_metrics_that_cannot_be_had_do_not_spoil_the_run(session, echo, world, note):
    if "keep" in note:
        world.fail("collect_metrics", sebs.MetricsError(f"it {note}"), times=2)
    else:
        session.stages.add(TellingOfAnother(), "a platform that tells too much")
    result = run(session, echo)
    assert result.manifest.state == "complete"
    assert result.summary().provider_us is None
    assert any("no metrics of the platform" in said and note in said for said in result.summary().notes)
    with pytest.raises(sebs.MetricsError, match=note):
        result.collect_metrics()


def test_metrics_of_another_platforms_run_are_refused(world, open_session, echo):
    plugins = Plugins([FakeEntryPoint("one", plugin_of(world, "one")), FakeEntryPoint("two", plugin_of(world, "two"))])
    result = run(open_session("one", plugins=plugins), echo)
    with pytest.raises(sebs.MetricsError, match="was made on one, this session is on two"):
        open_session("two", plugins=plugins).collect_metrics(result)


# --- the manifest ---------------------------------------------------------------------------------------------------------


def test_the_manifest_tells_all_that_a_reader_needs(open_session, echo):
    session = open_session(flavour="sour")
    result = run(session, echo, payload=..., size="small", start="warm", concurrency=2)
    manifest = json.loads((result.directory / "run.json").read_text())
    assert (manifest["state"], manifest["failure"], manifest["size"], manifest["start"]) == ("complete", None, "small", "warm")
    assert manifest["settings"] == {"account": "main", "flavour": "sour", "workers": 1, "token": None}
    assert manifest["plan"]["load"] == {"kind": "closed", "repetitions": 4, "concurrency": 2}
    assert manifest["package"]["digest"] == manifest["function"]["package_digest"]
    assert manifest["function"]["serial"] == 1
    assert manifest["stages"]["sebs_deploy"]["implemented_by"] == ["sebs-double 1.0 (double)"]
    assert manifest["versions"]["sebs-double"] == "1.0"
    assert {"sebs-core", "python", "pycurl", "pydantic"} <= set(manifest["versions"])
    assert manifest["machine"]["cpus"] >= 1
    (begin_ns, begin_wall), (end_ns, end_wall) = manifest["clocks"]
    assert 0 <= begin_ns < end_ns
    assert abs((end_wall - begin_wall) - (end_ns - begin_ns)) < 50_000_000
    assert sum(report["sent"] for report in manifest["engine"]) == len(result)


def test_the_same_payload_has_the_same_input_digest(session, echo):
    digests = {run(session, echo, repetitions=1, payload={"value": value}).manifest.input_digest for value in (1, 1, 2)}
    assert len(digests) == 2


def test_runs_of_one_second_have_directories_of_their_own(session, echo):
    assert len({run(session, echo, repetitions=1).directory for _ in range(3)}) == 3


def test_observers_are_told_in_order(open_session, echo):
    told = []

    class Watching:
        @hookimpl
        def sebs_event(self, event):
            told.append(event)

    result = run(open_session(observers=[Watching()]), echo)
    names = [f"{type(event).__name__} {getattr(event, 'stage', '')}".strip() for event in told]
    stages = [name for name in names if name.startswith("Stage")]
    assert stages == [
        f"Stage{what} {stage}" for stage in ("package", "deploy", "load", "metrics") for what in ("Started", "Finished")
    ]  # fmt: skip
    progress = [event for event in told if isinstance(event, sebs.LoadProgress)]
    assert (progress[-1].done, progress[-1].total, progress[-1].failures) == (4, 4, 0)
    assert told[-1] == sebs.RunFinished(str(result.directory))


# --- what ends a run early ------------------------------------------------------------------------------------------------


@pytest.fixture
def endless(write_benchmark):
    return write_benchmark("endless", code="import time\ndef handler(event):\n    time.sleep(0.01)\n    return {'result': 1}")


def interrupted(session, benchmark, world, how, **more):
    """Run it, interrupt it after some answers, and open what is left."""
    answered = []

    def count():
        answered.append(1)
        if len(answered) == 10:
            how()

    world.on_answer = count
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(session, benchmark, repetitions=2000, **more)
    assert time.monotonic() - begin < 10
    (directory,) = session.output.iterdir()
    return sebs.Result.load(directory)


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("trigger", "start"), [("http", "any"), ("http", "cold"), ("http", "warm"), ("library", "any")])
def test_ctrl_c_leaves_a_valid_partial_result(session, endless, world, trigger, start):
    result = interrupted(session, endless, world, ctrl_c, trigger=trigger, start=start, concurrency=2)
    assert result.manifest.state == "interrupted"
    assert "interrupted" in result.manifest.failure
    told = result.summary()
    assert 1 <= len(result) < 2000
    assert (told.failures, told.errors) == (0, {})
    assert any("interrupted" in note for note in told.notes)
    assert (result.directory / "result.parquet").is_file()
    assert len(column(result, "index")) == len(set(column(result, "index")))


def test_ctrl_c_while_a_callback_of_libcurl_runs_is_not_swallowed(session, endless, world, monkeypatch):
    from sebs_core.engine import closed

    take, calls = closed._Client._take, []

    def interrupted_take(self, chunk):
        calls.append(1)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return take(self, chunk)

    monkeypatch.setattr(closed._Client, "_take", interrupted_take)
    with pytest.raises(KeyboardInterrupt):
        run(session, endless, repetitions=2000)
    (directory,) = session.output.iterdir()
    result = sebs.Result.load(directory)
    assert result.manifest.state == "interrupted"
    assert result.summary().errors == {}
    assert len(result) < 20


def test_a_session_can_go_on_after_an_interrupted_run(session, endless, world, echo):
    interrupted(session, endless, world, ctrl_c)
    world.on_answer = None
    assert run(session, echo).summary().failures == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_defect_of_the_platform_in_mid_run_leaves_a_failed_run_with_its_rows(session, echo, world):
    calls = []

    def break_down():
        calls.append(1)
        if len(calls) == 2:
            world.fail("enforce_cold_start", TypeError("broken"))

    world.on_answer = break_down
    with pytest.raises(TypeError):
        run(session, echo, start="cold", repetitions=5)
    (directory,) = session.output.iterdir()
    result = sebs.Result.load(directory)
    assert result.manifest.state == "failed"
    assert "TypeError" in result.manifest.failure
    assert len(result) == 2


def test_rows_of_a_run_that_was_killed_can_be_read(session, endless, world, tmp_path):
    """As after kill -9: the manifest still says that it runs."""
    result = run(session, endless, repetitions=3)
    manifest = json.loads((result.directory / "run.json").read_text())
    (result.directory / "run.json").write_text(json.dumps({**manifest, "state": "running", "engine": [], "clocks": []}))
    (result.directory / "result.parquet").unlink()
    left = sebs.Result.load(result.directory)
    assert left.manifest.state == "running"
    assert left.summary().count == 3


def test_a_full_disk_ends_the_run_with_a_storage_error_and_keeps_what_was_written(session, endless, monkeypatch):
    from sebs_core import rundir

    write, written = rundir.write_atomically, []

    def write_twice(path, content):
        if path.suffix == ".arrow":
            if len(written) == 2:
                raise OSError(28, "No space left on device")
            written.append(path)
        write(path, content)

    monkeypatch.setattr(rundir, "write_atomically", write_twice)
    monkeypatch.setattr(rundir, "FLUSH_SECONDS", 0.05)
    with pytest.raises(sebs.StorageError, match="No space left"):
        run(session, endless, repetitions=200)
    (directory,) = session.output.iterdir()
    result = sebs.Result.load(directory)
    assert result.manifest.state == "failed"
    assert len(result) == sum(read_ipc(path).read_all().num_rows for path in written) > 0
