"""The fake platform: it passes the conformance kit, and does what its provider is told."""

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from watching import run

import sebs_core as sebs
from sebs_core.models import Resource
from sebs_core.plugins import Plugins
from sebs_core.testing import FakePlatform, FakeProvider, PlatformConformance


@pytest.fixture
def provider():
    with FakeProvider() as made:
        yield made


class TestFake(PlatformConformance):
    platform = "fake"

    def settings_for(self, endpoint):
        return {"token": "the-token-of-the-fake"}

    def other_settings_for(self, endpoint):
        return {"account": "other"}

    @pytest.fixture
    def plugins(self, provider):
        return provider.plugins()


# --- what it is told ------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugins(provider):
    return provider.plugins()


@pytest.fixture
def open_session(open_session):
    """Sessions on the fake."""
    return lambda **more: open_session("fake", **more)


@pytest.fixture
def session(open_session):
    return open_session()


@pytest.fixture
def function(session, echo):
    return session.deploy(session.package(echo))


def seconds(work):
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def test_it_is_offered_beside_what_is_installed(provider, session):
    assert isinstance(provider.plugins(), Plugins)
    assert {"fake", "local"} <= {info.name for info in provider.plugins().platforms()}
    assert session.stages.provenance()["sebs_deploy"]["implemented_by"][0].endswith("(fake)")
    assert [type(stages) for stages in [provider.info().create(session.settings, session.context)]] == [FakePlatform]


def test_everything_that_it_was_asked_is_written_down_in_order(provider, open_session, echo):
    with open_session() as session:
        name = run(session, echo).manifest.function.name
    assert [call for call in provider.calls if call.split()[0] in ("open", "deploy", "invoke", "close")] == [
        "open",
        f"deploy {name}",
        f"invoke {name}",
        "close",
    ]
    assert (provider.count("invoke"), provider.count("remove")) == (1, 0)


def test_deployments_cold_starts_and_invocations_take_as_long_as_it_is_told(provider, session, echo):
    package = session.package(echo)
    provider.delays = {"deploy": 0.3, "cold_start": 0.2, "invoke": 0.1}
    assert seconds(lambda: session.deploy(package)) >= 0.3
    function = session.deploy(package)
    for trigger in ("http", "library"):
        provider.functions[f"main/{function.name}"].renew()
        cold, warm = (session.invoke(function, {}, trigger=trigger) for _ in range(2))
        assert cold.client_us >= 300_000
        assert 100_000 <= warm.client_us < cold.client_us
        assert (cold.cold, warm.cold) == (True, False)


@pytest.mark.parametrize("after", [False, True])
def test_a_stage_fails_at_the_call_that_was_chosen_before_or_after_its_effect(provider, session, echo, after):
    package = session.package(echo)
    provider.fail("deploy", sebs.DeployError("the quota is used up"), call=2, times=2, after=after)
    session.deploy(package)
    for number in (256, 512):
        with pytest.raises(sebs.DeployError, match="the quota is used up"):
            session.deploy(package, memory_mb=number)
    (there,) = provider.functions.values()
    assert (there.config.memory_mb, there.serial) == ((512, 3) if after else (128, 1))
    assert session.deploy(package, memory_mb=1024).serial == (4 if after else 2)


def test_faults_of_one_thing_leave_the_others_alone_and_each_counts_for_itself(provider, session):
    tables = [Resource(kind="table", name=name, platform="fake") for name in "abc"]
    provider.put(*tables)
    provider.fail("remove", RuntimeError("the second"), call=2)
    provider.fail("remove table/a", RuntimeError("that one"))
    assert [removal.error for removal in session.cleanup()] == ["RuntimeError('that one')", "RuntimeError('the second')", None]
    assert [removal.error for removal in session.cleanup()] == [None, None]
    assert provider.removed == ["table/c", "table/a", "table/b"]


def test_an_invocation_that_fails_breaks_its_connection(provider, session, function):
    provider.fail("invoke", sebs.InvokeError("the cable is cut"))
    assert session.invoke(function, {}).error == "reset"
    assert session.invoke(function, {}).error is None
    provider.fail("invoke", sebs.InvokeError("the cable is cut"))
    with pytest.raises(sebs.InvokeError, match="the cable is cut"):
        session.invoke(function, {}, trigger="library")


@pytest.mark.parametrize("trigger", ["http", "library"])
def test_more_invocations_at_once_than_it_serves_are_throttled(provider, session, write_benchmark, trigger):
    slow = write_benchmark("slow", code="import time\ndef handler(event):\n    time.sleep(0.5)\n    return {'result': 1}")
    provider.concurrency = 2
    rows = run(session, slow, load=sebs.Closed(concurrency=4, repetitions=4), trigger=trigger).invocations
    assert sorted(map(str, rows["error"].to_pylist())) == ["None", "None", "throttled", "throttled"]
    assert sorted(rows["status"].to_pylist()) == [200, 200, 429, 429]
    assert len(provider.served) == 2


