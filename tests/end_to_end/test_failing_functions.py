"""A function that fails is a row with its error, exit status 1, and a word about why."""

import pytest

CASES = {
    "raises": ("def handler(event):\n    print('before')\n    raise ValueError('no such thing')\n",
               "function_error", "ValueError: no such thing"),
    "exits": ("import sys\ndef handler(event):\n    sys.exit(3)\n", "crash", "status 3"),
    "dies": ("import os, signal\ndef handler(event):\n    os.kill(os.getpid(), signal.SIGSEGV)\n", "crash", "SIGSEGV"),
    "hangs": ("import time\ndef handler(event):\n    time.sleep(3600)\n", "timeout", "0.3"),
    "spins": ("def handler(event):\n    while True: pass\n", "timeout", "0.3"),
    "returns what is no JSON": ("def handler(event):\n    return {'x': object()}\n", "bad_response", "not JSON serializable"),
    "returns NaN": ("def handler(event):\n    return float('nan')\n", "bad_response", "JSON"),
    "returns 10 MB": ("def handler(event):\n    return 'x' * 10_000_000\n", "too_large", "6 MiB"),
    "cannot be imported": ("import no_such_module\ndef handler(event): ...\n", "init_error", "no_such_module"),
    "has no handler": ("def handle(event): ...\n", "init_error", "handler"),
    "has a syntax error": ("def handler(event)\n    pass\n", "init_error", "SyntaxError"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_way_to_fail(sebs, case):
    source, kind, said = CASES[case]
    sebs.benchmark(source)
    limit = ("--timeout", "0.3") if kind == "timeout" else ()
    done = sebs("benchmark", "invoke", "./900.mine", "test", "--repetitions", 2, "--json", *limit)
    assert done.status == 1, done.err
    assert done.json["count"] == done.json["failures"] == 2
    assert done.json["errors"] == {kind: 2}
    assert done.json["client_us"] is None or done.json["client_us"]["all"]["p50"] is None
    assert said in done.err
    assert "Traceback" not in done.out


def test_what_the_function_printed_is_shown(sebs):
    sebs.benchmark("def handler(event):\n    print('the last words')\n    raise ValueError(1)\n")
    assert "the last words" in sebs("benchmark", "invoke", "./900.mine", "test").err


def test_megabytes_of_output_do_no_harm(sebs):
    sebs.benchmark("def handler(event):\n    print('x' * 5_000_000)\n    return {'result': 1}\n")
    done = sebs("benchmark", "invoke", "./900.mine", "test", "--repetitions", 3, "--json")
    assert (done.status, done.json["failures"]) == (0, 0), done.err


def test_one_failure_among_many_leaves_the_median_known(sebs):
    source = "calls = 0\ndef handler(event):\n    global calls\n    calls += 1\n    assert calls != 5\n    return {}\n"
    sebs.benchmark(source)
    done = sebs("benchmark", "invoke", "./900.mine", "test", "--repetitions", 11, "--json")
    assert (done.status, done.json["failures"]) == (1, 1)
    figures = done.json["client_us"]["all"]
    assert figures["p50"] > 0
    assert figures["max"] is figures["mean"] is figures["p99"] is None


def test_a_wrong_output_is_exit_status_1(sebs):
    folder = sebs.benchmark("def handler(event):\n    return {'result': 2}\n")
    (folder / "input.py").write_text(
        "SIZES = ('test',)\ndef generate_input(size): return {}\n"
        "def check_output(payload, output): return None if output['result'] == 3 else 'it should be 3'\n"
    )
    done = sebs("benchmark", "invoke", "./900.mine", "test", "--json")
    assert (done.status, done.json["outputs_ok"], done.json["failures"]) == (1, False, 0)
    assert "it should be 3" in done.err
    done = sebs("benchmark", "invoke", "./900.mine", "test", "--json", "--no-check-outputs")
    assert (done.status, done.json["outputs_ok"]) == (0, None)
