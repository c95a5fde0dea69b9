"""Functions: reused as they are, brought up to date with the reason, or made."""

import os
import threading
import time

import pytest
from double_platform import PYTHON, FakeEntryPoint, plugin_of
from watching import Watching, run

import sebs_core as sebs
from sebs_core import hookimpl
from sebs_core.plugins import Plugins


def test_a_function_that_did_not_change_is_not_deployed_again(open_session, echo, world):
    observer = Watching()
    for _ in range(3):
        run(open_session(observers=[observer]), echo)
    assert world.count("deploy") == 1
    assert world.count("refresh") == 2
    assert [event.reused for event in observer.finished("deploy")] == [False, True, True]
    assert observer.finished("deploy")[0].reason == "it is not known to be deployed"


def gone(session, world, echo):
    world.fail("refresh", sebs.FunctionGoneError("somebody removed it in the console"), times=2)
    return {}


def code(session, world, echo):
    (echo / "python" / "function.py").write_text("def handler(event): return {'result': 1}")
    return {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (gone, "somebody removed it in the console"),
        (code, "its code differs"),
        ({"memory_mb": 256}, "its configuration differs: memory_mb"),
        ({"timeout_s": 9}, "its configuration differs: timeout_s"),
        ({"environment": {"SEEN": "1"}}, "its configuration differs: environment"),
        ({"memory_mb": 256, "environment": {"SEEN": "1"}}, "its configuration differs: memory_mb, environment"),
        ({"secrets": {"KEY": "s"}}, "its secrets differ"),
    ],
    ids=str,
)
def test_a_function_is_deployed_again_with_the_reason_when_something_differs(watched, echo, world, change, reason):
    session, observer = watched
    run(session, echo)
    run(session, echo, **(change(session, world, echo) if callable(change) else change))
    last = observer.finished("deploy")[-1]
    assert (last.reused, last.reason) == (False, reason)
    assert world.count("deploy") == 2


def test_environment_and_secrets_reach_the_function(session, echo, world):
    result = run(session, echo, environment={"SEEN": "plain"})
    assert result.body(0)["result"]["seen"] == "plain"
    result = run(session, echo, secrets={"SEEN": "a secret"})
    assert result.body(0)["result"]["seen"] == "***"
    function = session.deploy(session.package(echo), secrets={"SEEN": "a secret"})
    assert session.invoke(function, {}).output["seen"] == "a secret"


def test_a_deployment_that_fails_is_told_and_not_remembered(session, echo, world, tmp_path):
    world.fail("deploy", sebs.DeployError("the quota is used up"))
    with pytest.raises(sebs.DeployError, match="the quota is used up"):
        run(session, echo)
    assert session.cache.functions("double") == []
    assert run(session, echo).summary().failures == 0


def test_functions_are_named_so_that_two_users_and_two_variants_do_not_meet(open_session, echo, tmp_path):
    one = open_session()
    first = one.deploy(one.package(echo))
    other = open_session(state_dir=tmp_path / "another state")
    second = other.deploy(other.package(echo))
    assert first.name != second.name
    assert first.name.startswith("sebs-")
    assert "echo" in first.name
    assert PYTHON.replace(".", "-") in first.name
    assert one.deploy(one.package(echo), function_name="mine").name == "mine"


def test_a_package_of_another_version_is_not_deployed_as_this_one(session, echo):
    package = session.package(echo)
    with pytest.raises(sebs.ConfigError, match=f"the package was built with language_version {PYTHON}, not 3.1"):
        session.deploy(package, language_version="3.1")


# --- secrets --------------------------------------------------------------------------------------------------------------


def test_the_same_secrets_are_no_reason_to_deploy_again(open_session, echo, world):
    for _ in range(2):
        run(open_session(), echo, secrets={"SEEN": "a long secret", "OTHER": "another one"})
    run(open_session(), echo, secrets={"OTHER": "another one", "SEEN": "a long secret"})
    assert world.count("deploy") == 1


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ({"SEEN": "another secret"}, "its secrets differ"),
        ({"SAW": "a long secret"}, "its secrets differ"),
        ({}, "secrets were given before, and none now"),
    ],
    ids=str,
)
def test_other_secrets_are(watched, echo, world, now, reason):
    session, observer = watched
    run(session, echo, secrets={"SEEN": "a long secret"})
    run(session, echo, secrets=now)
    assert observer.finished("deploy")[-1].reason == reason
    (function,) = world.functions.values()
    assert function.environment == now


