"""Locks: one at a time, whoever waits knows for whom, and the dead hold nothing."""

import errno
import fcntl
import os
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import FORK, at_once

from sebs_core.errors import CacheError
from sebs_core.locks import Locks


@pytest.fixture
def locks(tmp_path):
    return Locks(tmp_path / "locks")


def nobody(text):
    pytest.fail(f"it had to wait: {text}")


def is_free(locks, name="x"):
    with locks.if_free(name) as free:
        return free


class Holder:
    """A process that holds a lock until it is told, or dies."""

    def __init__(self, locks, kind="held", name="x", doing="building"):
        self.pipe, there = FORK.Pipe()

        def run():
            with getattr(locks, kind)(name, doing, lambda _: there.send("waiting")):
                there.send("holding")
                there.recv()

        self.process = FORK.Process(target=run, daemon=True)
        self.process.start()
        there.close()
        self.first = self.next()

    def next(self):
        assert self.pipe.poll(20)
        return self.pipe.recv()

    def release(self, *_):
        self.pipe.send("go on")

    def kill(self, *_):
        self.process.kill()

    def join(self):
        self.process.join(20)
        return self.process.exitcode


@pytest.fixture
def holder(locks):
    """``holder(kind, name, doing)``: a process that holds a lock."""
    holders = []

    def make(*args, **more):
        holders.append(Holder(locks, *args, **more))
        return holders[-1]

    yield make
    for one in holders:
        one.process.kill()
        one.process.join()


# --- alone ----------------------------------------------------------------------------------------------------------------


def test_a_free_lock_is_had_at_once_and_leaves_no_file(locks):
    for _ in range(2):
        with locks.held("x", "working", nobody):
            assert len(list(locks.folder.iterdir())) == 1
        assert list(locks.folder.iterdir()) == []


def test_who_comes_second_is_told_for_whom_and_waits_until_it_is_free(locks, holder):
    other, told = holder(doing="building the package of ümläut"), []

    def waiting(text):
        told.append(text)
        assert not is_free(locks)
        other.release()

    with locks.held("x", "mine", waiting):
        assert other.join() == 0
    assert told == [
        f"waiting for process {other.process.pid} on {socket.gethostname()}, which is building the package of ümläut"
    ]
    assert list(locks.folder.iterdir()) == []


def test_a_killed_process_holds_nothing(locks, holder):
    other, told = holder(), []
    with locks.held("x", "mine", lambda text: (told.append(text), other.kill())):
        assert other.join() == -signal.SIGKILL
    assert len(told) == 1
    other = holder()
    other.kill()
    other.join()
    assert is_free(locks)
    assert list(locks.folder.iterdir()) == []


def test_the_file_that_a_crash_left_is_no_obstacle(locks, holder):
    other = holder(doing="x" * 2000)
    other.kill()
    other.join()
    (left,) = locks.folder.iterdir()
    for content in (left.read_bytes(), b"", b"\xff" * 3000):
        left.write_bytes(content)
        with locks.held("x", "mine", nobody):
            pass
        assert list(locks.folder.iterdir()) == []


def test_what_an_earlier_holder_told_is_not_told_of_the_next(locks, holder):
    first = holder(doing="y" * 700)
    first.kill()
    first.join()
    second, told = holder(doing="deploying"), []
    with locks.held("x", "mine", lambda text: (told.append(text), second.release())):
        pass
    assert told[0].startswith(f"waiting for process {second.process.pid} on ")
    assert told[0].endswith(", which is deploying")


def test_whoever_waits_for_somebody_who_tells_nothing_is_told_so(locks, holder):
    other, told = holder("shared", doing=""), []
    with locks.held("x", "mine", lambda text: (told.append(text), other.release())):
        pass
    assert told == ["waiting for another process of sebs"]


def test_a_block_that_fails_lets_go(locks):
    with pytest.raises(ZeroDivisionError), locks.held("x", "failing", nobody):
        _ = 1 / 0
    assert is_free(locks)


def test_who_fails_while_waiting_holds_nothing_and_takes_nothing_away(locks, holder):
    other = holder()

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), locks.held("x", "mine", fail):
        pass
    assert not is_free(locks)
    other.release()
    other.join()
    assert is_free(locks)


