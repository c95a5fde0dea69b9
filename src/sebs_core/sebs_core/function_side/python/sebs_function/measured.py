"""Load a handler, call it, and tell what was measured: the same definition of every number on every platform.

A platform's shim does three things: it makes one `Measured` when its process starts, hands it each event as JSON text, and
sends back the text it gets. That text is the envelope, a JSON object:

``sebs``                 version of this protocol
``request_id``           as the platform gave it
``instance_id``          of this process; ``instance_sequence`` counts its calls from 0, ``instance_uptime_us`` its age
``generation``           marker of the last enforced cold start (environment variable ``SEBS_GENERATION``)
``import_us``            import of the benchmark's code
``init_us``              from the start of the process (``SEBS_SPAWNED_NS``, if who started it said so) until it can be called
``handler_us``           event decoded → result not yet encoded; monotonic
``begin_us, end_us``     the same moments on this machine's clock, microseconds since the epoch
``measurement``          what the benchmark timed itself: ``{"result": …, "measurement": {…}}``
``error``                null, or ``{kind, type, message, trace}``
``result``               what the handler returned

The reserved key ``__sebs__`` of an event holds requests to this code: ``{"hold_ms": n}`` keeps the instance busy for at least
that long, so that a warm-up can reach several instances. Imports are few on purpose: they are part of every cold start.
"""

import json
import os
import sys
import time

PROTOCOL = 1
TRACE_LIMIT = 4000


class Measured:
    """One instance of a function."""

    def __init__(self):
        self.born_ns = time.perf_counter_ns()
        self.instance_id = os.urandom(8).hex()
        self.generation = os.environ.get("SEBS_GENERATION", "")
        self.calls = 0
        self.error = None
        self.handler = None
        try:
            self.handler = _load_handler()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.error = _described("init_error", error)
        ready_ns = time.perf_counter_ns()
        self.import_us = (ready_ns - self.born_ns) // 1000
        spawned_ns = os.environ.pop("SEBS_SPAWNED_NS", None)
        self.init_us = None if spawned_ns is None else (time.monotonic_ns() - int(spawned_ns)) // 1000

    def call(self, event_text, request_id):
        """Run the handler on one event (JSON text or bytes); returns the envelope as bytes. Never raises."""
        sequence = self.calls
        self.calls += 1
        uptime_ns = time.perf_counter_ns() - self.born_ns
        hold_s, result, measurement, error = 0, None, None, self.error
        begin_us = end_us = handler_us = None
        try:
            event = json.loads(event_text) if event_text else {}
        except ValueError as cause:
            error = error or _described("function_error", cause)
        if error is None:
            if isinstance(event, dict) and "__sebs__" in event:
                hold_s = _seconds(event.pop("__sebs__"))
            begin_us = time.time_ns() // 1000
            begin_ns = time.perf_counter_ns()
            try:
                result = self.handler(event)
            except KeyboardInterrupt:
                raise
            except SystemExit:
                raise  # a handler that exits ends its instance, as on every platform
            except BaseException as cause:
                error = _described("function_error", cause)
            end_ns = time.perf_counter_ns()
            end_us = time.time_ns() // 1000
            handler_us = (end_ns - begin_ns) // 1000
            if hold_s:
                time.sleep(max(0, hold_s - (end_ns - begin_ns) / 1e9))
        if isinstance(result, dict) and isinstance(result.get("measurement"), dict):
            measurement = result["measurement"]
        envelope = {
            "sebs": PROTOCOL,
            "request_id": request_id,
            "instance_id": self.instance_id,
            "instance_sequence": sequence,
            "instance_uptime_us": uptime_ns // 1000,
            "generation": self.generation,
            "import_us": self.import_us,
            "init_us": self.init_us,
            "handler_us": handler_us,
            "begin_us": begin_us,
            "end_us": end_us,
            "measurement": measurement,
            "error": error,
            "result": result,
        }
        try:
            return json.dumps(envelope, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as cause:
            envelope["measurement"] = envelope["result"] = None
            envelope["error"] = _described("bad_response", cause)
            return json.dumps(envelope).encode()


def _load_handler():
    from function.function import handler

    if not callable(handler):
        raise TypeError("function/function.py has a handler that cannot be called")
    return handler


def _seconds(asked):
    hold_ms = asked.get("hold_ms") if isinstance(asked, dict) else None
    return hold_ms / 1000 if isinstance(hold_ms, (int, float)) and 0 < hold_ms < 60_000 else 0


def _described(kind, error):
    import traceback

    try:  # noqa: SIM105 - contextlib would be one more import in each cold start
        sys.stdout.flush()  # what the function printed before it failed stands before the trace
    except (AttributeError, OSError, ValueError):
        pass
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    print(trace, file=sys.stderr, flush=True)
    return {"kind": kind, "type": type(error).__name__, "message": str(error)[:1000], "trace": trace[-TRACE_LIMIT:]}