def test_equal_secrets_of_two_functions_and_of_two_users_have_different_hashes(open_session, echo, tmp_path):
    def hash_of(session, **more):
        return session.deploy(session.package(echo), secrets={"K": "a long secret"}, **more).secrets_hash

    session, other_user = open_session(), open_session(state_dir=tmp_path / "other state", cache_dir=tmp_path / "other cache")
    hashes = [hash_of(session, function_name="a"), hash_of(session, function_name="b"), hash_of(other_user, function_name="a")]
    assert len(set(hashes)) == 3
    assert not any("a long secret" in text for text in hashes)


# --- rebuilt, ignored, forgotten ------------------------------------------------------------------------------------------


def test_a_rebuild_deploys_although_nothing_differs(watched, echo, world):
    session, observer = watched
    run(session, echo)
    run(session, echo, rebuild=True)
    assert observer.finished("deploy")[-1].reason == "a rebuild was asked for"
    assert world.count("deploy") == 2
    function = session.deploy(session.package(echo), rebuild=True)
    assert (world.count("deploy"), function.serial) == (3, 3)


def test_cached_functions_can_be_ignored_and_what_is_then_deployed_is_known_again(open_session, echo, world):
    run(open_session(), echo)
    observer = Watching()
    run(open_session(ignore_cached=["functions"], observers=[observer]), echo)
    assert observer.finished("deploy")[-1].reason == "cached functions are ignored"
    assert world.count("deploy") == 2
    run(open_session(), echo)
    assert world.count("deploy") == 2


def test_nothing_else_can_be_ignored(open_session):
    with pytest.raises(sebs.ConfigError, match="functions and storage can be ignored in the cache, not packages"):
        open_session(ignore_cached=["packages"])


def test_a_deployment_that_fails_half_way_is_not_taken_for_the_one_before(session, echo, world):
    run(session, echo, memory_mb=128)
    world.fail("deploy", sebs.DeployError("the connection broke"))
    with pytest.raises(sebs.DeployError):
        run(session, echo, memory_mb=256)
    run(session, echo, memory_mb=128)
    assert world.count("deploy") == 3, "who knows what the second one left there"


def test_a_function_of_another_account_is_another_function(world, open_session, echo):
    for account in ("one", "two", "one"):
        run(open_session(account=account), echo, function_name="mine")
    assert world.count("deploy") == 2


def test_replacing_inputs_forgets_what_is_stored_of_this_benchmark_only(session, echo):
    for kind in ("storage", "nosql"):
        for benchmark in ("echo", "another"):
            session.cache.merge_data(kind, "double", session.account, benchmark, {"made": True})
    run(session, echo, replace_inputs=True)
    for kind in ("storage", "nosql"):
        assert session.cache.all_data(kind, "double", session.account) == {"another": {"made": True}}


def test_a_session_that_measures_keeps_others_from_changing_its_function(open_session, echo, world):
    """The other one, with more memory, waits until the load is over, and says for whom."""
    changed, told = [], Watching()
    deployed_before_the_end = []

    def change():
        session = open_session(observers=[told])
        run(session, echo, memory_mb=256)
        changed.append(world.count("deploy"))

    other = threading.Thread(target=change)

    class Starting:
        @hookimpl
        def sebs_event(self, event):
            if isinstance(event, sebs.StageStarted) and event.stage == "load":
                other.start()
                while not any(isinstance(event, sebs.Notice) for event in told.events):
                    time.sleep(0.01)
            if isinstance(event, sebs.RunFinished):
                deployed_before_the_end.append(world.count("deploy"))

    result = run(open_session(observers=[Starting()]), echo, memory_mb=128)
    other.join(10)
    assert (deployed_before_the_end, changed) == ([1], [2])
    assert result.manifest.function.config.memory_mb == 128
    (waited,) = [event.text for event in told.events if isinstance(event, sebs.Notice)]
    assert waited.startswith(f"waiting for process {os.getpid()} on ")
    assert "measuring sebs-" in waited


# --- what another session, or another cache, has done meanwhile -----------------------------------------------------------


def test_a_function_that_was_changed_with_another_cache_is_not_believed(open_session, echo, world, tmp_path):
    def told(cache, value):
        observer = Watching()
        session = open_session(cache_dir=tmp_path / cache, observers=[observer])
        function = session.deploy(session.package(echo), environment={"SEEN": value})
        return session.invoke(function, {}).output["seen"], observer.finished("deploy")[-1].reason

    assert told("a", "fast")[0] == "fast"
    assert told("b", "slow")[0] == "slow"
    assert told("a", "fast") == ("fast", "another session, or one with another cache, has changed it since")


def test_a_function_of_another_id_is_neither_reused_nor_changed(open_session, echo, world):
    alice, bob = open_session(resources_id="alice"), open_session(resources_id="bob")
    alice.deploy(alice.package(echo), function_name="f")
    with pytest.raises(sebs.ConfigError, match="the function f belongs to the resources id alice, this session is of bob"):
        bob.deploy(bob.package(echo), function_name="f", memory_mb=256)
    assert world.count("deploy") == 1
    alice.cleanup()
    assert bob.deploy(bob.package(echo), function_name="f").name == "f"


