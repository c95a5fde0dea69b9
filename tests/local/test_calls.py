"""Warm and cold, one at a time and many: which instance serves which call."""

from __future__ import annotations

import json
import threading
import time

import pytest

from sebs_local.gateway.pool import failure_of

ECHO = """
    def handler(event):
        return {"event": event}
"""
SLEEP = """
    import os, time
    def handler(event):
        begun = time.monotonic_ns()
        time.sleep(event["s"])
        return {"pid": os.getpid(), "begun": begun, "ended": time.monotonic_ns(), "number": event.get("number")}
"""


def test_an_instance_is_reused_and_counts_its_calls(local):
    function = local.deploy(ECHO)
    answers = [local.call(function, {"n": n}) for n in range(5)]
    assert [a.status for a in answers] == [200] * 5
    assert [a.output for a in answers] == [{"event": {"n": n}} for n in range(5)]
    assert [a.fields.instance_sequence for a in answers] == [0, 1, 2, 3, 4]
    assert len({a.fields.instance_id for a in answers}) == 1
    assert [a.fields.cold_kind for a in answers] == ["first_deploy", None, None, None, None]
    assert {a.fields.generation for a in answers} == {function.generation}
    assert answers[0].fields.request_id == answers[0].headers["x-sebs-request-id"]
    assert len({a.fields.request_id for a in answers}) == 5


def test_init_is_measured_from_the_spawn_and_holds_the_import(local):
    function = local.deploy("import time\ntime.sleep(0.05)\ndef handler(event): return 1")
    fields = local.call(function).fields
    assert fields.import_us >= 50_000
    assert fields.import_us <= fields.init_us <= 5_000_000


def test_overlapping_calls_get_an_instance_each_and_overlap(local):
    function = local.deploy(SLEEP)
    answers = local.together(function, [{"s": 0.6}] * 8)
    assert len({a.fields.instance_id for a in answers}) == 8
    assert max(a.output["begun"] for a in answers) < min(a.output["ended"] for a in answers)
    again = local.together(function, [{"s": 0.1}] * 8)
    assert {a.fields.instance_id for a in again} == {a.fields.instance_id for a in answers}


def test_the_most_recently_used_idle_instance_comes_first(local):
    function = local.deploy(SLEEP)
    slow = local.start(function, {"s": 0.6})
    local.call(function, {"s": 0})
    last = slow().fields.instance_id
    assert [local.call(function, {"s": 0}).fields.instance_id for _ in range(3)] == [last] * 3


def test_at_the_limit_of_instances_calls_wait_in_order(start):
    local = start(max_instances=2)
    function = local.deploy(SLEEP)
    pending = []
    for number in range(8):
        pending.append(local.start(function, {"s": 0.1, "number": number}))
        time.sleep(0.02)
    outputs = [finish().output for finish in pending]
    assert len({o["pid"] for o in outputs}) == 2
    assert [o["number"] for o in sorted(outputs, key=lambda o: o["begun"])][2:] == [2, 3, 4, 5, 6, 7]


def test_a_queued_call_tells_how_long_it_waited(start):
    local = start(max_instances=1)
    function = local.deploy(SLEEP)
    local.call(function, {"s": 0})
    first = local.start(function, {"s": 0.2})
    time.sleep(0.05)
    second = local.start(function, {"s": 0})
    numbers = local.numbers(function, first(), second())
    assert numbers[0]["queue_us"] < 50_000
    assert 100_000 < numbers[1]["queue_us"] < 300_000


def test_a_client_that_leaves_while_waiting_is_not_served(start, wait_until):
    import http.client
    from urllib.parse import urlsplit

    local = start(max_instances=1)
    function = local.deploy("""
        import time
        calls = 0
        def handler(event):
            global calls
            calls += 1
            time.sleep(event)
            return calls
    """)
    local.call(function, 0)
    slow = local.start(function, 0.4)
    time.sleep(0.05)
    url = urlsplit(function.trigger("http").url)
    leaver = http.client.HTTPConnection(url.hostname, url.port)
    leaver.request("POST", url.path, "0")
    time.sleep(0.05)
    leaver.close()
    assert slow().output == 2
    assert local.call(function, 0).output == 3


