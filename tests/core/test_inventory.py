"""What of ours is on a platform, and its removal."""

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
    world.extra_resources = [
        resource("role/r"), resource("table/t"), resource("job/j", "role/r", "bucket/b"), resource("bucket/b"),
        resource("rule/x", "job/j"), resource("rule/y", "job/j", "somewhere/else"),
    ]  # fmt: skip
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
    much.faults.remove["job/j"] = fault
    removals = {removal.resource.key: removal for removal in session.cleanup()}
    assert "the role is in use" in removals["job/j"].error
    assert not removals["job/j"].removed
    assert sorted(much.removed) == ["bucket/b", "role/r", "rule/x", "rule/y", "table/t"]


def test_resources_that_depend_on_each_other_in_a_circle_are_a_defect_of_the_plugin(session, world):
    world.extra_resources = [resource("a/a", "b/b"), resource("b/b", "a/a")]
    with pytest.raises(sebs.PluginError, match="double: resources depend on each other in a circle"):
        session.cleanup()
    assert world.removed == []


def test_a_function_that_was_removed_is_deployed_anew(session, echo, world):
    run(session, echo)
    session.cleanup()
    assert run(session, echo).summary().failures == 0
    assert world.count("deploy") == 2
