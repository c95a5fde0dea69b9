"""The conformance kit itself: what it refuses, its proxy, and `sebs platform check`."""

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sebs_core.testing import FaultProxy, PlatformConformance
from sebs_core.testing.runner import Checked, Choice, check_platform


class Counter(ThreadingHTTPServer):
    """A provider that counts what reaches it."""

    daemon_threads = True

    def __init__(self):
        self.seen = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(handler):
                body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
                self.seen.append((handler.path, body, handler.headers.get("authorization")))
                handler.send_response(201)
                handler.send_header("x-own", "kept")
                handler.send_header("content-length", "2")
                handler.end_headers()
                handler.wfile.write(b"ok")

            do_GET = do_POST

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def provider():
    server = Counter()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(provider):
    with FaultProxy(f"http://127.0.0.1:{provider.server_address[1]}", hold_s=0.1) as made:
        yield made


def post(proxy, path="/a?b=c"):
    request = urllib.request.Request(proxy.url + path, data=b"body", headers={"authorization": "Bearer t"}, method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.status, answer.headers["x-own"], answer.read()


def test_the_proxy_forwards_all_and_writes_it_down(proxy, provider):
    assert post(proxy) == (201, "kept", b"ok")
    assert provider.seen == [("/a?b=c", b"body", "Bearer t")]
    assert [(call.method, call.path, call.status, call.writes) for call in proxy.calls] == [("POST", "/a?b=c", 201, True)]


@pytest.mark.parametrize(("fault", "reached"), [("before", 0), ("after", 1), ("timeout", 0), ("throttled", 0)])
def test_the_proxy_fails_one_call_and_no_other(proxy, provider, fault, reached):
    proxy.fail(2, fault)
    post(proxy, "/1")
    with pytest.raises((OSError, urllib.error.HTTPError)) as failed:
        post(proxy, "/2")
    post(proxy, "/3")
    assert [path for path, *_ in provider.seen] == ["/1", *["/2"] * reached, "/3"]
    assert [call.status for call in proxy.calls] == [201, 429 if fault == "throttled" else None, 201]
    if fault == "throttled":
        assert failed.value.code == 429


def test_a_check_cannot_be_replaced_silently():
    def passes(self):
        pass

    with pytest.raises(TypeError, match="replaces a check of the conformance kit"):
        type("TestMine", (PlatformConformance,), {"test_a_run_measures": passes})
    mixin = type("Mixin", (), {"test_a_run_measures": passes})
    with pytest.raises(TypeError, match="replaces a check"):
        type("TestMine", (mixin, PlatformConformance), {})
    with pytest.raises(TypeError, match="replaces a check"):
        type("TestMine", (PlatformConformance,), {"test_a_run_measures": pytest.mark.xfail(passes)})
    marked = pytest.mark.xfail(reason="the provider counts in hours")(passes)
    assert type("TestMine", (PlatformConformance,), {"test_a_run_measures": marked})
    assert type("TestMine", (PlatformConformance,), {"test_of_my_own": passes})


def test_each_check_says_what_it_catches_and_how_to_mend_it():
    checks = [name for name in dir(PlatformConformance) if name.startswith("test_")]
    assert len(checks) >= 25
    for name in checks:
        text = getattr(PlatformConformance, name).__doc__ or ""
        assert "Catches" in text or "Every" in text, name
        assert "Mend:" in text, name


def test_a_platform_that_cannot_be_made_is_told_check_by_check(tmp_path):
    told = []
    results = check_platform(Choice("no-such-platform"), told.append)
    assert results == told
    assert all(isinstance(one, Checked) for one in told)
    broken = {one.name: one for one in told}["a run measures"]
    assert broken.ok is False
    assert "no installed plugin offers the platform 'no-such-platform'" in broken.found
    assert broken.help.startswith("Catches")


def test_checking_from_the_command_line_tells_one_row_per_check(run_python):
    done = run_python(
        """
        import sys
        from sebs_core.cli import run
        sys.exit(run(["platform", "check", "local", "--json"]))
        """
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["ok"] for row in rows} == {True, None}
    assert all(row["found"] for row in rows if row["ok"] is None), "what is skipped says why"
    assert done.stderr.count("passed") == sum(row["ok"] is True for row in rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "no installed plugin offers the platform 'nowhere'"),
        (["local", "--set", "prot=1"], "has no prot (did you mean port?)"),
        (["local", "--endpoint-setting", "port"], "give the address of the emulator too: --set port=http://"),
    ],
    ids=str,
)
def test_mistakes_are_told_before_anything_is_checked(capsys, arguments, sentence):
    from sebs_core.cli import run

    assert run(["platform", "check", *arguments]) == 2
    assert sentence in capsys.readouterr().err
