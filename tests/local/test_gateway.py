"""The gateway's process: its HTTP, its privacy, its beginning, and its end, however it comes."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sebs_core.errors import DeployError, FunctionGoneError, MetricsError

ECHO = "def handler(event): return event"
HANG = "import subprocess\ndef handler(event):\n    subprocess.Popen(['sleep', '100'])\n    subprocess.run(['sleep', '100'])"

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes in /proc")


def raw(function):
    url = urlsplit(function.trigger("http").url)
    return socket.create_connection((url.hostname, url.port), timeout=5), url.path.encode()


def post(path, body=b"1", more=b""):
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (path, more, len(body), body)


def answers(connection, count):
    """The bodies of so many answers."""
    data, bodies = b"", []
    while len(bodies) < count:
        more = connection.recv(65536)
        if not more:
            break
        data += more
        while b"\r\n\r\n" in data:
            head, rest = data.split(b"\r\n\r\n", 1)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(rest) < length:
                break
            bodies.append((head.split(b"\r\n")[0], json.loads(rest[:length])))
            data = rest[length:]
    return bodies


class TestHttp:
    def test_pipelined_requests_are_answered_in_order_by_one_instance(self, local):
        function = local.deploy(ECHO)
        connection, path = raw(function)
        with connection:
            connection.sendall(b"".join(post(path, b"%d" % n) for n in range(200)))
            got = answers(connection, 200)
        assert [body["result"] for _, body in got] == list(range(200))
        assert len({body["instance_id"] for _, body in got}) == 1

    def test_pipelined_refusals_do_not_pile_up(self, local):
        connection, _ = raw(local.deploy(ECHO))
        with connection:
            connection.sendall(post(b"/functions/nobody") * 3000)
            got = answers(connection, 3000)
        assert {line for line, _ in got} == {b"HTTP/1.1 404 Not Found"}
        assert len(got) == 3000

    def test_a_request_in_pieces_is_one_request(self, local):
        connection, path = raw(local.deploy(ECHO))
        with connection:
            for byte in post(path, b'"abc"'):
                connection.sendall(bytes([byte]))
            assert answers(connection, 1)[0][1]["result"] == "abc"

    def test_a_chunked_body_and_a_query_are_understood(self, local):
        connection, path = raw(local.deploy(ECHO))
        with connection:
            head = b"POST %b?a=/b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path
            connection.sendall(head + b"1\r\n1\r\n2\r\n23\r\n0\r\n\r\n")
            assert answers(connection, 1)[0][1]["result"] == 123

    def test_a_large_body_is_asked_for(self, local):
        connection, path = raw(local.deploy(ECHO))
        with connection:
            head = b"POST %b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n" % path
            connection.sendall(head)
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"7")
            assert answers(connection, 1)[0][1]["result"] == 7

    @pytest.mark.parametrize(
        ("request_text", "status"),
        [
            (b"GET /functions/test HTTP/1.1\r\nhost: x\r\n\r\n", b"405"),
            (b"nonsense\r\n\r\n", b"400"),
            (b"POST /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        ],
    )
    def test_what_is_not_understood_is_refused_and_ends_the_connection(self, local, request_text, status):
        function = local.deploy(ECHO)
        connection, path = raw(function)
        with connection:
            connection.sendall(request_text + post(path))
            got = answers(connection, 9)
        assert [line.split()[1] for line, _ in got] == [status]
        assert local.call(function, 1).output == 1

    def test_connection_close_is_kept(self, local):
        connection, path = raw(local.deploy(ECHO))
        with connection:
            connection.sendall(post(path, more=b"connection: close\r\n") + post(path))
            assert len(answers(connection, 2)) == 1

    def test_an_unknown_function_is_named(self, local):
        function = local.deploy(ECHO)
        trigger = function.trigger("http")
        stranger = trigger.model_copy(update={"url": trigger.url + "-2"})
        answer = local.call(function.model_copy(update={"triggers": (stranger,)}))
        assert answer.status == 404
        assert "/functions/test-2" in json.loads(answer.body)["message"]

    def test_more_connections_than_the_usual_limit_of_descriptors_are_served(self, start):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        try:
            local = start(max_instances=2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        function = local.deploy(ECHO)
        connections = [raw(function) for _ in range(200)]
        for connection, path in connections:
            connection.sendall(post(path))
        assert [len(answers(connection, 1)) for connection, _ in connections] == [1] * 200
        for connection, _ in connections:
            connection.close()


class TestPrivacy:
    def test_only_this_user_reaches_the_control_channel(self, local):
        folder = Path(local.platform.gateway.folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_ISSOCK((folder / "control").stat().st_mode)

    @needs_proc
    def test_it_listens_on_loopback_only(self, local):
        port = urlsplit(local.platform.gateway.url).port
        listening = []
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                address, state = line.split()[1], line.split()[3]
                if state == "0A" and int(address.split(":")[1], 16) == port:
                    listening.append(address.split(":")[0])
        assert listening == ["0100007F"]

    @needs_proc
    def test_secrets_stand_in_no_file_and_no_record(self, local):
        secret = "s3cr3t-" + os.urandom(8).hex()
        function = local.deploy(ECHO, secrets={"KEY": secret})
        local.call(function)
        assert secret not in function.model_dump_json()
        folder = Path(local.platform.gateway.folder)
        assert not [path for path in folder.rglob("*") if path.is_file() and secret in path.read_text()]
        for pid in (local.platform.gateway.pid, *(instance["pid"] for instance in local.instances())):
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


class TestBeginning:
    def test_a_taken_port_is_named_with_what_to_do(self, start):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(DeployError, match=rf"port {port} of 127\.0\.0\.1.*--set port="):
                start(port=port).deploy(ECHO)

    def test_a_free_port_can_be_chosen(self, start):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        local = start(port=port)
        assert local.deploy(ECHO).trigger("http").url == f"http://127.0.0.1:{port}/functions/test"

    def test_opening_does_not_wait(self, start):
        begun = time.monotonic()
        start()
        assert time.monotonic() - begun < 0.1

    def test_two_sessions_stand_beside_each_other(self, start):
        one, two = start(), start()
        first = one.deploy("def handler(event): return 1")
        second = two.deploy("def handler(event): return 2")
        assert (one.call(first).output, two.call(second).output) == (1, 2)
        with pytest.raises(FunctionGoneError, match="session that deployed it"):
            two.platform.sebs_refresh(first)

    def test_it_starts_in_a_folder_full_of_our_modules_names(self, start, tmp_path, monkeypatch):
        (tmp_path / "json.py").write_text("raise SystemExit(1)")
        monkeypatch.chdir(tmp_path)
        local = start()
        assert local.call(local.deploy(ECHO), 1).output == 1

    def test_the_gateway_stays_small(self):
        code = "import sys, sebs_local.gateway.service; print(*sys.modules)"
        loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
        assert not loaded & {"pydantic", "sebs_core.models", "sebs_local.models", "httpx", "uv"}

    def test_the_shims_own_imports_are_few(self, local):
        function = local.deploy("import sys\nseen = list(sys.modules)\ndef handler(event): return seen")
        seen = set(local.call(function).output)
        assert not seen & {"site", "socket", "subprocess", "pathlib", "typing", "asyncio", "threading", "inspect", "traceback"}


class TestRefreshing:
    def test_a_served_function_is_there_with_its_generation(self, local):
        function = local.deploy(ECHO)
        (after,) = local.platform.sebs_enforce_cold_start([function])
        assert local.platform.sebs_refresh(function).generation == after.generation

    def test_a_removed_or_replaced_function_is_gone(self, local):
        function = local.deploy(ECHO)
        local.deploy("def handler(event): return 2")
        with pytest.raises(FunctionGoneError, match="another package"):
            local.platform.sebs_refresh(function)
        local.platform.sebs_remove(next(iter(local.platform.sebs_resources())))
        with pytest.raises(FunctionGoneError, match="removed"):
            local.platform.sebs_refresh(function)


class TestEnd:
    @pytest.fixture
    def running(self, local, left, wait_until):
        """A gateway with an idle instance, a busy one, and children of both."""
        function = local.deploy("""
            import subprocess, time
            def handler(event):
                subprocess.Popen(["sleep", "100"])
                time.sleep(event)
        """)
        local.call(function, 0)
        slow = local.deploy(HANG, name="slow", timeout_s=60)
        connection, _ = raw(slow)
        connection.sendall(post(b"/functions/slow"))
        assert wait_until(lambda: len(left()) >= 5)
        folder = Path(local.platform.gateway.folder)
        yield folder
        connection.close()

    @needs_proc
    def test_closing_leaves_nothing_and_may_be_repeated(self, local, running, left):
        gateway = local.platform.gateway
        begun = time.monotonic()
        local.close()
        assert time.monotonic() - begun < 2
        assert (left(), running.exists(), Path(f"/proc/{gateway.pid}").exists()) == ([], False, False)
        gateway.close()
        local.close()

    @needs_proc
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
    def test_a_gateway_that_is_killed_leaves_nothing(self, local, running, left, wait_until, number):
        os.kill(local.platform.gateway.pid, number)
        assert wait_until(lambda: not left())
        assert wait_until(lambda: not running.exists())
        with pytest.raises(MetricsError, match="does not answer"):
            local.platform.sebs_logs(None, "x")
        with pytest.raises(DeployError, match="Open a new session"):
            local.deploy(ECHO)
        local.close()

    def test_a_stopped_gateway_is_ended_by_force(self, local, running, left, monkeypatch, wait_until):
        monkeypatch.setattr("sebs_local.connection.END_S", 0.3)
        os.kill(local.platform.gateway.pid, signal.SIGSTOP)
        local.close()
        assert (left(), running.exists()) == ([], False)

    def test_an_interrupt_while_closing_ends_it_all_the_same(self, local, running, left, monkeypatch, wait_until):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("sebs_local.connection._readable", interrupted)
        with pytest.raises(KeyboardInterrupt):
            local.close()
        monkeypatch.undo()
        assert wait_until(lambda: not left())
        assert wait_until(lambda: not running.exists())
        local.close()

    def test_closing_before_it_was_ready_leaves_nothing(self, start, wait_until):
        for pause in (0, 0.02, 0.05, 0.1):
            local = start()
            pid = local.platform.gateway.pid
            time.sleep(pause)
            local.close()
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


CLIENT = """
    import sys, json, threading
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import conftest
    local = conftest.Local(Path({folder!r}))
    idle = local.deploy("def handler(event): return event", name="idle")
    local.call(idle, 1)
    busy = local.deploy({hang!r}, name="busy", timeout_s=60)
    threading.Thread(target=local.call, args=(busy,), daemon=True).start()
    gateway = local.platform.gateway
    print(json.dumps([gateway.pid, gateway.folder]), flush=True)
    {after}