def test_a_client_that_leaves_while_running_leaves_a_usable_instance(local):
    import http.client
    from urllib.parse import urlsplit

    function = local.deploy(SLEEP)
    first = local.call(function, {"s": 0})
    url = urlsplit(function.trigger("http").url)
    leaver = http.client.HTTPConnection(url.hostname, url.port)
    leaver.request("POST", url.path, '{"s": 0.1}')
    time.sleep(0.05)
    leaver.close()
    time.sleep(0.15)
    after = local.call(function, {"s": 0})
    assert after.fields.instance_id == first.fields.instance_id
    assert after.fields.instance_sequence == 2


class TestColdStarts:
    def test_enforced_ones_start_a_new_instance_with_the_new_generation(self, local):
        function = local.deploy(ECHO)
        seen = {local.call(function).fields.instance_id}
        for _ in range(5):
            (function,) = local.platform.sebs_enforce_cold_start([function])
            fields = local.call(function).fields
            assert (fields.instance_sequence, fields.cold_kind) == (0, "enforced")
            assert fields.generation == function.generation
            seen.add(fields.instance_id)
        assert len(seen) == 6

    def test_eight_at_once_are_all_cold_and_enforced(self, local):
        function = local.deploy(SLEEP)
        local.together(function, [{"s": 0.3}] * 4)
        (function,) = local.platform.sebs_enforce_cold_start([function])
        answers = local.together(function, [{"s": 0.6}] * 8)
        assert {(a.fields.instance_sequence, a.fields.cold_kind) for a in answers} == {(0, "enforced")}
        assert {a.fields.generation for a in answers} == {function.generation}

    def test_enforced_while_busy_the_running_call_ends_well_and_its_instance_is_not_used_again(self, local, wait_until):
        function = local.deploy(SLEEP)
        local.call(function, {"s": 0})
        running = local.start(function, {"s": 0.3})
        time.sleep(0.1)
        (after,) = local.platform.sebs_enforce_cold_start([function])
        cold = local.call(after, {"s": 0})
        assert cold.fields.cold_kind == "enforced"
        old = running()
        assert old.status == 200
        assert old.fields.generation == function.generation
        for _ in range(3):
            assert local.call(after, {"s": 0}).fields.instance_id == cold.fields.instance_id
        assert wait_until(lambda: len(local.instances()) == 1)

    def test_enforced_while_starting_that_instance_serves_no_later_call(self, local):
        function = local.deploy("import time\ntime.sleep(0.3)\ndef handler(event): return 1")
        running = local.start(function)
        time.sleep(0.1)
        (after,) = local.platform.sebs_enforce_cold_start([function])
        later = local.call(after)
        assert later.fields.generation == after.generation != running().fields.generation

    def test_scale_out_eviction_and_crash_are_told_apart(self, start, wait_until):
        local = start(keep_alive_s=0.4)
        function = local.deploy("""
            import os, time
            def handler(event):
                if event == "crash":
                    os._exit(1)
                time.sleep(event)
        """)
        assert local.call(function, 0).fields.cold_kind == "first_deploy"
        kinds = [a.fields.cold_kind for a in local.together(function, [0.2, 0.2])]
        assert sorted(kinds, key=str) == [None, "scale_out"]
        assert wait_until(lambda: not local.instances())
        assert local.call(function, 0).fields.cold_kind == "evicted"
        assert local.call(function, "crash").fields.error == "crash"
        assert local.call(function, 0).fields.cold_kind == "unknown"

    def test_keep_alive_counts_from_the_last_call(self, start, wait_until):
        local = start(keep_alive_s=0.4)
        function = local.deploy(ECHO)
        first = local.call(function).fields.instance_id
        for _ in range(4):
            time.sleep(0.2)
            assert local.call(function).fields.instance_id == first
        begun = time.monotonic()
        assert wait_until(lambda: not local.instances())
        assert 0.3 < time.monotonic() - begun < 0.8

    def test_no_keep_alive_means_never_warm(self, start, wait_until):
        local = start(keep_alive_s=0)
        function = local.deploy(ECHO)
        for _ in range(3):
            assert local.call(function).fields.instance_sequence == 0
            assert wait_until(lambda: not local.instances())


