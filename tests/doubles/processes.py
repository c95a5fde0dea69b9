"""Other processes, for tests: one, several at once, one that permission bits bind."""

import ctypes
import multiprocessing
import os

FORK = multiprocessing.get_context("fork")


def in_child(work):
    """What `work()` gives in a process of its own; None if it dies on the way."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=lambda: there.send(work()), daemon=True)
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return None
    finally:
        process.join(20)


def at_once(number, work):
    """What `work(n)` gives in so many processes at once."""
    barrier, answers = FORK.Barrier(number), FORK.SimpleQueue()

    def run(n):
        barrier.wait(20)
        answers.put(work(n))

    processes = [FORK.Process(target=run, args=(n,), daemon=True) for n in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * number
    return [answers.get() for _ in processes]


def give_up_power():
    """Let permission bits bind this process for good, also when it is root's."""
    if os.geteuid() == 0 and hasattr(ctypes.CDLL(None), "capset"):
        header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capget(header, sets)
        for effective_and_permitted in (0, 1):
            sets[effective_and_permitted] &= ~0b110  # DAC_OVERRIDE and DAC_READ_SEARCH
        ctypes.CDLL(None).capset(header, sets)
