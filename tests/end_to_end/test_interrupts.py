"""Ctrl-C, SIGTERM and kill -9 at every step: the right exit status, a readable partial result, and nothing left running."""

import json
import os
import signal
import time

import pytest

SLOW = "import time\ndef handler(event):\n    time.sleep(0.05)\n    return {}\n"


@pytest.mark.parametrize("delay_s", [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 1.5])
def test_ctrl_c_at_any_time(sebs, delay_s):
    sebs.benchmark(SLOW)
    process = sebs.start("benchmark", "invoke", "./900.mine", "test", "--repetitions", 2000, "--concurrency", 2)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)
    begun = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - begun < 2
    if process.returncode == -signal.SIGINT:
        assert "sebs_core/cli" not in err, "only while Python itself starts may the signal end it"
        return
    assert process.returncode == 130, err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_a_valid_partial_result(sebs, number):
    sebs.benchmark(SLOW)
    process = sebs.start("benchmark", "invoke", "./900.mine", "test", "--repetitions", 2000, "--concurrency", 2, "--json")
    time.sleep(3)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    told = json.loads(out)
    assert told["state"] == "interrupted"
    assert 10 < told["count"] < 2000
    assert told["failures"] == 0, "what was in flight did not fail"
    assert sebs("benchmark", "statistics", told["run"], "--json").json == told


def test_kill_9_leaves_rows_and_no_process(sebs):
    sebs.benchmark(SLOW)
    process = sebs.start("benchmark", "invoke", "./900.mine", "test", "--repetitions", 2000, "--concurrency", 2)
    time.sleep(4)
    process.kill()
    process.communicate()
    assert not sebs.left_behind()
    (run,) = (sebs.folder / "runs").iterdir()
    told = sebs("benchmark", "statistics", run, "--json").json
    assert told["state"] == "running"
    assert told["count"] >= 20


def test_ctrl_c_while_dependencies_are_installed(sebs, tmp_path):
    sebs.benchmark("def handler(event): ...\n", requirements="numpy\nscipy\npandas\n")
    process = sebs.start("benchmark", "invoke", "./900.mine", "test", UV_CACHE_DIR=str(tmp_path / "uv"))
    time.sleep(0.9)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert not list((sebs.cache / "building").iterdir()), "half a package was left"
