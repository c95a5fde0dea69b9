"""Many processes on one cache, one state and one provider: each thing is made once, nothing is lost, the dead hold nothing."""

import json
import multiprocessing
import os
import random
import re
import select
import signal
import sys
import threading

import folder_platform
import pytest
from folder_platform import KINDS, Place, in_processes, lost_operations, mixed_operations
from watching import Watching

import sebs_core as sebs
from sebs_core import cache as cache_module
from sebs_core import hookimpl
from sebs_core.cache import Cache

PROCESSES = 8
KILLS = int(os.environ.get("SEBS_TEST_KILLS", "20"))
"""In how many rounds processes are killed, half of them of each workload; 100 take half a minute."""
KILLED = -signal.SIGKILL


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def deployed(session, benchmark):
    function = session.deploy(session.package(benchmark), memory_mb=128)
    session.trigger(function, "library")
    return function


# --- eight that want the same ---------------------------------------------------------------------------------------------


HELD_AT = {"package:before": "package", "object:before": "deploy"}


class Crowd:
    """Whoever builds, and who publishes and deploys, is held until all others have said that they wait."""

    def __init__(self):
        self.heard, self.tell = os.pipe()
        self.begun = multiprocessing.get_context("fork").Event()

    def at_step(self, step):
        self.begun.set()
        waiting = set()
        while step in HELD_AT and len(waiting) < PROCESSES - 1:
            assert select.select([self.heard], [], [], 15)[0], f"at {step} only {len(waiting)} others say that they wait"
            told = [line.split() for line in os.read(self.heard, 10_000).decode().splitlines()]
            waiting |= {pid for stage, pid in told if stage == HELD_AT[step] and int(pid) != os.getpid()}


class Telling(Watching):
    """An observer that tells the crowd in which stage its process waits, and keeps what was said."""

    def __init__(self, crowd):
        super().__init__()
        self.crowd, self.stage, self.said = crowd, "", {}

    @hookimpl
    def sebs_event(self, event):
        self.events.append(event)
        if isinstance(event, sebs.StageStarted):
            self.stage = event.stage
        elif isinstance(event, sebs.StageFinished):
            self.stage = f"after {event.stage}"
        elif isinstance(event, sebs.Notice):
            self.said.setdefault(self.stage, []).append(event.text)
            os.write(self.crowd.tell, f"{self.stage.replace(' ', '-')} {os.getpid()}\n".encode())


def test_of_eight_that_want_the_same_one_makes_it_and_the_others_wait_and_say_for_whom(place, echo, tmp_path):
    crowd = Crowd()

    def work(number):
        folder_platform.at_step = crowd.at_step
        assert number == 0 or crowd.begun.wait(15)
        observer = Telling(crowd)
        with place.open(observers=[observer]) as session:
            function = deployed(session, echo)
            told = {
                "pid": os.getpid(),
                "id": session.resources_id,
                "function": function.name,
                "reused": {stage: observer.finished(stage)[0].reused for stage in ("package", "deploy")},
                "said": observer.said,
            }
        (tmp_path / f"{number}.json").write_text(json.dumps(told))

    assert in_processes(*[lambda number=number: work(number) for number in range(PROCESSES)]) == [0] * PROCESSES
    builder, *others = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(PROCESSES)]
    assert place.cloud.builds == 1
    assert [re.sub("/.*", "", call) for call in place.cloud.calls] == [
        "put object", "create role", "create function", "update code", "create rule"
    ]  # fmt: skip
    assert len({one["id"] for one in (builder, *others)}) == len({one["function"] for one in (builder, *others)}) == 1
    assert (builder["reused"]["package"], {one["reused"]["package"] for one in others}) == (False, {True})
    assert sorted(one["reused"]["deploy"] for one in (builder, *others)) == [False] + [True] * (PROCESSES - 1)
    for one in others:
        (said,) = one["said"]["package"]
        assert re.fullmatch(f"waiting for process {builder['pid']} on .*, which is building the package of echo", said)
    assert place.problems() == []


def test_eight_that_come_as_they_come_make_it_once(place, echo):
    def work():
        with place.open() as session:
            function = deployed(session, echo)
            assert session.invoke(function, {"value": 7}, trigger="library").output["result"] == 7

    assert in_processes(*[work] * PROCESSES) == [0] * PROCESSES
    assert (place.cloud.builds, len(place.cloud.calls), len(place.cloud.there)) == (1, 5, 4)
    assert place.problems() == []


def test_eight_different_functions_at_once_share_package_and_id(place, echo):
    def work(number):
        with place.open() as session:
            session.deploy(session.package(echo), function_name=f"f{number}", memory_mb=128 + number)

    assert in_processes(*[lambda number=number: work(number) for number in range(PROCESSES)]) == [0] * PROCESSES
    assert place.cloud.builds == 1
    functions = {key: place.cloud.peek(*key.split("/")) for key in place.cloud.there if key.startswith("function/")}
    assert {key: facts["config"]["memory_mb"] for key, facts in functions.items()} == {
        f"function/f{number}": 128 + number for number in range(PROCESSES)
    }
    assert len({facts["resources_id"] for facts in functions.values()}) == 1
    assert len(place.cloud.there) == PROCESSES + 2, "one object and one role for all"
    assert place.problems() == []


