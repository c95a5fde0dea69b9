"""The part that travels with every function: it really runs here in processes of its own, as it does in an instance."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import sebs_core

FUNCTION_SIDE = Path(sebs_core.__file__).parent / "function_side" / "python"
DRIVER = """
import sys, json
sys.path.insert(0, sys.argv[1]); sys.path.insert(0, ".")
from sebs_function.measured import Measured
made = Measured()
answers = [made.call(text, f"r{place}").decode() for place, text in enumerate(json.loads(sys.stdin.read()))]
sys.stdout.write("\\n".join(answers))
"""


@pytest.fixture
def call(tmp_path):
    """``call(code, *events)`` → the envelopes, one for each event; events are objects or JSON text."""

    def run(code, *events, environment=None, check=True):
        (tmp_path / "function").mkdir(exist_ok=True)
        (tmp_path / "function" / "function.py").write_text(textwrap.dedent(code))
        texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
        done = subprocess.run(
            [sys.executable, "-S", "-B", "-c", DRIVER, str(FUNCTION_SIDE)], cwd=tmp_path, input=json.dumps(texts),
            env={"PATH": os.environ["PATH"], **(environment or {})}, capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        run.stderr, run.status = done.stderr, done.returncode
        if check:
            assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_an_instance_counts_its_calls_and_keeps_its_name(call):
    envelopes = call("def handler(event): return event['x']", {"x": 1}, {"x": [2]}, {"x": None})
    assert [envelope["result"] for envelope in envelopes] == [1, [2], None]
    assert [envelope["instance_sequence"] for envelope in envelopes] == [0, 1, 2]
    assert [envelope["request_id"] for envelope in envelopes] == ["r0", "r1", "r2"]
    assert len({envelope["instance_id"] for envelope in envelopes}) == 1
    uptimes = [envelope["instance_uptime_us"] for envelope in envelopes]
    assert uptimes == sorted(uptimes)
    assert {envelope["error"] for envelope in envelopes} == {None}


def test_two_instances_have_different_names(call):
    code = "def handler(event): return 1"
    assert call(code, {})[0]["instance_id"] != call(code, {})[0]["instance_id"]


def test_the_handler_is_timed_and_import_and_hold_are_not_in_it(call):
    (envelope,) = call("import time; time.sleep(0.05)\ndef handler(event): time.sleep(0.02)", {"__sebs__": {"hold_ms": 100}})
    assert 50_000 <= envelope["import_us"] < 100_000
    assert 20_000 <= envelope["handler_us"] < 45_000
    assert abs((envelope["end_us"] - envelope["begin_us"]) - envelope["handler_us"]) < 5_000
    assert abs(envelope["end_us"] / 1e6 - time.time()) < 60


def test_a_held_call_keeps_the_instance_busy_that_long_and_the_handler_does_not_see_it(call):
    code = "import time\ndef handler(event): return [sorted(event), time.monotonic()]"
    one, two = call(code, {"__sebs__": {"hold_ms": 80}, "x": 1}, {})
    assert one["result"][0] == ["x"]
    assert two["result"][1] - one["result"][1] >= 0.08


def test_the_start_of_the_process_is_counted_from_when_it_was_asked_for(call):
    spawned = time.monotonic_ns() - 2_000_000_000
    (envelope,) = call("def handler(event): return 1", {}, environment={"SEBS_SPAWNED_NS": str(spawned)})
    assert envelope["init_us"] >= 2_000_000
    assert call("def handler(event): return 1", {})[0]["init_us"] is None


def test_the_generation_is_echoed(call):
    assert call("def handler(event): return 1", {}, environment={"SEBS_GENERATION": "g7"})[0]["generation"] == "g7"
    assert call("def handler(event): return 1", {})[0]["generation"] == ""


def test_a_handler_that_raises_is_an_error_with_type_message_and_trace_and_the_next_call_is_well(call):
    code = """
    def handler(event):
        if event:
            raise ValueError("no such " + event["x"])
        return "well"
    """
    failed, well = call(code, {"x": "thing"}, {})
    assert failed["error"]["kind"] == "function_error"
    assert (failed["error"]["type"], failed["error"]["message"]) == ("ValueError", "no such thing")
    assert "function.py" in failed["error"]["trace"]
    assert failed["result"] is None
    assert failed["handler_us"] is not None
    assert well["result"] == "well"
    assert "ValueError: no such thing" in call.stderr


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import not_there", "ModuleNotFoundError"),
        ("def handler(event:", "SyntaxError"),
        ("x = 1", "ImportError"),
        ("handler = 5", "TypeError"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_code_that_cannot_be_loaded_answers_every_call_with_the_reason(call, code, kind):
    envelopes = call(code, {}, {})
    for envelope in envelopes:
        assert (envelope["error"]["kind"], envelope["error"]["type"]) == ("init_error", kind)
        assert envelope["handler_us"] is None


@pytest.mark.parametrize(
    "result", ["object()", "{1, 2}", "float('nan')", "float('inf')", "b'x'", "{(1, 2): 3}", "loop"],
)  # fmt: skip
def test_an_answer_that_is_no_json_is_a_bad_response_and_the_instance_lives_on(call, result):
    code = f"loop = []; loop.append(loop)\ndef handler(event): return {result} if event else 1"
    failed, well = call(code, {"x": 1}, {})
    assert failed["error"]["kind"] == "bad_response"
    assert failed["result"] is None
    assert well["result"] == 1


def test_an_event_that_is_no_json_is_an_error_of_the_call(call):
    failed, well, empty = call("def handler(event): return event", "{", "[1]", "")
    assert failed["error"]["kind"] == "function_error"
    assert well["result"] == [1]
    assert empty["result"] == {}


@pytest.mark.parametrize("text", ["ünï \U0001f600", '"quoted" \\ \n\t\0', "\u2028"])
def test_text_of_every_kind_comes_back(call, text):
    (envelope,) = call("def handler(event): return event['x']", {"x": text})
    assert envelope["result"] == text


def test_what_the_benchmark_measured_stands_apart(call):
    measured, none, wrong = call(
        "def handler(event): return event", {"result": 1, "measurement": {"compute_us": 5}}, {"result": 1}, {"measurement": [1]}
    )
    assert measured["measurement"] == {"compute_us": 5}
    assert none["measurement"] is None
    assert wrong["measurement"] is None


@pytest.mark.parametrize(
    "event",
    [
        {"__sebs__": {}},
        {"__sebs__": None},
        {"__sebs__": {"hold_ms": "long"}},
        {"__sebs__": {"hold_ms": -5}},
    ],
    ids=str,
)
def test_a_strange_request_to_this_code_does_not_end_the_instance(call, event):
    assert len(call("def handler(event): return 1", event, {}, check=False)) == 2


def test_a_handler_that_exits_ends_its_instance(call):
    assert call("import sys\ndef handler(event): sys.exit(3)", {}, check=False) == []
    assert call.status == 3