@pytest.mark.parametrize("names", [("a", "b"), ("a b", "a-b"), ("", " "), ("x" * 500 + "1", "x" * 500 + "2")])
def test_locks_of_different_names_do_not_meet(locks, names):
    with locks.held(names[0], "one", nobody), locks.held(names[1], "other", nobody):
        assert len(list(locks.folder.iterdir())) == 2


@pytest.mark.parametrize("name", ["..", "../x", "/etc/x", "", "a\0b", "ümläut", "n" * 1000, "publish double acc/ount i"])
def test_any_name_is_a_file_in_the_folder(locks, tmp_path, name):
    with locks.held(name, "working", nobody):
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(list(locks.folder.iterdir())) == 1
        assert not is_free(locks, name)


def test_eight_processes_that_count_lose_nothing_and_leave_no_file(locks, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count(_):
        for _ in range(200):
            with locks.held("counter", "counting", lambda _: None):
                number = int(counter.read_text())
                counter.write_text(str(number + 1))

    at_once(8, count)
    assert counter.read_text() == "1600"
    assert list(locks.folder.iterdir()) == []


def test_threads_of_one_process_exclude_each_other(locks):
    told, order = [], []
    holding, go_on = threading.Event(), threading.Event()

    def hold():
        with locks.held("x", "working in a thread", nobody):
            holding.set()
            go_on.wait(10)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(10)
    with locks.held("x", "mine", lambda text: (told.append(text), go_on.set())):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert told[0].endswith("which is working in a thread")


def test_threads_that_count_lose_nothing(locks, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count():
        for _ in range(50):
            with locks.held("counter", "counting", lambda _: None):
                number = int(counter.read_text())
                counter.write_text(str(number + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "200"


# --- together -------------------------------------------------------------------------------------------------------------


def test_who_shares_lets_others_share_and_keeps_out_who_wants_it_alone(locks, holder):
    first, second = holder("shared", doing="measuring"), holder("shared", doing="measuring")
    assert (first.first, second.first) == ("holding", "holding")
    with locks.shared("x", "", nobody):
        assert not is_free(locks)
    assert not is_free(locks)
    first.release()
    first.join()
    assert not is_free(locks)
    told = []
    with locks.held("x", "mine", lambda text: (told.append(text), second.release())):
        assert second.join() == 0
    assert told[0].endswith("which is measuring")
    assert list(locks.folder.iterdir()) == []


def test_who_wants_to_share_waits_for_who_holds_it_alone(locks, holder):
    other, told = holder(), []
    with locks.shared("x", "mine", lambda text: (told.append(text), other.release())):
        assert other.join() == 0
    assert told[0].endswith("which is building")


def test_readers_and_writers_that_mix_see_no_half_change(locks, tmp_path):
    left, right = tmp_path / "left", tmp_path / "right"
    for path in (left, right):
        path.write_text("0")

    def work(n):
        for _ in range(50):
            if n < 3:
                with locks.held("x", "writing", lambda _: None):
                    number = int(left.read_text()) + 1
                    left.write_text(str(number))
                    right.write_text(str(number))
            elif n < 6:
                with locks.shared("x", "reading", lambda _: None):
                    assert left.read_text() == right.read_text()
            else:
                with locks.if_free("x") as free:
                    assert not free or left.read_text() == right.read_text()

    at_once(8, work)
    assert left.read_text() == "150"
    assert list(locks.folder.iterdir()) == []


# --- if it is free --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["held", "shared"])
def test_asking_whether_a_lock_is_free_neither_waits_nor_disturbs_who_holds_it(locks, holder, kind):
    assert is_free(locks)
    other = holder(kind)
    for _ in range(2):
        assert not is_free(locks)
    assert len(list(locks.folder.iterdir())) == 1
    other.release()
    other.join()
    assert is_free(locks)
    assert list(locks.folder.iterdir()) == []


def test_a_lock_that_was_free_is_held_within_the_block(locks, holder):
    with locks.if_free("x") as free:
        assert free
        other = holder()
        assert other.first == "waiting"
    assert other.next() == "holding"
    assert not is_free(locks)


def test_a_lock_whose_file_is_removed_just_now_is_not_free(locks, monkeypatch):
    open_file = Locks._open

    def late(self, path):
        descriptor = open_file(self, path)
        path.unlink()  # by who held it until now; the next one makes a new file and may hold that
        return descriptor

    monkeypatch.setattr(Locks, "_open", late)
    assert not is_free(locks)


# --- what may go wrong ----------------------------------------------------------------------------------------------------


def sleeping(pid):
    """Whether a process waits in the kernel; true where that cannot be told."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.read_text().rpartition(")")[2].split()[0] == "S" if stat.exists() else True


@pytest.mark.parametrize("kind", ["held", "shared"])
def test_ctrl_c_ends_waiting_and_changes_nothing(locks, holder, kind):
    other = holder()
    here, there = FORK.Pipe()

    def wait():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with getattr(locks, kind)("x", "mine", there.send):
                there.send("it was got")
        except KeyboardInterrupt:
            there.send("interrupted")
            there.recv()

    process = FORK.Process(target=wait, daemon=True)
    process.start()
    assert here.recv().startswith("waiting for process")
    until = time.monotonic() + 5
    while not sleeping(process.pid) and time.monotonic() < until:
        pass
    os.kill(process.pid, signal.SIGINT)
    assert here.recv() == "interrupted"
    assert not is_free(locks)
    other.release()
    other.join()
    assert is_free(locks)  # although the interrupted process still lives
    here.send("go on")
    process.join(20)
    assert process.exitcode == 0


def test_the_folder_may_be_deleted_while_a_lock_is_held(locks):
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        first.enter_context(locks.held("x", "first", nobody))
        first.enter_context(locks.shared("y", "first", nobody))
        shutil.rmtree(locks.folder)
        stack.enter_context(locks.held("x", "second", nobody))
        first.close()
        assert not is_free(locks)  # the end of the first took nothing from the second
        assert is_free(locks, "y")
    assert list(locks.folder.iterdir()) == []


def test_who_waits_for_a_lock_whose_folder_was_deleted_gets_it_in_the_new_one(locks, holder):
    other = holder()

    def waiting(_):
        shutil.rmtree(locks.folder)
        other.release()

    with locks.held("x", "mine", waiting):
        assert other.join() == 0
        assert not is_free(locks)
    assert list(locks.folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["held", "shared"])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_child_that_was_forked_while_a_lock_was_held_does_not_keep_it(locks, kind, deleted):
    here, there = FORK.Pipe()

    def wait():
        there.recv()
        with locks.held("x", "mine", there.send):
            there.send("holding")

    waiter, end = FORK.Process(target=wait, daemon=True), FORK.Event()
    waiter.start()
    with getattr(locks, kind)("x", "forking", nobody):
        child = FORK.Process(target=end.wait, args=(20,), daemon=True)
        child.start()
        here.send("go on")
        assert here.recv().endswith("which is forking")
        if deleted:
            shutil.rmtree(locks.folder)
    assert here.poll(5)
    assert here.recv() == "holding"
    assert child.is_alive()
    end.set()
    for process in (waiter, child):
        process.join(20)


def test_nothing_is_open_afterwards(locks, holder):
    if sys.platform != "linux":
        pytest.skip("open files are counted in /proc")

    def open_files():
        return len([link for link in Path("/proc/self/fd").iterdir() if ".lock" in os.path.realpath(link)])

    other = holder()
    is_free(locks)
    with pytest.raises(ZeroDivisionError), locks.shared("x", "mine", lambda _: 1 / 0):
        pass
    other.release()
    with locks.held("x", "mine", lambda _: None), locks.shared("y", "mine", nobody):
        assert open_files() == 2
    assert open_files() == 0


def test_a_folder_that_cannot_be_made_is_an_error_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    locks = Locks(tmp_path / "file" / "locks")
    for attempt in (locks.held("x", "d", nobody), locks.shared("x", "d", nobody), locks.if_free("x")):
        with pytest.raises(CacheError, match=r"the lock .*/file/locks/x-.* cannot be made: .*SEBS_CACHE_DIR, SEBS_STATE_DIR"):
            attempt.__enter__()


@pytest.mark.parametrize("kind", ["held", "shared"])
def test_a_file_system_without_locks_is_an_error_with_the_way_out(locks, monkeypatch, kind):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(CacheError, match=r"No locks available.*choose another folder \(SEBS_CACHE_DIR, SEBS_STATE_DIR\)"):
        getattr(locks, kind)("x", "working", nobody).__enter__()


def test_a_full_disk_only_makes_it_tell_less(locks, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", no_space)
    with locks.held("x", "working", nobody):
        assert not is_free(locks)
    assert list(locks.folder.iterdir()) == []
