"""A function that fails is an answer with its error, told apart from all others; the next call works."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

MANY = """
    import os, signal, sys, time
    def handler(event):
        what = event["do"]
        if what == "raise":
            raise RuntimeError("on purpose: \\u00fc")
        if what == "exit":
            exit(0)
        if what == "sys.exit":
            sys.exit(0)
        if what == "os._exit":
            os._exit(3)
        if what == "kill":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        if what == "segfault":
            import ctypes
            ctypes.string_at(0)
        if what == "hang":
            time.sleep(100)
        if what == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                pass
        if what == "print":
            print("x" * (5 << 20))
        if what == "not json":
            return {1, 2}
        if what == "nan":
            return float("nan")
        if what == "10 MB":
            return "x" * (10 << 20)
        if what == "5 MB":
            return "x" * (5 << 20)
        if what == "close all":
            os.closerange(0, 256)
        if what == "close and stay":
            os.closerange(3, 256)
            time.sleep(3)
        if what == "garbage":
            for fd in range(3, 20):
                try:
                    os.write(fd, b"garbage, garbage, garbage")
                except OSError:
                    pass
            time.sleep(3)
        if what == "fork and exit":
            if os.fork() == 0:
                time.sleep(100)
            os._exit(4)
        return "well"
"""

CASES = {
    # what: (error, http status, words of the detail, whether the instance is used again)
    "raise": ("function_error", 500, "RuntimeError: on purpose: ü", True),
    "exit": ("crash", 502, "exited with status 0 during the call", False),
    "sys.exit": ("crash", 502, "exited with status 0 during the call", False),
    "os._exit": ("crash", 502, "exited with status 3 during the call", False),
    "kill": ("crash", 502, "was ended by SIGTERM during the call", False),
    "segfault": ("crash", 502, "was ended by SIGSEGV during the call", False),
    "hang": ("timeout", 504, "took longer than 0.5 s", False),
    "deaf": ("timeout", 504, "took longer than 0.5 s", False),
    "not json": ("bad_response", 502, "TypeError", True),
    "nan": ("bad_response", 502, "ValueError", True),
    "10 MB": ("too_large", 413, "more than the limit of 6 MiB", True),
    "close all": ("crash", 502, "exited with status", False),
    "close and stay": ("crash", 502, "closed its connection to the gateway during the call", False),
    "garbage": ("crash", 502, "something else than an answer", False),
    "fork and exit": ("crash", 502, "exited with status 4 during the call", False),
}


@pytest.mark.parametrize("what", CASES)
def test_a_failure_is_told_and_leaves_nothing(local, left, wait_until, what):
    error, status, words, survives = CASES[what]
    function = local.deploy(MANY, timeout_s=0.5)
    first = local.call(function, {"do": "nothing"})
    answer = local.call(function, {"do": what})
    assert (answer.fields.error, answer.status) == (error, status)
    assert words in answer.fields.error_detail
    assert answer.fields.request_id == answer.headers["x-sebs-request-id"]
    assert answer.headers["x-sebs-error"] == error
    after = local.call(function, {"do": "nothing"})
    assert after.output == "well"
    assert (after.fields.instance_id == first.fields.instance_id) is survives
    assert wait_until(lambda: len(left()) == 1), "children of the failed instance still run"
    assert len(local.numbers(function, answer)) == 1


@pytest.mark.parametrize("what", ["raise", "os._exit", "hang", "10 MB"])
def test_the_library_trigger_answers_200_with_the_failure_in_its_headers(local, what):
    error, _, words, _ = CASES[what]
    function = local.deploy(MANY, timeout_s=0.5)
    answer = local.call(function, {"do": what}, kind="library")
    assert (answer.status, answer.headers["x-sebs-error"], answer.fields.error) == (200, error, error)
    assert words in answer.fields.error_detail
    assert answer.fields.cold_kind == "first_deploy"


def test_a_timeout_comes_in_time_and_kills_grandchildren(local, left, wait_until):
    function = local.deploy(
        """
        import subprocess
        def handler(event):
            subprocess.Popen(["sh", "-c", "sleep 100 & sleep 100"])
            subprocess.run(["sleep", "100"])
        """,
        timeout_s=0.4,
    )
    pending = local.start(function)
    assert wait_until(lambda: len(left()) >= 4)
    answer = pending()
    assert answer.fields.error == "timeout"
    assert answer.seconds < 1.5
    assert wait_until(lambda: not left())
    (numbers,) = local.numbers(function, answer)
    assert 395_000 <= numbers["duration_us"] < 600_000


def test_large_events_and_answers_within_the_limit_pass(local):
    function = local.deploy("def handler(event): return event[::-1]")
    text = "ab" * (5 << 19)
    for _ in range(2):
        assert local.call(function, text).output == text[::-1]


def test_an_event_over_the_limit_is_refused(start):
    local = start(request_limit_mb=1)
    function = local.deploy("def handler(event): return len(event)")
    assert local.call(function, "x" * (1 << 19)).output == 1 << 19
    for kind in ("http", "library"):
        answer = local.call(function, "x" * (1 << 20), kind)
        assert (answer.status, answer.fields.error) == (413, "too_large")
        assert "1 MiB" in answer.fields.error_detail
    assert local.call(function, "x").output == 1


def test_an_event_that_is_no_json_is_the_functions_error(local):
    function = local.deploy("def handler(event): return event")
    answer = local.call(function, b"{not json")
    assert (answer.status, answer.fields.error) == (500, "function_error")
    assert local.call(function, b"").output == {}


def test_a_failed_import_is_an_init_error_with_its_reason_each_time(local, left, wait_until):
    function = local.deploy("import os\nimport no_such_module")
    for _ in range(2):
        answer = local.call(function)
        assert (answer.status, answer.fields.error) == (502, "init_error")
        assert "no_such_module" in answer.fields.error_detail
        assert answer.fields.instance_sequence == 0
        assert wait_until(lambda: not left())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os\nos._exit(7)", "exited with status 7 while it was starting"),
        ("import os\nos.closerange(3, 99)", "while it was starting"),
        ("import time\ntime.sleep(100)", "not ready within 0.5 s"),
    ],
)
def test_an_instance_that_does_not_get_ready_is_an_init_error(start, code, words):
    local = start(init_timeout_s=0.5)
    answer = local.call(local.deploy(code))
    assert (answer.status, answer.fields.error) == (502, "init_error")
    assert words in answer.fields.error_detail


def test_an_interpreter_that_is_gone_is_an_init_error(local):
    local.platform._interpreters["3.10"] = "/nowhere/python3.10"
    answer = local.call(local.deploy("def handler(event): return 1", version="3.10"))
    assert (answer.status, answer.fields.error) == (502, "init_error")
    assert "/nowhere/python3.10" in answer.fields.error_detail


def test_an_instance_that_dies_while_idle_costs_no_call(local, wait_until):
    function = local.deploy("""
        import os, threading
        def handler(event):
            if event:
                threading.Timer(0.05, os._exit, [1]).start()
            return 1
    """)
    assert local.call(function, True).output == 1
    assert wait_until(lambda: not local.instances())
    assert local.call(function, False).output == 1


def test_megabytes_of_output_neither_block_nor_fill_memory(local):
    function = local.deploy(MANY)
    local.call(function, {"do": "nothing"})
    before = _memory_kb(local)
    for _ in range(20):
        answer = local.call(function, {"do": "print"})
        assert answer.output == "well"
    text = local.logs(function, answer)
    assert text.startswith(f"[{(5 << 20) + 1 - 65536} bytes before this were not kept]\n")
    assert len(text) < 70_000
    if before is not None:
        assert _memory_kb(local) - before < 20_000


def _memory_kb(local):
    try:
        status = Path(f"/proc/{local.platform.gateway.pid}/status").read_text()
    except OSError:
        return None
    return int(status.split("VmRSS:")[1].split()[0])


def test_printing_without_end_is_ended_by_the_timeout_while_others_are_served(local):
    noisy = local.deploy("def handler(event):\n    while True: print('x' * 1000)", name="noisy", timeout_s=0.5)
    quiet = local.deploy("def handler(event): return 1", name="quiet")
    local.call(quiet)
    pending = local.start(noisy)
    time.sleep(0.1)
    assert local.call(quiet).output == 1
    assert pending().fields.error == "timeout"


class TestLogs:
    def test_each_call_has_its_own_and_the_first_has_the_imports(self, local):
        function = local.deploy("""
            import sys
            print("imported")
            def handler(event):
                print("out", event)
                print("err", event, file=sys.stderr)
        """)
        answers = [local.call(function, n) for n in range(3)]
        assert sorted(local.logs(function, answers[0]).splitlines()) == ["err 0", "imported", "out 0"]
        for n in (1, 2):
            assert sorted(local.logs(function, answers[n]).splitlines()) == [f"err {n}", f"out {n}"]

    def test_overlapping_calls_are_not_mixed(self, local):
        function = local.deploy("""
            import time
            def handler(event):
                for _ in range(5):
                    print(event)
                    time.sleep(0.02)
                return event
        """)
        for answer in local.together(function, range(4)):
            assert local.logs(function, answer) == f"{answer.output}\n" * 5

    def test_a_crash_keeps_what_was_printed(self, local):
        function = local.deploy("import os\ndef handler(event):\n    print('last words', flush=True)\n    os._exit(1)")
        answer = local.call(function)
        assert local.logs(function, answer) == "last words\n"

    def test_a_failure_prints_its_trace(self, local):
        function = local.deploy("def handler(event): return 1 / 0")
        assert "ZeroDivisionError" in local.logs(function, local.call(function))

    def test_a_silent_call_has_an_empty_one_and_an_unknown_call_none(self, local):
        from sebs_core.errors import MetricsError

        function = local.deploy("def handler(event): return 1")
        assert local.logs(function, local.call(function)) == ""
        with pytest.raises(MetricsError, match="thousand"):
            local.platform.sebs_logs(function, "nobody-1")


class TestIsolation:
    CODE = """
        import os, sys
        def handler(event):
            if event == "argv":
                return sys.argv, __import__("__main__").__file__
            if event == "write":
                open("file", "w").write("x")
                os.makedirs("a/b")
            try:
                import httptools
                seen = "httptools"
            except ImportError:
                seen = ""
            return {"env": dict(os.environ), "cwd": os.getcwd(), "files": os.listdir("."), "seen": seen, "path": sys.path,
                    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else []}
    """

    def test_only_what_was_given_is_in_the_environment(self, start, monkeypatch):
        monkeypatch.setenv("OF_THE_GATEWAY", "x")
        local = start()
        function = local.deploy(self.CODE, environment={"GIVEN": "1", "SEBS_GENERATION": "mine"}, secrets={"KEY": "2"})
        environment = local.call(function).output["env"]
        assert "OF_THE_GATEWAY" not in environment
        assert (environment["GIVEN"], environment["KEY"]) == ("1", "2")
        assert environment["SEBS_GENERATION"] == function.generation
        assert (environment["SEBS_FUNCTION"], environment["SEBS_MEMORY_MB"]) == ("test", "256")
        known = {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE", "MARK", "GIVEN", "KEY", "PWD"}
        assert {name for name in environment if not name.startswith("SEBS_")} <= known

    def test_neither_our_packages_nor_our_arguments_are_seen(self, local):
        function = local.deploy(self.CODE)
        output = local.call(function).output
        assert output["seen"] == ""
        assert not [part for part in output["path"] if "site-packages" in part]
        argv, main = local.call(function, "argv").output
        assert argv == [main] == [f"{function.folder}/handler.py"]

    def test_each_instance_has_a_folder_of_its_own_that_ends_with_it(self, local, wait_until):
        function = local.deploy(self.CODE)
        first = local.call(function, "write").output
        assert sorted(first["files"]) == ["a", "file"]
        assert first["env"]["HOME"] == first["env"]["TMPDIR"] == first["cwd"]
        local.platform.sebs_enforce_cold_start([function])
        second = local.call(function).output
        assert second["files"] == []
        assert second["cwd"] != first["cwd"]
        assert wait_until(lambda: not Path(first["cwd"]).exists())

    def test_the_package_folder_stays_as_it_was(self, local):
        package = local.package(self.CODE)
        before = sorted(package.path.rglob("*"))
        local.call(local.deploy(package))
        assert sorted(package.path.rglob("*")) == before

    def test_no_descriptor_of_the_gateway_is_inherited(self, local):
        fds = local.call(local.deploy(self.CODE)).output["fds"]
        assert len(fds) <= 5  # three standard ones, the socket, the one that listed them

    def test_programs_that_a_handler_starts_do_not_hold_the_instance(self, local, left, wait_until):
        function = local.deploy("""
            import subprocess
            def handler(event):
                subprocess.Popen(["sleep", "100"], start_new_session=False)
                return 1
        """)
        assert local.call(function).output == 1
        assert len(left()) == 2
        local.platform.sebs_enforce_cold_start([function])
        assert wait_until(lambda: not left())


def test_an_error_whose_text_is_no_unicode_is_answered_and_the_instance_serves_on(local):
    function = local.deploy("""
        def handler(event):
            if event == "bad":
                raise ValueError("no such file: a" + chr(0xDC80))
            return event
    """)
    failed = local.call(function, "bad")
    assert (failed.status, failed.fields.error) == (500, "function_error")
    assert failed.seconds < 5
    assert local.call(function, "well").fields.output == "well"


def test_the_answer_of_one_call_is_never_taken_for_that_of_another(local):
    """A handler that forks leaves two processes which both answer."""
    function = local.deploy("""
        import os
        def handler(event):
            os.fork()
            return event
    """)
    for number in range(12):
        answer = local.call(function, number)
        assert answer.fields.error in (None, "crash")
        if answer.fields.error is None:
            assert answer.fields.output == number
            assert answer.fields.request_id == answer.headers["x-sebs-request-id"]