class TestDeploying:
    def test_another_package_replaces_the_function_for_later_calls_and_running_ones_end(self, local, wait_until):
        old = local.deploy(SLEEP)
        local.call(old, {"s": 0})
        running = local.start(old, {"s": 0.3})
        time.sleep(0.1)
        new = local.deploy("def handler(event): return 'new'")
        assert local.call(new).output == "new"
        assert running().status == 200
        assert wait_until(lambda: len(local.instances()) == 1)

    def test_another_environment_replaces_the_instances(self, local):
        package = local.package("import os\ndef handler(event): return os.environ['WORD'], os.environ['SECRET']")
        first = local.deploy(package, environment={"WORD": "a"}, secrets={"SECRET": "x"})
        assert local.call(first).output == ["a", "x"]
        second = local.deploy(package, environment={"WORD": "b"}, secrets={"SECRET": "y"})
        answer = local.call(second)
        assert (answer.output, answer.fields.cold_kind) == (["b", "y"], "first_deploy")

    def test_the_same_again_keeps_the_instances(self, local):
        package = local.package(ECHO)
        first = local.call(local.deploy(package)).fields.instance_id
        assert local.call(local.deploy(package)).fields.instance_id == first

    def test_waiting_calls_go_to_the_new_package(self, start):
        local = start(max_instances=1)
        old = local.deploy(SLEEP)
        local.call(old, {"s": 0})
        running = local.start(old, {"s": 0.3})
        time.sleep(0.05)
        waiting = local.start(old, {"s": 0})
        time.sleep(0.05)
        local.deploy("def handler(event): return 'new'")
        assert waiting().output == "new"
        assert running().output["number"] is None

    def test_a_removed_function_is_unknown_and_its_instances_end(self, local, left, wait_until):
        function = local.deploy(ECHO)
        local.call(function)
        (resource,) = local.platform.sebs_resources()
        assert (resource.kind, resource.name) == ("function", "test")
        assert local.platform.sebs_remove(resource) is True
        assert local.platform.sebs_remove(resource) is False
        assert list(local.platform.sebs_resources()) == []
        assert wait_until(lambda: not left())
        answer = local.call(function)
        assert (answer.status, answer.fields.error) == (404, "refused")

    def test_functions_beside_each_other_do_not_share_instances(self, local):
        one = local.deploy("def handler(event): return 1", name="one")
        two = local.deploy("def handler(event): return 2", name="two")
        assert [local.call(one).output, local.call(two).output, local.call(one).output] == [1, 2, 1]


@pytest.mark.parametrize("kind", ["http", "library"])
def test_both_triggers_call_the_function(local, kind):
    function = local.deploy(ECHO)
    assert local.call(function, {"a": 1}, kind).output == {"event": {"a": 1}}


def test_many_threads_at_once_lose_no_call(start):
    local = start(max_instances=4)
    function = local.deploy(ECHO)
    seen = []

    def client(number):
        for n in range(25):
            seen.append(local.call(function, [number, n]).output["event"])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [[number, n] for number in range(8) for n in range(25)]


class TestFailureOfAnEnvelope:
    """What the gateway reads of an answer: whether the function failed, without decoding its result."""

    @pytest.mark.parametrize("measurement", [None, {"compute_us": 1}, {"error": None, "result": {"error": 1}}])
    @pytest.mark.parametrize("layout", [{}, {"separators": (",", ":")}, {"indent": 1}, {"sort_keys": True}])
    @pytest.mark.parametrize("failed", [False, True])
    def test_it_is_found_in_any_layout(self, measurement, layout, failed):
        error = (
            {"kind": "function_error", "type": "E", "message": 'a "measurement": null, "error": null, b'} if failed else None
        )
        envelope = {"sebs": 1, "measurement": measurement, "error": error, "result": {"measurement": measurement}}
        kind, detail = failure_of(json.dumps(envelope, **layout).encode())
        assert kind == ("function_error" if failed else None)
        assert bool(detail) is failed

    @pytest.mark.parametrize("text", [b"", b"nonsense", b"[]", b"{}", b'{"error": 1}', b"\xff", b"[" * 100_000])
    def test_what_is_no_envelope_is_a_bad_response(self, text):
        assert failure_of(text)[0] == "bad_response"
