"""Functions: reused as they are, brought up to date with the reason, or made."""

import pytest
from double_platform import PYTHON
from watching import Watching, run

import sebs_core as sebs


def test_a_function_that_did_not_change_is_not_deployed_again(open_session, echo, world):
    observer = Watching()
    for _ in range(3):
        run(open_session(observers=[observer]), echo)
    assert world.count("deploy") == 1
    assert world.count("refresh") == 2
    assert [event.reused for event in observer.finished("deploy")] == [False, True, True]
    assert observer.finished("deploy")[0].reason == "it is not known to be deployed"


def gone(session, world, echo):
    world.faults.gone = "somebody removed it in the console"
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
    assert result.body(0)["result"]["seen"] == "a secret"


def test_a_deployment_that_fails_is_told_and_not_remembered(session, echo, world, tmp_path):
    world.faults.deploy = "the quota is used up"
    with pytest.raises(sebs.DeployError, match="the quota is used up"):
        run(session, echo)
    assert session.cache.functions("double") == []
    world.faults.deploy = ""
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
