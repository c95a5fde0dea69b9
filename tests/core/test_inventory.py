"""What of ours is on a platform, and its removal."""

import contextlib

import pytest
from watching import run

import sebs_core as sebs
from sebs_core.models import Resource


def resource(key, *depends_on):
    kind, _, name = key.partition("/")
    return Resource(kind=kind, name=name, platform="double", depends_on=depends_on)


@pytest.fixture
def much(world):
    """Resources that need each other: rule → function-like → role, table alone."""
    world.put(
        resource("role/r"), resource("table/t"), resource("job/j", "role/r", "bucket/b"), resource("bucket/b"),
        resource("rule/x", "job/j"), resource("rule/y", "job/j", "somewhere/else"),
    )  # fmt: skip
    return world


def test_what_depends_on_others_is_removed_before_them(session, much):
    removals = session.cleanup()
    assert all(removal.removed for removal in removals)
    place = {key: number for number, key in enumerate(much.removed)}
    assert len(place) == 6
    for before, after in [("rule/x", "job/j"), ("rule/y", "job/j"), ("job/j", "role/r"), ("job/j", "bucket/b")]:
        assert place[before] < place[after]
    assert session.cleanup() == []


def test_a_dry_run_lists_the_same_in_the_same_order_and_writes_nothing(session, much, echo):
    run(session, echo)
    before = list(much.calls)
    would = [removal.resource.key for removal in session.cleanup(dry_run=True)]
    assert much.calls[len(before) :] == ["resources"]
    assert much.removed == []
    assert would == [removal.resource.key for removal in session.cleanup()]


@pytest.mark.parametrize(
    "fault",
    [sebs.DeployError("the role is in use"), RuntimeError("the role is in use")],
    ids=repr,
)
def test_one_removal_that_fails_does_not_stop_the_rest_and_is_told(session, much, fault):
    much.fail("remove job/j", fault)
    removals = {removal.resource.key: removal for removal in session.cleanup()}
    assert "the role is in use" in removals["job/j"].error
    assert not removals["job/j"].removed
    assert sorted(much.removed) == ["bucket/b", "role/r", "rule/x", "rule/y", "table/t"]


def test_resources_that_depend_on_each_other_in_a_circle_are_a_defect_of_the_plugin(session, world):
    world.put(resource("a/a", "b/b"), resource("b/b", "a/a"))
    with pytest.raises(sebs.PluginError, match="double: resources depend on each other in a circle"):
        session.cleanup()
    assert world.removed == []


def test_a_function_that_was_removed_is_deployed_anew(session, echo, world):
    run(session, echo)
    session.cleanup()
    assert run(session, echo).summary().failures == 0
    assert world.count("deploy") == 2


# --- what the platform lists, and what was written down -------------------------------------------------------------------


def statuses(session):
    return {holding.resource.key: holding.status for holding in session.resources()}


def test_both_sides_are_told_apart(session, world):
    ledger = session.ledger
    for kind in ("listed", "unlisted", "intended"):
        with contextlib.suppress(ZeroDivisionError), session.context.resource(kind, "x"):
            _ = 1 / (kind != "intended")
    with session.context.resource("gone", "x"):
        pass
    ledger.gone("gone", "x")
    world.put(resource("listed/x"), resource("unrecorded/x"))
    assert statuses(session) == {
        "intended/x": "intended",
        "listed/x": "exists",
        "unlisted/x": "unlisted",
        "unrecorded/x": "unrecorded",
    }


def test_what_reappears_on_the_platform_after_its_removal_is_shown(session, world):
    with session.context.resource("table", "t"):
        pass
    session.ledger.gone("table", "t")
    world.put(resource("table/t"))
    assert statuses(session) == {"table/t": "exists"}


def test_resources_of_other_ids_are_never_touched(session, world):
    world.put(
        Resource(kind="bucket", name="theirs", platform="double", resources_id="other"),
        Resource(kind="bucket", name="ours", platform="double", resources_id=session.resources_id),
    )
    with session.state.ledger("double", session.account).resource("bucket", "recorded", "other", ()):
        pass
    assert statuses(session) == {"bucket/ours": "unrecorded"}
    session.cleanup()
    assert world.removed == ["bucket/ours"]


