"""Ctrl-C that is never lost."""

import contextlib
import signal
import threading

import pytest

from sebs_core.interrupts import Interrupts


def test_outside_a_load_ctrl_c_raises_at_once():
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.watched():
        signal.raise_signal(signal.SIGINT)


def test_during_a_load_the_first_one_is_written_down_and_raised_at_the_next_check():
    interrupts = Interrupts()
    with interrupts.watched():
        with interrupts.held():
            signal.raise_signal(signal.SIGINT)
            reached = True
            with pytest.raises(KeyboardInterrupt):
                interrupts.check()
        interrupts.check()
    assert reached


def test_the_second_one_raises_at_once():
    interrupts = Interrupts()
    with interrupts.watched(), interrupts.held():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_one_that_something_swallowed_is_raised_at_the_next_check():
    interrupts = Interrupts()
    with interrupts.watched():
        with contextlib.suppress(KeyboardInterrupt):  # as libcurl's callbacks do
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_the_handlers_of_before_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), Interrupts().watched():
        assert signal.getsignal(signal.SIGINT) is not before
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_it_rests():
    seen = []

    def work():
        with Interrupts().watched():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_the_next_watch_begins_with_nothing_seen():
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.watched():
        signal.raise_signal(signal.SIGINT)
    with interrupts.watched():
        interrupts.check()