"""


@needs_proc
class TestEndOfTheClient:
    @pytest.fixture
    def client(self, tmp_path, left, wait_until):
        started = []

        def begin(after="threading.Event().wait()"):
            code = textwrap.dedent(CLIENT).format(
                tests=str(Path(__file__).parent), folder=str(tmp_path), hang=HANG, after=after
            )
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
            started.append(process)
            gateway, folder = json.loads(process.stdout.readline())
            assert after != "threading.Event().wait()" or wait_until(lambda: len(left()) == 4)
            return process, gateway, Path(folder)

        yield begin
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()

    @pytest.mark.parametrize("who", ["client", "gateway then client", "client then gateway", "client's group"])
    def test_kill_9_leaves_nothing(self, client, left, wait_until, who):
        process, gateway, folder = client()
        if who == "client's group":
            os.killpg(process.pid, signal.SIGKILL)
        for one in who.split(" then "):
            if one in ("client", "gateway"):
                os.kill(process.pid if one == "client" else gateway, signal.SIGKILL)
        assert wait_until(lambda: not left())
        assert wait_until(lambda: not folder.exists())
        assert wait_until(lambda: not _alive(gateway))

    def test_ending_without_closing_leaves_nothing(self, client, left, wait_until):
        _, gateway, folder = client(after="")
        assert wait_until(lambda: not folder.exists() and not left() and not _alive(gateway))

    def test_an_interrupt_of_the_terminal_does_not_reach_the_gateway(self, client, left):
        after = "\n".join(
            [
                "import signal",
                "signal.signal(signal.SIGINT, lambda *_: print(local.call(idle, 5).output, flush=True))",
                "while True: signal.pause()",
            ]
        )
        process, _, _ = client(after=after)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "5\n"


def _alive(pid):
    """Running, that is: a process that nobody has waited for yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