def test_metrics_come_as_late_as_it_is_told(provider, session, echo):
    def missing(result):
        result.collect_metrics()
        return result.manifest.metrics_missing

    provider.late_collections = 2
    result = run(session, echo, load=sebs.Closed(repetitions=3))
    assert [result.manifest.metrics_missing, missing(result), missing(result)] == [3, 3, 0]
    provider.late_collections, provider.late_s = 0, 1
    result = run(session, echo, load=sebs.Closed(repetitions=3))
    assert result.manifest.metrics_missing == 3
    time.sleep(1.05)
    assert missing(result) == 0


def test_a_cold_start_that_does_not_happen_is_found_out(provider, session, echo):
    run(session, echo)
    provider.warm_anyway = 1
    told = run(session, echo, start="cold", load=sebs.Closed(repetitions=2)).summary()
    assert (told.count, told.cold_count, told.rejected) == (2, 2, 1)


def test_instances_of_before_a_cold_start_finish_what_they_do(provider, session, write_benchmark):
    slow = write_benchmark("slow", code="import time\ndef handler(event):\n    time.sleep(0.4)\n    return {'result': 1}")
    function = session.deploy(session.package(slow))
    key = f"main/{function.name}"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(provider.invoke, key, b"{}")
        time.sleep(0.2)
        generation = provider.functions[key].renew()
        assert running.result()[0] == 200
    renewed = session.invoke(function.model_copy(update={"generation": generation}), {}, trigger="library")
    assert (renewed.instance_sequence, renewed.error) == (0, None)


# --- what it knows --------------------------------------------------------------------------------------------------------


def test_a_role_is_made_for_functions_and_stays_as_long_as_they_need_it(provider, session, function):
    role = f"role/sebs-{session.resources_id}-role"
    assert {holding.resource.key: holding.status for holding in session.resources()} == {
        role: "exists",
        f"function/{function.name}": "exists",
    }
    (listed,) = [resource for resource in session.listed() if resource.kind == "role"]
    with pytest.raises(sebs.DeployError, match=f"{role} is still needed by function/{function.name}: remove that first"):
        session.stages.call("sebs_remove", resource=listed)
    session.cleanup()
    assert provider.removed == [f"function/{function.name}", role]


def test_what_somebody_else_deployed_is_told_as_it_is(provider, open_session, echo, tmp_path):
    mine, other = (open_session(state_dir=tmp_path / who, cache_dir=tmp_path / who) for who in ("mine", "other"))
    first = mine.deploy(mine.package(echo), function_name="shared", secrets={"KEY": "a long secret"})
    second = other.deploy(other.package(echo), function_name="shared", memory_mb=256, secrets={"KEY": "another long secret"})
    seen = mine.stages.call("sebs_refresh", function=first)
    assert (seen.config.memory_mb, seen.serial, first.serial, second.serial) == (256, 2, 1, 2)
    assert seen.secrets_hash not in (first.secrets_hash, second.secrets_hash, None)
    other.stages.call("sebs_remove", resource=Resource(kind="function", name="shared", platform="fake"))
    with pytest.raises(sebs.FunctionGoneError, match="shared is not there any more"):
        mine.stages.call("sebs_refresh", function=first)
    assert mine.deploy(mine.package(echo), function_name="shared").serial == 3, "not taken for the first one"


def test_crashes_and_time_outs_are_told_apart_with_what_was_printed(provider, session, write_benchmark):
    code = """
        import os, time
        def handler(event):
            print("about to", event, flush=True)
            os._exit(7) if event == "crash" else time.sleep(5)
        """
    function = session.deploy(session.package(write_benchmark("ends", code=code)), timeout_s=0.5)
    for trigger in ("http", "library"):
        for event in ("crash", "timeout"):
            ended = session.invoke(function, event, trigger=trigger)
            assert ended.error == event
            assert ("with 7" if event == "crash" else "with -9") in ended.error_detail
            assert session.logs(function, ended.request_id) == f"about to {event}\n"


def test_eight_threads_may_deploy_invoke_and_remove_at_once(provider, open_session, echo, tmp_path):
    def work(number):
        with open_session(resources_id=f"user-{number}", state_dir=tmp_path / str(number)) as session:
            function = session.deploy(session.package(echo))
            told = [session.invoke(function, {"value": n}, trigger=("http", "library")[n % 2]) for n in range(6)]
            removed = session.cleanup()
            return [one.output["result"] for one in told], {removal.error for removal in removed}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [(list(range(6)), {None})] * 8
    assert (provider.functions, provider.others, provider.count("deploy")) == ({}, {}, 8)


def test_a_package_that_is_no_zip_any_more_is_an_error_with_a_name(session, echo):
    package = session.package(echo)
    broken = package.model_copy(update={"path": echo / "config.json"})
    with pytest.raises(sebs.DeployError, match=r"the package of .* cannot be read: .*\. Package it again"):
        session.deploy(broken)


def test_nothing_is_left_when_it_is_closed(echo, open_session, provider):
    session = open_session()
    run(session, echo, load=sebs.Closed(concurrency=3, repetitions=6))
    (function,) = provider.functions.values()
    processes = [instance.process for instance in function._all]
    assert processes
    provider.close()
    assert None not in [process.poll() for process in processes]
    assert not provider.folder.exists()
    assert multiprocessing.active_children() == []
