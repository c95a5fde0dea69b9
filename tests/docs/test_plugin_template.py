"""docs/plugin-template: short, clean, and a plugin that works; at the end also built, installed and alone."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import sebs_core as sebs
from sebs_core.plugins import Plugins

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "docs" / "plugin-template"
MOST_LINES = 150
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

httpx = pytest.importorskip("httpx", reason="the template's plugin needs httpx (group checks)")


def imported(name, folder):
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


platform_module = imported("sebs_skylark.platform", TEMPLATE)
skylark_emulator = imported("skylark_emulator", TEMPLATE / "emulator")


def hello(event):
    import os
    import time

    print("value", event.get("value"))
    time.sleep(event.get("sleep_s", 0))
    if event.get("exit"):
        os._exit(3)
    return {"result": event.get("value"), "environment": {name: os.environ.get(name) for name in event.get("names", [])}}


def other(event):
    return {"result": "other"}


@pytest.fixture
def emulator():
    """One that changes functions at once; tests that need it slow say so."""
    with skylark_emulator.Emulator() as emulator:
        emulator.ready_s = 0
        yield emulator


@pytest.fixture
def connect(emulator, tmp_path):
    """Sessions of users ``home``; what they made is removed."""
    with contextlib.ExitStack() as stack:

        def open_one(home="home", **more):
            place = tmp_path / home
            given = {"endpoint": emulator.url, "token": emulator.token, **more}
            folders = {f"{name}_dir": place / name for name in ("cache", "state", "output")}
            plugins = Plugins([metadata.EntryPoint("skylark", "sebs_skylark", "sebs")])
            return stack.enter_context(sebs.connect("skylark", plugins=plugins, **folders, **given))

        yield open_one


@pytest.fixture
def session(connect):
    return connect()


@pytest.fixture
def naps(monkeypatch):
    """For how long the plugin waits between two tries; it need not."""
    told = []

    def nap(seconds):
        told.append(seconds)
        time.sleep(0.01)

    clock = SimpleNamespace(sleep=nap, monotonic=time.monotonic, time_ns=time.time_ns)
    monkeypatch.setattr(platform_module, "time", clock)
    return told


def packaged(session, function=hello):
    return session.package(sebs.Benchmark.from_function(function, name="hello"))


def ask(emulator, method, path, body=None, token=None):
    """One call of the API, as by another program."""
    request = urllib.request.Request(
        f"{emulator.url}{path}" if path.startswith("/") else f"{emulator.url}/v1/north/{path}",
        method=method,
        data=None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={"authorization": f"Bearer {token or emulator.token}"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.py", text)
    return base64.b64encode(buffer.getvalue()).decode()


def settled(emulator, name):
    deadline = time.monotonic() + 10
    while True:
        there = ask(emulator, "GET", f"functions/{name}")[1]
        if there["state"] != "pending" or time.monotonic() > deadline:
            return there
        time.sleep(0.01)


def writes(emulator):
    return [(method, path) for method, path, _ in emulator.calls if method != "GET"]


def statuses(session):
    return {holding.resource.key: holding.status for holding in session.resources()}


# --- as text --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path):
    """The template as somebody copies it."""
    target = tmp_path / "sebs-skylark"
    shutil.copytree(TEMPLATE, target, ignore=shutil.ignore_patterns("__pycache__", ".*", "dist", "build", "*.egg-info"))
    return target


def run(*command, cwd, **more):
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False, **more
    )


def test_the_plugin_is_short():
    lines = {path.name: len(path.read_text().splitlines()) for path in (TEMPLATE / "sebs_skylark").glob("*.py")}
    assert set(lines) == {"__init__.py", "models.py", "platform.py"}
    assert sum(lines.values()) <= MOST_LINES, lines


def test_names_can_be_replaced():
    for path in sorted(TEMPLATE.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".toml", ".md"):
            found = set(re.findall("skylark", path.read_text(), re.IGNORECASE))
            assert found <= {"skylark", "Skylark"}, f"{path.name}: {found}"


def test_it_follows_its_own_rules_of_style(copied):
    pytest.importorskip("ruff", reason="ruff is not installed (group checks)")
    for command in (["check"], ["format", "--check"]):
        done = run(sys.executable, "-m", "ruff", *command, ".", cwd=copied)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_its_types_are_right(copied):
    pytest.importorskip("mypy", reason="mypy is not installed (group checks)")
    done = run(sys.executable, "-m", "mypy", "--strict", cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr


def test_announcing_the_platform_imports_no_http_library():
    code = "import sys, sebs_skylark; list(sebs_skylark.sebs_platforms()); assert 'httpx' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- deploying ------------------------------------------------------------------------------------------------------------


def test_a_whole_run_with_cold_starts(session, emulator):
    emulator.ready_s = 0.05
    result = session.run(
        sebs.Benchmark.from_function(hello), payload={"value": 7}, start="cold", load=sebs.Closed(concurrency=2, repetitions=4)
    )
    rows = {name: result.invocations[name].to_pylist() for name in ("error", "cold", "instance_id", "generation", "provider")}
    assert rows["error"] == [None] * 4
    assert rows["cold"] == [True] * 4
    assert len(set(rows["instance_id"])) == 4
    assert list(Counter(rows["generation"]).values()) == [2, 2]
    assert all(provider["duration_us"] > 0 and provider["init_us"] > 0 for provider in rows["provider"])
    assert result.manifest.metrics_missing == 0
    assert result.manifest.function.provider_time_kind == "sandbox"
    assert statuses(session) == {
        f"function/{result.manifest.function.name}": "exists",
        f"role/sebs-{session.resources_id}-role": "exists",
    }
    assert session.account == f"{emulator.account}/north"


def test_the_same_function_is_not_deployed_again(connect, emulator):
    function = connect().deploy(packaged(connect()))
    before = writes(emulator)
    again = connect()
    assert again.deploy(packaged(again)).deployment == function.deployment
    assert writes(emulator) == before


def test_code_configuration_and_secrets_are_updated(session, emulator):
    first = session.deploy(packaged(session))
    assert session.invoke(first, {"value": 1}).output["result"] == 1
    second = session.deploy(packaged(session), memory_mb=512, environment={"PLAIN": "one"}, secrets={"HIDDEN": "a-secret"})
    assert (second.name, second.config.memory_mb) == (first.name, 512)
    answer = session.invoke(second, {"value": 2, "names": ["PLAIN", "HIDDEN"]})
    assert answer.output["environment"] == {"PLAIN": "one", "HIDDEN": "a-secret"}
    third = session.deploy(packaged(session))
    answer = session.invoke(third, {"names": ["PLAIN", "HIDDEN"]})
    assert answer.output["environment"] == {"PLAIN": None, "HIDDEN": None}
    fourth = session.deploy(packaged(session, other), function_name=third.name)
    assert session.invoke(fourth, {}).output == {"result": "other"}
    assert [holding.resource.name for holding in session.resources() if holding.resource.kind == "function"] == [third.name]


BEHIND_THE_BACK = {
    "memory": {"memory_mb": 1024},
    "time limit": {"timeout_s": 2},
    "environment": {"environment": {"PLAIN": "theirs"}},
    "secrets": {"secrets": {"HIDDEN": "theirs"}},
    "code": {"code": zipped(handler="def handler(event, request): return b'{}'")},
    "entry point": {"entry_point": "handler.other"},
}


@pytest.mark.parametrize("change", BEHIND_THE_BACK.values(), ids=BEHIND_THE_BACK)
def test_what_somebody_else_changed_is_seen_and_put_right(session, emulator, change):
    given = {"environment": {"PLAIN": "ours"}, "secrets": {"HIDDEN": "our-secret"}}
    function = session.deploy(packaged(session), **given)
    assert ask(emulator, "PATCH", f"functions/{function.name}", change)[0] == 200
    seen = session.stages.call("sebs_refresh", function=function)
    assert seen.package_digest != function.package_digest
    shown = {key: value for key, value in change.items() if key in ("memory_mb", "timeout_s", "environment")}
    assert {key: getattr(seen.config, key) for key in shown} == shown
    again = session.deploy(packaged(session), **given)
    assert (again.config, again.package_digest) == (function.config, function.package_digest)
    answer = session.invoke(again, {"value": 5, "names": ["PLAIN", "HIDDEN"]})
    assert (answer.error, answer.output["result"]) == (None, 5)
    assert answer.output["environment"] == {"PLAIN": "ours", "HIDDEN": "our-secret"}


def test_what_somebody_else_removed_is_made_again(session, emulator):
    function = session.deploy(packaged(session))
    for path in (f"functions/{function.name}", f"roles/sebs-{session.resources_id}-role"):
        assert ask(emulator, "DELETE", path)[0] == 200
    with pytest.raises(sebs.FunctionGoneError, match="it was removed"):
        session.stages.call("sebs_refresh", function=function)
    again = session.deploy(packaged(session))
    assert session.invoke(again, {"value": 1}).error is None


def test_a_function_that_is_there_by_half_is_made_whole(session, emulator):
    tags = {"resources_id": session.resources_id}
    half = {"role": f"sebs-{session.resources_id}-role", "language_version": PYTHON, "entry_point": "handler.handler"}
    half |= {"memory_mb": 128, "timeout_s": 1, "environment": {}, "secrets": {}, "label": ""}
    assert ask(emulator, "POST", "roles", {"name": half["role"], "tags": tags})[0] == 200
    assert ask(emulator, "POST", "functions", {"name": "half", "tags": tags, **half})[0] == 200
    assert settled(emulator, "half")["state"] == "failed"
    function = session.deploy(packaged(session), function_name="half")
    assert session.invoke(function, {"value": 1}).output["result"] == 1
    assert statuses(session) == {"function/half": "exists", f"role/{half['role']}": "exists"}


def test_a_function_of_somebody_else_is_left_alone(connect, emulator):
    theirs = connect("theirs")
    function = theirs.deploy(packaged(theirs), function_name="shared")
    ours = connect("ours")
    with pytest.raises(sebs.DeployError, match="somebody else's"):
        ours.deploy(packaged(ours, other), function_name="shared")
    assert theirs.stages.call("sebs_refresh", function=function).package_digest == function.package_digest
    assert [removal.error for removal in ours.cleanup() if removal.resource.kind == "role"] == [None]


def test_code_that_cannot_start_fails_the_deployment_with_the_reason(session):
    package = packaged(session).model_copy(update={"entry_point": "nothing.handler"})
    with pytest.raises(sebs.DeployError, match=r"its code has no nothing\.py"):
        session.deploy(package)
    assert session.deploy(packaged(session)).name


def test_a_package_that_is_gone_is_told(session):
    package = packaged(session)
    with pytest.raises(sebs.DeployError, match="cannot be read"):
        session.deploy(package.model_copy(update={"path": package.path / "nowhere"}))


def test_what_the_provider_refuses_is_told_in_its_words(session, naps):
    package = packaged(session)
    config = session.deploy(package).config.model_copy(update={"memory_mb": 64})  # past core's check of the capabilities
    naps.clear()
    with pytest.raises(sebs.DeployError, match=r"functions: memory_mb must be from 128 to 4096") as refused:
        session.stages.call("sebs_deploy", package=package, config=config, previous=None, environment={}, secrets={})
    assert isinstance(refused.value.__cause__, httpx.HTTPStatusError)
    assert naps == []


# --- what goes wrong on the way ---------------------------------------------------------------------------------------------


def test_throttled_calls_are_repeated_when_the_provider_says(session, emulator, naps):
    assert session.account
    emulator.throttled, emulator.retry_after = 2, "3"
    assert session.resources() == []
    assert naps == [3, 3]


def test_what_is_throttled_for_ever_ends_with_an_error(session, emulator, naps):
    function = session.deploy(packaged(session))
    before = len(emulator.calls)
    emulator.throttled = 1000
    with pytest.raises(sebs.DeployError, match="slow down"):
        session.cleanup()
    assert len(emulator.calls) - before == 4
    with pytest.raises(sebs.MetricsError, match="slow down"):
        session.logs(function, "some-request")
    emulator.throttled = 0
    assert [removal.error for removal in session.cleanup()] == [None, None]


@pytest.mark.parametrize("asked", ["100000", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", ""])
def test_no_provider_can_make_us_wait_for_long(session, emulator, naps, asked):
    assert session.account
    emulator.throttled, emulator.retry_after = 1, asked
    assert session.resources() == []
    assert len(naps) == 1
    assert 0 < naps[0] <= 10


def test_a_wrong_token_is_told_and_not_repeated(connect, naps, emulator):
    with pytest.raises(sebs.CredentialsError, match="GET account: the token is missing, or not valid") as refused:
        connect(token="not-the-token").account  # noqa: B018
    assert refused.value.exit_status == 2
    assert "not-the-token" not in str(refused.value)
    assert naps == []


def test_a_wrong_region_is_told_with_the_right_ones(connect):
    with pytest.raises(sebs.SebsError, match="north, south"):
        connect(region="west").account  # noqa: B018


def test_regions_are_accounts_of_their_own(connect):
    north, south = connect(), connect(region="south")
    function = north.deploy(packaged(north))
    assert south.resources() == []
    there = south.deploy(packaged(south), function_name=function.name)
    assert south.invoke(there, {"value": 1}).error is None
    assert len(north.resources()) == len(south.resources()) == 2


def test_a_provider_that_is_down_is_told(connect, naps):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(sebs.DeployError, match="ConnectError") as failed:
        connect(endpoint=f"http://127.0.0.1:{port}").account  # noqa: B018
    assert isinstance(failed.value.__cause__, httpx.ConnectError)
    assert len(naps) == 3


def test_a_provider_that_does_not_answer_is_not_waited_for_for_ever(connect, naps):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_session = connect(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", request_timeout_s=0.1)
        begun = time.monotonic()
        with pytest.raises(sebs.DeployError, match="ReadTimeout"):
            silent_session.account  # noqa: B018
        assert time.monotonic() - begun < 5


def test_an_endpoint_that_is_no_address_is_refused_at_once(connect):
    with pytest.raises(sebs.ConfigError, match="endpoint"):
        connect(endpoint="skylark.example")


@pytest.mark.parametrize("lost", range(1, 8))
def test_any_answer_may_be_lost_on_its_way(connect, emulator, monkeypatch, lost):
    """The call had its effect, and nobody was told."""
    emulator.ready_s = 0.05
    session = connect()
    assert session.resources_id
    request, count = httpx.Client.request, [0]

    def lossy(*arguments, **more):
        response = request(*arguments, **more)
        count[0] += 1
        if count[0] == lost:
            raise httpx.ReadTimeout("the answer was lost")
        return response

    monkeypatch.setattr(httpx.Client, "request", lossy)
    function = session.deploy(packaged(session))
    assert session.invoke(function, {"value": 1}).error is None
    assert set(statuses(session).values()) == {"exists"}
    assert [removal.error for removal in session.cleanup()] == [None, None]
    assert ask(emulator, "GET", "resources?tag=resources_id&cursor=")[1]["items"] == []


@pytest.mark.parametrize("first", range(1, 4))
def test_after_any_call_that_fails_for_good_nothing_is_lost(connect, emulator, monkeypatch, naps, first):
    """Each write has its effect, and from some call on nobody is ever told."""
    session = connect()
    assert session.resources_id
    request, count = httpx.Client.request, [0]

    def broken(*arguments, **more):
        response = request(*arguments, **more)
        count[0] += 1
        if count[0] >= first:
            raise httpx.RemoteProtocolError("the connection broke")
        return response

    with monkeypatch.context() as patch:
        patch.setattr(httpx.Client, "request", broken)
        with pytest.raises(sebs.DeployError, match="the connection broke"):
            session.deploy(packaged(session))
    assert "unrecorded" not in statuses(session).values()
    assert [removal.error for removal in session.cleanup()] in ([None], [None, None])
    assert ask(emulator, "GET", "resources?tag=resources_id&cursor=")[1]["items"] == []


# --- invoking and measuring -------------------------------------------------------------------------------------------------


def test_failures_are_told_apart(session, emulator):
    function = session.deploy(packaged(session), timeout_s=1)
    wrong = [{"value": 1, "sleep_s": "x"}, {"sleep_s": 3}, {"exit": True}, {"value": "x" * (7 << 20)}]
    told = [session.invoke(function, event) for event in wrong]
    assert [one.error for one in told] == ["function_error", "timeout", "crash", "too_large"]
    assert all(one.error_detail for one in told)
    assert all(one.request_id for one in told[:3])
    assert session.invoke(function, {"value": 1}).error is None
    assert ask(emulator, "DELETE", f"functions/{function.name}")[0] == 200
    assert session.invoke(function, {"value": 1}).error == "refused"


def test_more_than_the_provider_takes_is_throttled(session, emulator):
    emulator.max_instances = 1
    load = sebs.Closed(concurrency=3, repetitions=6)
    result = session.run(sebs.Benchmark.from_function(hello), payload={"sleep_s": 0.2}, load=load)
    assert set(result.summary().errors) == {"throttled"}
    assert result.summary().count == 6


def test_late_metrics_are_missing_until_they_are_there(session, emulator):
    emulator.metrics_delay_s = 3600
    result = session.run(sebs.Benchmark.from_function(hello), payload={"value": 1}, load=sebs.Closed(repetitions=3))
    assert result.manifest.metrics_missing == 3
    emulator.metrics_delay_s = 0
    foreign = session.invoke(result.manifest.function, {"value": 2})
    metrics = session.collect_metrics(result)
    assert result.manifest.metrics_missing == 0
    assert foreign.request_id not in metrics.values
    assert set(metrics.values) == set(result.invocations["request_id"].to_pylist())


def test_logs_are_of_their_request(session):
    function = session.deploy(packaged(session))
    one, two = (session.invoke(function, {"value": value}) for value in ("first", "second"))
    assert session.logs(function, one.request_id) == "value first\n"
    assert session.logs(function, two.request_id) == "value second\n"
    for unknown in ("unknown", "../roles", ""):
        with pytest.raises(sebs.MetricsError, match="nothing is known"):
            session.logs(function, unknown)


def test_an_enforced_cold_start_is_one(session):
    function = session.deploy(packaged(session))
    warm = [session.invoke(function, {"value": 1}) for _ in range(2)]
    assert [one.cold for one in warm] == [True, False]
    (renewed,) = session.stages.call("sebs_enforce_cold_start", functions=[function])
    cold = session.invoke(renewed, {"value": 1})
    assert (cold.instance_sequence, cold.generation) == (0, renewed.generation)
    assert cold.instance_id != warm[0].instance_id
    # It is no change of the function.
    assert session.deploy(packaged(session)).deployment == function.deployment


def test_asynchronous_invocations_are_accepted_at_once(session, emulator):
    function = session.deploy(packaged(session))
    trigger = session.stages.call("sebs_create_trigger", function=function, kind="http", asynchronous=True)
    assert trigger.asynchronous
    request = session.stages.call("sebs_request", function=function, trigger=trigger, payload=b'{"value": "later"}')
    answer = httpx.request(request.method, request.url, content=request.body)
    assert answer.status_code == 202
    response = sebs.Response(answer.status_code, dict(answer.headers), answer.content)
    told = session.stages.call("sebs_response", function=function, trigger=trigger, response=response)
    assert (told.error, bool(told.request_id)) == (None, True)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(sebs.MetricsError):
            assert session.logs(function, told.request_id) == "value later\n"
            return
        time.sleep(0.05)
    raise AssertionError("it did not run")


# --- what there is, and its removal -----------------------------------------------------------------------------------------


def test_listings_go_through_all_pages(connect, emulator):
    emulator.page_size = 1
    one, two = connect("one"), connect("two")
    names = {one.deploy(packaged(one), function_name=f"f{number}").name for number in range(3)}
    two.deploy(packaged(two), function_name="theirs")
    assert ask(emulator, "POST", "roles", {"name": "untagged", "tags": {}})[0] == 200
    own = {f"function/{name}" for name in names} | {f"role/sebs-{one.resources_id}-role"}
    assert set(statuses(one)) == own
    listed = {resource.key: resource.resources_id for resource in one.listed()}
    assert set(listed) == own | {"function/theirs", f"role/sebs-{two.resources_id}-role"}
    assert listed["function/theirs"] == two.resources_id
    assert {removal.resource.key for removal in one.cleanup() if removal.removed} == own
    left = ask(emulator, "GET", "resources?tag=resources_id&cursor=")[1]["items"]
    assert [item["name"] for item in left] == ["theirs"]
    assert len(two.resources()) == 2


def test_a_clean_up_goes_in_order_and_a_dry_run_writes_nothing(session, emulator):
    function = session.deploy(packaged(session))
    before = writes(emulator)
    assert [removal.removed for removal in session.cleanup(dry_run=True)] == [False, False]
    assert writes(emulator) == before
    (role,) = [holding.resource for holding in session.resources() if holding.resource.kind == "role"]
    with pytest.raises(sebs.DeployError, match=f"used by the functions {function.name}"):
        session.stages.call("sebs_remove", resource=role)
    assert [removal.removed for removal in session.cleanup()] == [True, True]
    deleted = [path for method, path in writes(emulator)[len(before) + 1 :] if method == "DELETE"]
    assert [path.split("/")[3] for path in deleted] == ["functions", "roles"]


def test_removing_what_is_gone_is_no_error(session):
    session.deploy(packaged(session))
    resources = [holding.resource for holding in session.resources()]
    assert all(removal.removed for removal in session.cleanup())
    assert [session.stages.call("sebs_remove", resource=resource) for resource in resources] == [False, False]
    assert session.cleanup() == []


def test_secrets_are_written_nowhere(session, emulator, tmp_path, caplog):
    caplog.set_level("DEBUG")
    benchmark = sebs.Benchmark.from_function(hello)
    session.run(benchmark, payload={"value": 1}, secrets={"HIDDEN": "planted-secret"}, load=sebs.Closed(repetitions=2))
    for secret in (emulator.token, "planted-secret"):
        assert secret not in caplog.text
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 5
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


# --- the emulator -----------------------------------------------------------------------------------------------------------

WHOLE = {
    "role": "r", "language_version": PYTHON, "entry_point": "handler.handler", "memory_mb": 128, "timeout_s": 1.5,
    "environment": {}, "secrets": {"KEY": "value"}, "label": "mine",
    "code": zipped(handler="import os\ndef handler(event, request): return os.environ['FUNCTION_GENERATION'].encode()"),
}  # fmt: skip


@pytest.fixture
def made(emulator):
    """A function, active."""
    assert ask(emulator, "POST", "roles", {"name": "r", "tags": {}})[0] == 200
    assert ask(emulator, "POST", "functions", {"name": "f", "tags": {"a": "b"}, **WHOLE})[1]["state"] == "pending"
    assert settled(emulator, "f")["state"] == "active"
    return "f"


REFUSED = {
    "without a token": (401, "GET", "account", None),
    "another region": (404, "GET", "/v1/west/account", None),
    "no such call": (404, "GET", "functions", None),
    "a second role": (409, "POST", "roles", {"name": "r", "tags": {}}),
    "a role in use": (409, "DELETE", "roles/r", None),
    "a role that is not there": (404, "DELETE", "roles/none", None),
    "a role without a name": (400, "POST", "roles", {"tags": {}}),
    "a second function": (409, "POST", "functions", {"name": "f", "tags": {}, **WHOLE}),
    "a function without a role": (400, "POST", "functions", {"name": "g", "tags": {}, **WHOLE, "role": "none"}),
    "a function of another Python": (400, "POST", "functions", {"name": "g", "tags": {}, **WHOLE, "language_version": "2.7"}),
    "a function that lacks much": (400, "POST", "functions", {"name": "g", "tags": {}}),
    "an unknown field": (400, "PATCH", "functions/f", {"memory": 128}),
    "another type": (400, "PATCH", "functions/f", {"memory_mb": "128"}),
    "texts that are none": (400, "PATCH", "functions/f", {"environment": {"A": 1}}),
    "too little time": (400, "PATCH", "functions/f", {"timeout_s": 0.5}),
    "code that is no zip": (400, "PATCH", "functions/f", {"code": "bm8gemlw"}),
    "an update of nothing": (404, "PATCH", "functions/none", {"memory_mb": 128}),
    "an update of somebody else's": (412, "PATCH", "functions/f?a=c", {"memory_mb": 128}),
    "a removal of nothing": (404, "DELETE", "functions/none", None),
    "a body that is no JSON": (400, "PATCH", "functions/f", b"{"),
    "a body that is no object": (400, "PATCH", "functions/f", [1]),
    "a log that is not known": (404, "GET", "functions/f/logs?id=none", None),
    "a listing without a tag": (400, "GET", "resources?cursor=", None),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_the_emulator_refuses(emulator, made, refused):
    status, method, path, body = refused
    before = ask(emulator, "GET", "functions/f")
    token = "not-the-token" if status == 401 else None
    told, why = ask(emulator, method, path, body, token)
    assert (told, len(str(why).split()) > 2) == (status, True), why
    assert ask(emulator, "GET", "functions/f") == before


def test_the_emulator_tells_no_secret(emulator, made):
    there = ask(emulator, "GET", "functions/f")[1]
    assert there["secrets"] == ["KEY"]
    assert "code" not in there


def test_until_a_change_is_done_the_instances_of_before_answer(emulator, made):
    url = ask(emulator, "GET", "functions/f")[1]["url"]
    emulator.ready_s = 3600
    assert ask(emulator, "PATCH", "functions/f", {"generation": "next"})[1]["state"] == "pending"
    assert [httpx.post(url).text for _ in range(2)] == ["initial", "initial"]
    emulator.ready_s = 0
    assert settled(emulator, "f")["generation"] == "next"
    assert httpx.post(url).text == "next"
    assert ask(emulator, "GET", "functions/f")[1]["label"] == "mine"


def test_the_emulator_ends_all_that_it_started():
    code = "import os, time\ndef handler(event, request):\n    return str(os.getpid()).encode()"
    forks = "import os, subprocess\ndef handler(event, request):\n    return b'%d' % subprocess.Popen(['sleep', '600']).pid"
    with skylark_emulator.Emulator() as emulator:
        ask(emulator, "POST", "roles", {"name": "r", "tags": {}})
        pids = []
        for name, source in {"one": code, "two": forks}.items():
            there = ask(emulator, "POST", "functions", {"name": name, "tags": {}, **WHOLE, "code": zipped(handler=source)})[1]
            settled(emulator, name)
            pids.append(int(httpx.post(there["url"]).text))
        assert all(alive(pid) for pid in pids)
        folder = Path(emulator._folder.name)
        assert folder.is_dir()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in pids if alive(pid)] == []
    assert not folder.exists()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_emulator_runs_by_hand(number):
    command = [sys.executable, str(TEMPLATE / "emulator" / "skylark_emulator.py"), "--token", "open-sesame"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            told = dict(pair.split("=", 1) for pair in process.stdout.readline().split())
            answer = httpx.get(f"{told['endpoint']}/v1/south/account", headers={"authorization": "Bearer open-sesame"})
            assert answer.json()["region"] == "south"
            process.send_signal(number)
            assert (process.wait(10), process.stderr.read()) == (0, "")
        finally:
            process.kill()


# --- alone ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_works_built_and_installed_elsewhere(copied, tmp_path):
    uv = pytest.importorskip("uv").find_uv_bin()
    wheels, fresh = tmp_path / "wheels", tmp_path / "venv"
    for source in (ROOT / "src" / "sebs_core", copied):
        done = run(uv, "build", "--quiet", "--wheel", "--out-dir", wheels, source, cwd=tmp_path)
        skip_without_index(done)
        assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("sebs_skylark-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = ("__init__.py", "models.py", "platform.py", "py.typed", "handlers/python/handler.py")
    assert names == {f"sebs_skylark/{name}" for name in code}
    done = run(uv, "venv", "--quiet", "--python", sys.executable, fresh, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    install = [uv, "pip", "install", "--quiet", "--python", fresh, "-c", ROOT / "constraints.txt", "pytest"]
    done = run(*install, *sorted(wheels.glob("*.whl")), cwd=tmp_path)
    skip_without_index(done)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(copied / "sebs_skylark")  # what is tested is what was installed
    done = run(fresh / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    listed = run(fresh / "bin" / "sebs", "platform", "list", "--json", cwd=tmp_path)
    assert {row["name"]: row["error"] for row in json.loads(listed.stdout)} == {"skylark": None}


def skip_without_index(done):
    if done.returncode and re.search(r"dns error|failed to fetch|error sending request|connect", done.stderr, re.IGNORECASE):
        pytest.skip(f"this needs a package index, or uv's cache, and has neither: {done.stderr[-200:]}")
