"""Killed at every step: nothing half, nothing locked, nothing forgotten, and the next session goes through."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import folder_platform
import pytest
from folder_platform import DEPLOY_STEPS, KINDS, Place, in_processes
from watching import Watching

import sebs_core as sebs
from sebs_core import cache as cache_module
from sebs_core import cli, hookimpl, packaging
from sebs_core import state as state_module
from sebs_core.cache import Cache
from sebs_core.functions import Functions
from sebs_core.state import Ledger

KILLED = -signal.SIGKILL
OTHER_CODE = "def handler(event):\n    return {'result': 'other code'}\n"

IN_CORE = {
    "before the package is built": (packaging, "stage", "before"),
    "its folder is built": (packaging, "stage", "after"),
    "before the package takes its name": (Path, "rename", "before"),
    "the package has its name and no record": (Path, "rename", "after"),
    "the package has its record": (Cache, "keep_package", "after"),
    "it is published and that is not recorded": (Cache, "keep_published", "before"),
    "its publication is recorded": (Cache, "keep_published", "after"),
    "the function is intended and still known": (Functions, "forget", "before"),
    "the function is intended and forgotten": (Functions, "forget", "after"),
    "the function is made and not known": (Cache, "keep_function", "before"),
    "the function is known and only intended": (Cache, "keep_function", "after"),
}
IN_PACKAGING = ("package:before", "package:after", *[point for point in IN_CORE if "package" in point or "built" in point])
IN_PUBLISHING = ("object:before", "object:after", *[point for point in IN_CORE if "publi" in point])
IN_DEPLOYING = (*DEPLOY_STEPS, *[point for point in IN_CORE if "function" in point])
IN_UPDATING = tuple(point for point in IN_DEPLOYING if "role" not in point)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def around(owner, name, when, act):
    """Let something happen before or after each call. In a process that ends soon: nothing is put back."""
    inner = getattr(owner, name)

    def outer(*args, **more):
        if when == "before":
            act(*args, **more)
        result = inner(*args, **more)
        if when == "after":
            act(*args, **more)
        return result

    setattr(owner, name, outer)


def die(*_args, **_more):
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work, point):
    """Do it in a process that kills itself at this point."""

    def until_death():
        if point in IN_CORE:
            around(*IN_CORE[point], die)
        else:
            os.environ["SEBS_TEST_DIE_AT"] = point
        work()

    assert in_processes(until_death) == [KILLED], f"it never came to {point}"


def deploy(place, benchmark, memory_mb, observers=(), trigger=True, **more):
    with place.open(observers=observers, **more) as session:
        function = session.deploy(session.package(benchmark), memory_mb=memory_mb)
        if trigger:
            session.trigger(function, "library")
        return function


def must_be_well(place):
    assert place.problems() == []


def must_go_through(place, benchmark, memory_mb, value):
    """The next session waits for nobody; its function is on the provider as it was asked for, and answers."""
    observer = Watching()
    function = deploy(place, benchmark, memory_mb, [observer])
    assert [event.text for event in observer.events if isinstance(event, sebs.Notice)] == []
    there = place.cloud.peek("function", function.name)
    assert there["state"] == "active"
    assert there["config"] == function.config.model_dump(mode="json")
    assert there["config"]["memory_mb"] == memory_mb
    assert there["digest"] == function.package_digest
    with place.open() as session:
        assert session.invoke(function, {"value": "what was sent"}, trigger="library").output["result"] == value
    must_be_well(place)


def must_clean_up(place):
    with place.open() as session:
        failed = [removal for removal in session.cleanup() if removal.error]
        assert failed == []
        assert session.resources() == []
    assert place.cloud.there == []
    assert {line.status for line in place.ledger.lines()} <= {"gone"}


# --- killed while something is made ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [*IN_PACKAGING, *IN_PUBLISHING, *IN_DEPLOYING, "rule:before", "rule:after"])
def test_killed_while_a_function_is_made(place, echo, point):
    killed(lambda: deploy(place, echo, 128), point)
    must_be_well(place)
    must_go_through(place, echo, 128, "what was sent")
    must_clean_up(place)


@pytest.mark.parametrize("point", ["object:after", "role:after", "function:after", "code:after", "rule:after"])
def test_what_a_killed_session_left_is_cleaned_up_also_if_nobody_goes_on(place, echo, point):
    killed(lambda: deploy(place, echo, 128), point)
    assert place.cloud.there != []
    must_clean_up(place)


@pytest.mark.parametrize("point", ["object:after", "role:after", "function:after", "code:after", "rule:after"])
def test_a_cache_that_is_lost_in_a_crash_loses_nothing_of_what_exists(place, echo, point):
    killed(lambda: deploy(place, echo, 128), point)
    shutil.rmtree(place.cache)
    must_be_well(place)
    must_go_through(place, echo, 128, "what was sent")
    must_clean_up(place)


DISK = {"open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "fchmod", "execute", "executemany"}


def before_each_disk_call(act):
    """Call it before every call that touches the disk, from now on."""
    sys.setprofile(lambda _frame, event, called: act() if event == "c_call" and called.__name__ in DISK else None)


def test_killed_before_any_call_that_touches_the_disk_while_a_package_is_kept(tmp_path, echo):
    def package(place):
        with place.open() as session:
            session.package(echo)

    def counting():
        calls = []
        around(Cache, "keep_package", "before", lambda *_: before_each_disk_call(lambda: calls.append(1)))
        around(Cache, "keep_package", "after", lambda *_: sys.setprofile(None))
        package(Place(tmp_path / "counted"))
        (tmp_path / "count").write_text(str(len(calls)))

    assert in_processes(counting) == [0]
    total = int((tmp_path / "count").read_text())
    assert total > 10
    for number in range(total):
        place, left = Place(tmp_path / str(number)), list(range(number))

        def until_death(place=place, left=left):
            count = lambda: left.pop() if left else die()  # noqa: E731
            around(Cache, "keep_package", "before", lambda *_: before_each_disk_call(count))
            package(place)

        assert in_processes(until_death) == [KILLED], f"before call {number} of {total}"
        assert place.problems() == [], f"killed before call {number} of {total}"
        package(place)
        assert place.problems() == [], f"gone on after call {number} of {total}"


def test_a_package_that_a_killed_session_left_without_a_record_is_taken_as_it_is(place, echo):
    killed(lambda: deploy(place, echo, 128), "the package has its name and no record")
    (left,) = place.cache.glob("packages/*/code.zip")
    number = left.stat().st_ino
    deploy(place, echo, 128)
    assert left.stat().st_ino == number


def test_what_killed_builds_left_is_pruned(place, echo):
    killed(lambda: deploy(place, echo, 128), "package:after")
    assert any(place.cache.glob("building/*/code.zip"))
    assert Cache(place.cache).prune().freed_bytes > 1000
    assert list(place.cache.glob("building/*")) == []


# --- killed while something is changed ------------------------------------------------------------------------------------


@pytest.fixture
def deployed(place, echo):
    """A function of 128 MiB that is there and known."""
    deploy(place, echo, 128)
    return place


@pytest.mark.parametrize("then", ["the same again", "the old one again"])
@pytest.mark.parametrize("point", [*IN_PACKAGING, *IN_PUBLISHING, *IN_UPDATING])
def test_killed_in_an_update_of_memory_and_code(deployed, echo, point, then):
    """What is asked for next is what is there, also when it is what there was before the update that half happened."""
    code = echo / "python" / "function.py"
    old = code.read_text()
    code.write_text(OTHER_CODE)
    killed(lambda: deploy(deployed, echo, 256), point)
    must_be_well(deployed)
    if then == "the same again":
        must_go_through(deployed, echo, 256, "other code")
    else:
        code.write_text(old)
        must_go_through(deployed, echo, 128, "what was sent")
    must_clean_up(deployed)


@pytest.mark.parametrize("point", [point for point in IN_UPDATING if not point.startswith("code")])
def test_killed_in_an_update_of_memory_alone(deployed, echo, point):
    killed(lambda: deploy(deployed, echo, 256), point)
    must_be_well(deployed)
    must_go_through(deployed, echo, 128, "what was sent")
    must_clean_up(deployed)


def test_after_a_crash_in_an_update_what_was_before_is_deployed_anew_not_taken_for_what_is_there(deployed, echo):
    killed(lambda: deploy(deployed, echo, 256), "function:after")
    assert [deployed.cloud.peek("function", key.partition("/")[2])["config"]["memory_mb"] for key in deployed.cloud.there
            if key.startswith("function/")] == [256]  # fmt: skip
    observer = Watching()
    deploy(deployed, echo, 128, [observer])
    (event,) = observer.finished("deploy")
    assert (event.reused, event.reason) == (False, "it is not known to be deployed")


@pytest.mark.parametrize("point", ["function:before", "function:after", "the function is known and only intended"])
def test_killed_in_an_update_by_a_session_with_another_cache(deployed, echo, point):
    """Ours still says what there was before."""
    killed(lambda: deploy(deployed, echo, 256, cache_dir=deployed.folder / "another cache"), point)
    must_be_well(deployed)
    must_go_through(deployed, echo, 128, "what was sent")
    must_clean_up(deployed)


# --- killed while something is removed ------------------------------------------------------------------------------------


def clean_up(place):
    with place.open() as session:
        session.cleanup()


@pytest.mark.parametrize("then", ["is made again", "is cleaned up"])
@pytest.mark.parametrize("point", [f"remove-{kind}:{when}" for kind in KINDS for when in ("before", "after")])
def test_killed_in_a_clean_up(deployed, echo, point, then):
    killed(lambda: clean_up(deployed), point)
    must_be_well(deployed)
    if then == "is made again":
        must_go_through(deployed, echo, 128, "what was sent")
    must_clean_up(deployed)


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_when_a_removal_is_written_down(deployed, echo, number, when):
    def until_death():
        written = []

        def count(_ledger, _kind, _name, status, *_more, **_most):
            written.append(status)
            if written.count("gone") == number:
                die()

        around(Ledger, "_write", when, count)
        clean_up(deployed)

    assert in_processes(until_death) == [KILLED]
    must_be_well(deployed)
    must_go_through(deployed, echo, 128, "what was sent")
    must_clean_up(deployed)


def test_killed_in_a_clearing_of_the_cache_and_built_and_cleared_again(place, echo):
    deploy(place, echo, 128)

    def until_death():
        around(shutil, "rmtree", "before", die)
        Cache(place.cache).clear()

    for _ in range(2):
        assert in_processes(until_death) == [KILLED]
        must_be_well(place)
        must_go_through(place, echo, 128, "what was sent")
    Cache(place.cache).clear()
    assert list(place.cache.glob("packages/*")) == list(place.cache.glob("building/*")) == []


# --- what fails without a crash -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "function", "role", "rule"])
def test_on_a_full_disk_nothing_is_made_that_could_not_be_written_down(place, echo, kind, tmp_path):
    def on_a_full_disk():
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        told = []

        def fill(_ledger, intended, *_more, **_most):
            if intended == kind:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))

        around(Ledger, "resource", "before", fill)
        try:
            deploy(place, echo, 128)
        except sebs.SebsError as error:
            told.append(f"{type(error).__name__}: {error}")
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        (tmp_path / "told.json").write_text(json.dumps(told))

    assert in_processes(on_a_full_disk) == [0]
    (told,) = json.loads((tmp_path / "told.json").read_text())
    assert re.search(f"^CacheError: {place.state}.*Free some space on that disk", told)
    assert not any(f" {kind}/" in call for call in place.cloud.calls)
    assert f"{kind}/" not in " ".join(place.cloud.there)
    must_be_well(place)
    must_go_through(place, echo, 128, "what was sent")
    must_clean_up(place)


def test_a_deployment_that_fails_leaves_its_intent(deployed, echo):
    (role,) = [key.partition("/")[2] for key in deployed.cloud.there if key.startswith("role/")]
    with deployed.open() as session:
        session.remove(*[holding.resource.key for holding in session.resources() if holding.resource.kind != "role"])
        assert deployed.cloud.delete("role", role), "somebody removes it in the console"
        with pytest.raises(sebs.DeployError, match=f"refers to role/{role}, which does not exist"):
            session.deploy(session.package(echo))
        status = {holding.resource.kind: holding.status for holding in session.resources()}
        assert status == {"function": "intended", "object": "exists", "role": "unlisted"}
    must_be_well(deployed)
    must_clean_up(deployed)
    must_go_through(deployed, echo, 128, "what was sent")


class Deleting:
    """An observer that deletes a folder when something happens."""

    def __init__(self, folder, event, stage):
        self.folder, self.event, self.stage = folder, event, stage
        self.done = False

    @hookimpl
    def sebs_event(self, event):
        if type(event).__name__ == self.event and event.stage == self.stage:
            shutil.rmtree(self.folder)
            self.done = True


@pytest.mark.parametrize(
    ("event", "stage"),
    [("StageFinished", "deploy"), ("StageStarted", "load"), ("StageFinished", "load"), ("StageFinished", "metrics")],
)
@pytest.mark.parametrize("before", ["first run", "known"])
def test_a_cache_that_is_deleted_while_a_run_goes_on_costs_a_rebuild_and_nothing_else(place, echo, event, stage, before):
    if before == "known":
        deploy(place, echo, 128)
    load = sebs.Closed(repetitions=2)
    deleting = Deleting(place.cache, event, stage)
    with place.open(observers=[deleting]) as session:
        result = session.run(echo, "test", load=load, trigger="library")
    assert deleting.done
    assert sebs.Result.load(result.directory).summary().count == 2
    must_be_well(place)
    observer = Watching()
    with place.open(observers=[observer]) as session:
        assert session.run(echo, "test", load=load, trigger="library").summary().failures == 0
    reasons = [event.reason for event in observer.events if isinstance(event, sebs.StageFinished)]
    assert reasons[:2] == ["it was not built yet", "it is not known to be deployed"]
    must_clean_up(place)


def test_a_cache_that_is_deleted_between_building_and_deploying_is_an_error_with_a_name(place, echo):
    deleting = Deleting(place.cache, "StageFinished", "package")
    with place.open(observers=[deleting]) as session, pytest.raises((sebs.SebsError, OSError), match="packages"):
        session.run(echo, "test", trigger="library")
    must_be_well(place)
    must_go_through(place, echo, 128, "what was sent")


# --- accounts, clocks, versions -------------------------------------------------------------------------------------------


def test_what_is_known_of_one_account_is_never_applied_to_another(tmp_path, echo):
    """The same names in both, and one cache and one state."""
    ours, theirs = Place(tmp_path, "ours"), Place(tmp_path, "theirs")
    for place in (ours, theirs):
        before = place.cloud.there
        with place.open(resources_id="same") as session:
            assert (before, session.resources()) == ([], [])
            assert session.cleanup() == []
            with pytest.raises(sebs.ConfigError, match="there is no resource role/sebs-same-role"):
                session.remove("role/sebs-same-role")
            function = session.deploy(session.package(echo), function_name="mine")
            session.trigger(function, "library")
        assert sum(call == "create function/mine" for call in place.cloud.calls) == 1
        assert sum(call.startswith("put object/") for call in place.cloud.calls) == 1
    assert ours.cloud.there == theirs.cloud.there
    assert (ours.cloud.builds, theirs.cloud.builds) == (1, 0), "a package belongs to no account"

    calls = theirs.cloud.calls
    with ours.open(resources_id="same") as session:
        assert len(session.cleanup()) == 4
    assert (ours.cloud.there, theirs.cloud.calls) == ([], calls)
    with theirs.open(resources_id="same") as session:
        assert {holding.status for holding in session.resources()} == {"exists"}
        session.trigger(session.deploy(session.package(echo), function_name="mine"), "library")
    assert theirs.cloud.calls == calls, "it is still known there"
    with ours.open(resources_id="same") as session:
        session.deploy(session.package(echo), function_name="mine")
    for place in (ours, theirs):
        must_be_well(place)


@pytest.mark.parametrize("hours", [-24 * 365 * 20, 24 * 365 * 20])
def test_a_clock_that_is_set_between_sessions_changes_nothing(place, echo, hours, monkeypatch):
    deploy(place, echo, 128)
    calls = place.cloud.calls
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + hours * 3600)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + hours * 3600 * 1_000_000_000)
    deploy(place, echo, 128)
    assert (place.cloud.calls, place.cloud.builds) == (calls, 1)

    code = echo / "python" / "function.py"
    stamp = code.stat().st_mtime + hours * 3600
    code.write_text(OTHER_CODE)
    os.utime(code, (stamp, stamp))
    must_go_through(place, echo, 128, "other code")
    must_clean_up(place)
    monkeypatch.undo()
    must_go_through(place, echo, 256, "other code")
    must_clean_up(place)


@contextlib.contextmanager
def the_next_version(monkeypatch):
    """As if this were a version of the project that keeps more."""
    with monkeypatch.context() as patched:
        for module in (cache_module, state_module):
            more = ("CREATE TABLE more (value TEXT); INSERT INTO more VALUES ('kept')",)
            patched.setattr(module, "MIGRATIONS", module.MIGRATIONS + more)
        yield


@pytest.mark.parametrize("newer", ["cache", "state"])
def test_a_newer_version_loses_nothing_when_an_older_one_meets_its_files(place, echo, monkeypatch, capsys, newer):
    with the_next_version(monkeypatch):
        deploy(place, echo, 128)
    folder, other = (place.cache, "state_dir") if newer == "cache" else (place.state, "cache_dir")
    file = folder / f"{newer}.sqlite"
    content = file.read_bytes()
    with place.open(**{other: place.folder / "other"}) as session:
        with pytest.raises(sebs.CacheError, match=rf"{file} was written by a newer version of sebs.*Upgrade sebs-core, or "):
            session.deploy(session.package(echo))
        with pytest.raises(sebs.CacheError, match="Upgrade sebs-core"):
            session.run(echo, "test", trigger="library")
    monkeypatch.setattr("sebs_core.session.installed", folder_platform.folder_plugins)
    monkeypatch.setenv("SEBS_CACHE_DIR", str(place.cache if newer == "cache" else place.folder / "other"))
    monkeypatch.setenv("SEBS_STATE_DIR", str(place.state if newer == "state" else place.folder / "other"))
    commands = [
        ["benchmark", "invoke", str(echo), "test", "--platform", "folder", "--set", f"cloud={place.folder / 'cloud'}"],
        ["cache", "list"] if newer == "cache" else ["resource", "list", "--platform", "folder", "--set", f"cloud={echo}"],
    ]
    for command in commands:
        capsys.readouterr()
        assert cli.run(command) == 3
        out, err = capsys.readouterr()
        assert (out, "Upgrade sebs-core" in err, "Traceback" in err) == ("", True, False)
    assert file.read_bytes() == content

    calls = place.cloud.calls
    with the_next_version(monkeypatch):
        deploy(place, echo, 128)
        assert place.cloud.calls == calls, "all of it is still known"
        must_be_well(place)


def test_a_newer_version_goes_on_with_the_files_of_an_older_one(place, echo, monkeypatch):
    deploy(place, echo, 128)
    calls = place.cloud.calls
    with the_next_version(monkeypatch):
        deploy(place, echo, 128)
        assert place.cloud.calls == calls
        with Cache(place.cache).database.reading() as connection:
            assert connection.execute("SELECT value FROM more").fetchall() == [("kept",)]
        must_clean_up(place)