def test_sessions_that_change_one_function_back_and_forth_leave_one_of_the_two(place, echo):
    """What is known of it is what is there, whoever came last."""

    def work(memory_mb):
        for _ in range(6):
            with place.open() as session:
                session.deploy(session.package(echo), memory_mb=memory_mb, function_name="mine")

    assert in_processes(*[lambda memory_mb=memory_mb: work(memory_mb) for memory_mb in (128, 256, 128, 256)]) == [0] * 4
    known = Cache(place.cache).function("folder", place.account, "mine")
    assert place.cloud.peek("function", "mine")["config"] == known.config.model_dump(mode="json")
    assert place.problems() == []


def test_the_cache_can_be_cleared_and_pruned_while_others_build_and_deploy(place, echo):
    def build():
        for number in range(4):
            with place.open() as session:
                package = session.package(echo, rebuild=number % 2 == 1)
                assert package.path.is_file()
                session.deploy(package, memory_mb=128)
                assert package.path.is_file(), "what a session was given stays until it ends"

    def clear():
        for number in range(12):
            cache = Cache(place.cache)
            cache.clear() if number % 2 else cache.prune()
            cache.entries()

    assert in_processes(*[build] * 4, *[clear] * 4) == [0] * 8
    assert place.problems() == []
    Cache(place.cache).clear()
    assert [path.name for folder in ("packages", "building", "locks") for path in (place.cache / folder).iterdir()] == []


def test_two_that_clear_the_cache_at_once_do_not_meet(place, echo):
    with place.open() as session:
        session.package(echo)
    context = multiprocessing.get_context("fork")
    looked, came = context.Event(), context.Event()

    def clear_slowly():
        inner = cache_module._folders

        def folders(parent):
            found = inner(parent)
            looked.set()
            assert came.wait(15)
            return found

        cache_module._folders = folders
        Cache(place.cache).clear()

    def clear():
        assert looked.wait(15)
        Cache(place.cache, tell=lambda _: came.set()).clear()
        came.set()

    assert in_processes(clear_slowly, clear) == [0, 0]
    assert list(place.cache.glob("packages/*")) == list(place.cache.glob("building/*")) == []


def test_what_is_cleaned_up_while_others_deploy_is_there_or_not_but_never_forgotten(place, echo):
    """A deployment may fail when its role goes; then it says so, and what exists has a line."""

    def deploy():
        for _ in range(4):
            try:
                with place.open() as session:
                    deployed(session, echo)
            except sebs.DeployError as error:
                assert "does not exist" in str(error)

    def clean_up():
        for _ in range(4):
            with place.open() as session:
                session.cleanup()

    assert in_processes(*[deploy] * 4, *[clean_up] * 2) == [0] * 6
    assert place.problems() == []
    must_be_finished_by_others(place, echo)


class Coming:
    """An observer that notes that its process waits."""

    def __init__(self, came):
        self.came = came

    @hookimpl
    def sebs_event(self, event):
        if isinstance(event, sebs.Notice):
            self.came.set()


@pytest.mark.parametrize("step", ["object:after", "role:after", "function:after", "code:before", "rule:before"])
def test_what_a_deployment_needs_is_not_removed_from_under_it(place, echo, step):
    """A clean-up of what it uses waits, if it comes in the midst of it."""
    context = multiprocessing.get_context("fork")
    deploying, came = context.Event(), context.Event()

    def deploy():
        def at_step(reached):
            if reached == step:
                deploying.set()
                assert came.wait(15)

        folder_platform.at_step = at_step
        with place.open() as session:
            deployed(session, echo)

    def clean_up():
        assert deploying.wait(15)
        with place.open(observers=[Coming(came)]) as session:
            session.cleanup(kinds=["object", "role"])
        came.set()

    assert in_processes(deploy, clean_up) == [0, 0]
    assert place.problems() == []
    must_be_finished_by_others(place, echo)


@pytest.mark.parametrize("step", [f"remove-{kind}:{when}" for kind in KINDS for when in ("before", "after")])
def test_what_is_deployed_in_the_midst_of_a_clean_up_is_whole_or_refused(place, echo, step):
    with place.open() as session:
        deployed(session, echo)
    context = multiprocessing.get_context("fork")
    removing, came = context.Event(), context.Event()

    def clean_up():
        def at_step(reached):
            if reached == step:
                removing.set()
                assert came.wait(15)

        folder_platform.at_step = at_step
        with place.open() as session:
            session.cleanup()

    def deploy():
        assert removing.wait(15)
        try:
            with place.open(observers=[Coming(came)]) as session:
                deployed(session, echo)
        except sebs.DeployError as error:
            assert "does not exist" in str(error)
        came.set()

    assert in_processes(clean_up, deploy) == [0, 0]
    assert place.problems() == []
    must_be_finished_by_others(place, echo)