def test_another_setting_of_the_platform_is_a_reason_to_deploy_again(open_session, echo, world):
    run(open_session(flavour="public"), echo)
    observer = Watching()
    run(open_session(flavour="private", observers=[observer]), echo)
    assert observer.finished("deploy")[-1].reason == "settings of the platform differ: flavour"


def test_whoever_replaces_the_deployment_deploys_anew(open_session, echo, world):
    run(open_session(), echo)
    observer = Watching()
    session = open_session(observers=[observer])

    class Wrapping:
        @hookimpl(wrapper=True)
        def sebs_deploy(self):
            return (yield)

    session.stages.add(Wrapping(), "sebs-wrapping 1.0 (extension wrapping)")
    run(session, echo)
    assert "now that is" in observer.finished("deploy")[-1].reason
    assert "sebs-wrapping 1.0" in observer.finished("deploy")[-1].reason


def test_a_refresh_that_tells_something_new_each_time_is_no_change(open_session, echo, world):
    counter = iter(range(1000))

    class Fresh:
        @hookimpl(wrapper=True)
        def sebs_refresh(self):
            return (yield).model_copy(update={"last_modified": next(counter)})

    for _ in range(3):
        session = open_session()
        session.stages.add(Fresh(), "a platform that tells times")
        run(session, echo)
    assert (world.count("deploy"), world.count("create_trigger")) == (1, 1)


def test_what_belongs_to_a_function_is_not_removed_while_it_is_measured(open_session, echo, world):
    """Its trigger, for instance: the other session waits."""
    removed, order = [], []

    def remove():
        session = open_session()
        rules = [h.resource.key for h in session.resources() if h.resource.kind == "rule"]
        removed.extend(session.remove(*rules))
        order.append("removed")

    other = threading.Thread(target=remove)

    class Starting:
        @hookimpl
        def sebs_event(self, event):
            if isinstance(event, sebs.StageStarted) and event.stage == "load":
                name = function.name
                with session.context.resource("rule", "r", [f"function/{name}"]):
                    pass
                other.start()
                other.join(0.3)
            if isinstance(event, sebs.RunFinished):
                order.append("measured")

    session = open_session(observers=[Starting()])
    function = session.deploy(session.package(echo))
    run(session, echo)
    other.join(10)
    assert order == ["measured", "removed"]
    assert [removal.error for removal in removed] == [None]


def test_a_platform_whose_functions_last_must_tell_its_account(world, open_session, echo):
    module = plugin_of(world)
    (offered,) = module.sebs_platforms()

    class Silent:
        pass

    def create(settings, context):
        made = Silent()
        whole = offered.create(settings, context)
        for name in dir(whole):
            if name.startswith("sebs_") and name != "sebs_account":
                setattr(made, name, getattr(whole, name))
        return made

    module.sebs_platforms = hookimpl(lambda: [sebs.PlatformInfo(**{**vars(offered), "create": create})])
    session = open_session(plugins=Plugins([FakeEntryPoint("double", module)]))
    with pytest.raises(sebs.StageMissingError, match="nobody implements sebs_account"):
        session.deploy(session.package(echo))


def test_sessions_that_want_one_function_otherwise_each_measure_what_they_wanted(open_session, echo, world):
    """One after the other, each deployed once: none is changed by another between deployment and measurement."""
    measured = []

    def measure(memory_mb):
        result = run(open_session(), echo, memory_mb=memory_mb)
        measured.append((memory_mb, result.manifest.function.config.memory_mb))

    threads = [threading.Thread(target=measure, args=[128 + 64 * number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(measured) == [(128 + 64 * number, 128 + 64 * number) for number in range(6)]
    assert world.count("deploy") == 6


def test_a_run_within_a_run_and_a_clean_up_within_one_neither_hang_nor_destroy(open_session, echo, world):
    outcomes = []

    class Nesting:
        done = False

        @hookimpl
        def sebs_event(self, event):
            if isinstance(event, sebs.StageStarted) and event.stage == "load" and not self.done:
                self.done = True
                outcomes.append(run(session, echo).summary().failures)
                for act in (session.cleanup, lambda: other.deploy(other.package(echo))):
                    try:
                        act()
                    except sebs.ConfigError as error:
                        outcomes.append(str(error))

    session, other = open_session(observers=[Nesting()]), open_session()
    assert run(session, echo).summary().failures == 0
    nested, cleaned, deployed = outcomes
    assert nested == 0
    assert "this session is measuring" in cleaned
    assert "this thread would wait for itself" in deployed
    assert session.cleanup()
