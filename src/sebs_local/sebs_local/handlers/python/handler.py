"""The process of one function instance: takes events from the gateway of the local platform, answers with envelopes.

Started as ``python -B -S -s handler.py FD`` in a working folder of its own. FD is a stream socket to the gateway, on which
all numbers are big-endian:

1. shim → gateway, once: the *ready* frame, a JSON object with ``begun_ns`` (monotonic clock at this file's first line) and
   ``failed`` (true when the function's code could not be imported; it then answers its first event with the reason).
2. gateway → shim: ``length (4 bytes) | length of the request id (1 byte) | request id (ASCII) | event (JSON text)``;
   the first length counts everything after itself. One frame at a time, each after the answer to the one before.
3. shim → gateway: the envelope (``sebs_function.measured`` documents it).

Frames to the gateway are ``"SEBS" | length (4 bytes) | text``: the four letters tell an answer from what a handler wrote by
accident. Standard output and error are flushed before each answer, so that the gateway knows whose they are. End of file on
the socket ends the process. Imports are few on purpose: they are part of every cold start.
"""

import time

BEGUN_NS = time.monotonic_ns()

import os  # noqa: E402 - the clock comes first
import sys  # noqa: E402

MAGIC = b"SEBS"
CHUNK = 65536


def main():
    """Serve the gateway until it closes the connection."""
    channel = int(sys.argv.pop(1))
    os.set_inheritable(channel, False)  # programs that the handler starts must not hold the connection open
    _complete_builtins()
    from sebs_function.measured import Measured

    measured = Measured()
    failed = "false" if measured.error is None else "true"
    _answer(channel, b'{"begun_ns": %d, "failed": %s}' % (BEGUN_NS, failed.encode()))
    while True:
        frame = _next_frame(channel)
        if frame is None:
            os._exit(0)
        end = 1 + frame[0]
        _answer(channel, measured.call(frame[end:], frame[1:end].decode()))


def _complete_builtins():
    """``exit`` and ``quit`` come from the module site, which this process starts without."""
    import builtins
    from _sitebuiltins import Quitter

    builtins.exit = Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = Quitter("quit", "Ctrl-D (i.e. EOF)")


def _next_frame(channel):
    """The next frame without its length; None at end of file."""
    data = os.read(channel, CHUNK)
    while len(data) < 4:
        more = os.read(channel, CHUNK)
        if not more:
            return None
        data += more
    missing = int.from_bytes(data[:4], "big") + 4 - len(data)
    if missing <= 0:
        return data[4:]
    parts = [data[4:]]
    while missing > 0:
        more = os.read(channel, min(missing, 16 * CHUNK))
        if not more:
            return None
        parts.append(more)
        missing -= len(more)
    return b"".join(parts)


def _answer(channel, text):
    _flush(sys.stdout)
    _flush(sys.stderr)
    data = memoryview(MAGIC + len(text).to_bytes(4, "big") + text)
    while data:
        data = data[os.write(channel, data) :]


def _flush(stream):
    try:  # noqa: SIM105 - contextlib would be one more import in each cold start
        stream.flush()
    except (AttributeError, OSError, ValueError):  # the handler closed or replaced it
        pass


if __name__ == "__main__":
    main()