def test_what_was_recorded_of_a_resource_is_there_when_it_is_removed(session, world, monkeypatch):
    with session.context.resource("api", "a", depends_on=["role/r"]) as making:
        making.record(arn="arn:a", region="west")
    world.put(Resource(kind="api", name="a", platform="double", region="east"))
    (holding,) = session.resources()
    assert (holding.resource.arn, holding.resource.region, holding.resource.depends_on) == ("arn:a", "east", ("role/r",))


def test_what_was_only_intended_is_removed_too_and_then_gone(session, world):
    with contextlib.suppress(RuntimeError), session.context.resource("table", "half"):
        raise RuntimeError
    (removal,) = session.cleanup()
    assert (removal.resource.key, removal.error) == ("table/half", None)
    assert session.ledger.line("table", "half").status == "gone"
    assert session.cleanup() == []


def test_what_could_not_be_removed_stays_written_down(session, world):
    with session.context.resource("job", "j"):
        pass
    world.fail("remove job/j", sebs.DeployError("it is in use"))
    assert session.cleanup()[0].error == "it is in use"
    assert statuses(session) == {"job/j": "unlisted"}
    assert session.cleanup()[0].error is None
    assert statuses(session) == {}


def test_another_session_with_another_cache_knows_what_exists(open_session, echo, tmp_path, world):
    one = open_session(cache_dir=tmp_path / "one")
    name = one.deploy(one.package(echo)).name
    one.close()
    world.functions.pop(f"main/{name}").close()  # the platform does not list it
    assert statuses(open_session(cache_dir=tmp_path / "two"))[f"function/{name}"] == "unlisted"


# --- some of it -----------------------------------------------------------------------------------------------------------


def test_some_resources_are_removed_by_key_dependents_first(session, much):
    assert [removal.resource.key for removal in session.remove("role/r", "job/j", "rule/x", "rule/y")][2:] == [
        "job/j",
        "role/r",
    ]
    assert sorted(statuses(session)) == ["bucket/b", "table/t"]


def test_what_is_still_used_is_not_removed(session, much):
    with pytest.raises(sebs.ConfigError, match="rule/x uses job/j: remove it too, or first"):
        session.remove("job/j")
    assert much.removed == []


def test_what_is_not_there_is_refused_with_what_there_is(session, much):
    with pytest.raises(sebs.ConfigError, match=r"there is no resource job/typo of .*There are: bucket/b, job/j"):
        session.remove("job/typo")


def test_a_clean_up_can_be_of_some_kinds(session, much):
    session.cleanup(kinds=["rule", "table"])
    assert sorted(much.removed) == ["rule/x", "rule/y", "table/t"]


def test_a_removed_trigger_is_made_again(session, echo, world):
    function = session.deploy(session.package(echo))
    session.invoke(function, {})
    world.put(resource("rule/r", f"function/{function.name}"))
    session.remove("rule/r")
    run(session, echo)
    assert world.count("create_trigger") == 2


def test_an_interrupt_ends_a_clean_up_and_what_is_left_is_known(session, much):
    much.fail("remove job/j", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        session.cleanup()
    assert "job/j" in statuses(session)


def test_a_damaged_cache_keeps_nothing_from_being_removed(session, much, tmp_path):
    session.deploy(session.package(write_echo(tmp_path)))
    (tmp_path / "cache" / "cache.sqlite").write_bytes(b"no database" * 100)
    assert {removal.error for removal in session.cleanup()} == {None}
    assert statuses(session) == {}


def write_echo(tmp_path):
    folder = tmp_path / "plain"
    (folder / "python").mkdir(parents=True)
    (folder / "config.json").write_text('{"timeout": 5, "memory": 128, "languages": ["python"]}')
    (folder / "input.py").write_text("def generate_input(size):\n    return {}\n")
    (folder / "python" / "function.py").write_text("def handler(event):\n    return {}\n")
    return folder