# --- eight that change much -----------------------------------------------------------------------------------------------


def test_of_many_changes_by_eight_processes_none_is_lost(place):
    count = 60
    works = [lambda number=number: mixed_operations(place, number, count) for number in range(PROCESSES)]
    assert in_processes(*works) == [0] * PROCESSES
    assert [lost_operations(place, number, count) for number in range(PROCESSES)] == [[]] * PROCESSES
    assert place.problems() == []


def test_one_value_that_all_change_keeps_every_change(place):
    def work(number):
        for step in range(10):
            place.ledger.keep_value("shared", f"{number}-{step}", value=number)
            place.ledger.forget_value("shared", f"{number}-{step - 1}")
            Cache(place.cache).merge_data("nosql", "folder", "main", "b", {"tables": {f"{number}-{step}": {"key": step}}})

    assert in_processes(*[lambda number=number: work(number) for number in range(PROCESSES)]) == [0] * PROCESSES
    assert place.ledger.value("shared") == {f"{number}-9": number for number in range(PROCESSES)}
    tables = Cache(place.cache).data("nosql", "folder", "main", "b")["tables"]
    assert tables == {f"{number}-{step}": {"key": step} for number in range(PROCESSES) for step in range(10)}


# --- killed anywhere ------------------------------------------------------------------------------------------------------


def die_at_call(number):
    """Kill this process just before its so-many-th call of a function, in Python or in C."""
    left = number

    def count(_frame, event, _argument):
        nonlocal left
        if event in ("call", "c_call"):
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def die_after(seconds):
    """Kill this process when so much time has passed, also in the middle of SQLite's writing."""
    threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGKILL]).start()


def calls_of(work):
    """How many calls of functions the work is."""
    count = 0

    def counting(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counting)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def must_be_finished_by_others(place, echo):
    observer = Watching()
    with place.open(observers=[observer]) as session:
        function = deployed(session, echo)
        assert session.invoke(function, {"value": 7}, trigger="library").output["result"] == 7
    assert [event.text for event in observer.events if isinstance(event, sebs.Notice)] == []
    there = place.cloud.peek("function", function.name)
    assert (there["config"], there["digest"]) == (function.config.model_dump(mode="json"), function.package_digest)
    assert place.problems() == []
    with place.open() as session:
        assert [removal for removal in session.cleanup() if removal.error] == []
    assert place.cloud.there == []


@pytest.mark.parametrize("seed", range(KILLS // 2))
def test_six_of_eight_that_deploy_are_killed_somewhere(place, echo, seed, tmp_path):
    """The others go through; so does who comes later. The seed is in the name of the test."""

    def work(death):
        with place.open() as session:
            if death is not None:
                die_at_call(death)
            deployed(session, echo)

    for name in ("first", "counted"):  # the first one imports what the others find imported
        with Place(tmp_path / name).open() as session:
            total = calls_of(lambda session=session: deployed(session, echo))
    numbers = random.Random(seed)
    # Who waits for another has less to do, and would be done before a late death.
    deaths = [numbers.randrange(1, total // divisor) for divisor in (1, 1, 1, 4, 4, 4)]
    endings = in_processes(*[lambda death=death: work(death) for death in (*deaths, None, None)])
    assert endings[6:] == [0, 0], f"killed at the calls {deaths} of {total}"
    assert set(endings[:6]) <= {KILLED, 0}
    assert place.problems() == [], f"killed at the calls {deaths} of {total}"
    must_be_finished_by_others(place, echo)


@pytest.mark.parametrize("seed", range(KILLS // 2))
def test_two_of_eight_that_change_much_are_killed_somewhere(place, seed, tmp_path):
    """What they had done until then is there, and others can do the rest. The seed is in the name of the test."""
    numbers, count = random.Random(seed), 24
    total = calls_of(lambda: mixed_operations(Place(tmp_path / "counted"), 0, count))
    deaths = [(die_at_call, numbers.randrange(1, total)), (die_after, numbers.uniform(0, 0.1))]

    def work(number):
        progress = os.open(place.folder / f"done-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if number < len(deaths):
            die, when = deaths[number]
            die(when)
        mixed_operations(place, number, count, lambda step: os.write(progress, b"."))

    endings = in_processes(*[lambda number=number: work(number) for number in range(PROCESSES)])
    assert endings[2:] == [0] * 6, f"killed: {deaths}"
    assert set(endings[:2]) <= {KILLED, 0}
    done = [(place.folder / f"done-{number}").stat().st_size for number in range(PROCESSES)]
    lost = [lost_operations(place, number, done[number]) for number in range(PROCESSES)]
    assert lost == [[]] * PROCESSES, f"killed: {deaths}"
    assert place.problems() == [], f"killed: {deaths}"
    for number in range(2):
        mixed_operations(place, number, count)
        assert lost_operations(place, number, count) == []
