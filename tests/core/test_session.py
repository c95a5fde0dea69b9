"""A session: the stages in order, what is fresh and what is reused, and what is refused before anything is built."""

import asyncio
import os
from pathlib import Path

import pytest
from double_platform import FakeEntryPoint, plugin_of
from watching import Watching, run

import sebs_core as sebs
from sebs_core import hookimpl
from sebs_core.plugins import Plugins
from sebs_core.testing.fake import FakeFunction

# --- the four verbs -------------------------------------------------------------------------------------------------------


def test_package_deploy_invoke_one_after_another(session, echo, world):
    package = session.package(echo)
    assert package.path.is_file()
    function = session.deploy(package)
    assert isinstance(function, FakeFunction)
    one = session.invoke(function, {"value": [1, "ü"]})
    assert one.output["result"] == [1, "ü"]
    assert (one.error, one.status, one.cold, one.instance_sequence) == (None, 200, True, 0)
    assert one.client_us >= one.handler_us > 0
    two = session.invoke(function, {"value": 2})
    assert (two.output["result"], two.cold, two.instance_id) == (2, False, one.instance_id)


def test_a_failing_function_is_an_invocation_with_its_error(session, echo):
    function = session.deploy(session.package(echo))
    failed = session.invoke(function, {"fail": "no such thing"})
    assert (failed.error, failed.error_detail) == ("function_error", "ValueError: no such thing")


def test_a_function_that_cannot_be_reached_raises_with_the_address(session, echo, world):
    function = session.deploy(session.package(echo))
    function = function.model_copy(update={"triggers": (session.trigger(function, "http"),)})
    world.close()
    with pytest.raises(sebs.InvokeError, match=r"be reached at http://127\.0\.0\.1:\d+/.*Deploy the function again"):
        session.invoke(function, {})


def test_a_function_invoked_over_threads_that_cannot_be_reached_raises_too(session, echo, world):
    function = session.deploy(session.package(echo))
    world.fail("invoke", sebs.InvokeError("it cannot be reached"))
    with pytest.raises(sebs.InvokeError, match="cannot be reached"):
        session.invoke(function, {}, trigger="library")


def test_a_trigger_is_made_once(session, echo, world):
    function = session.deploy(session.package(echo))
    for _ in range(3):
        session.invoke(function, {})
    (kept,) = session.cache.functions("double")
    assert (world.count("create_trigger"), len(kept.triggers)) == (1, 1)


def test_a_trigger_of_the_last_session_is_used_again(open_session, echo, world):
    run(open_session(), echo)
    run(open_session(), echo)
    assert world.count("create_trigger") == 1


def test_what_a_function_printed_can_be_read(session, echo):
    function = session.deploy(session.package(echo))
    one = session.invoke(function, {"print": "hello from inside"})
    assert session.logs(function, one.request_id).strip() == "hello from inside"
    with pytest.raises(sebs.MetricsError, match="no log of zzz"):
        session.logs(function, "zzz")


@pytest.mark.parametrize("payload", [object(), {1, 2}, float("nan"), {"a": float("inf")}, b"x"], ids=repr)
def test_a_payload_that_is_no_json_is_refused_with_the_reason(session, echo, payload, world):
    with pytest.raises(sebs.ConfigError, match="the payload cannot be written as JSON: "):
        session.run(echo, payload=payload)
    function = session.deploy(session.package(echo))
    with pytest.raises(sebs.ConfigError, match="the payload cannot be written as JSON: "):
        session.invoke(function, payload)


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"language_version": "2.7"}, "double has no python version 2.7. It has: "),
        ({"language": "cobol"}, "echo is not written in cobol. It is in: python."),
        ({"language_variant": "pypy"}, "double does not run python (pypy). It runs: python (default)."),
        ({"system_variant": "gen9"}, "double has no system variant gen9. It has: package."),
        ({"architecture": "arm64"}, "double has no architecture arm64. It has: x64."),
        ({"architecture": "mips"}, "the run architecture: "),
        ({"memory_mb": 1}, "memory of 1 MiB is outside what double has: 64 to 4096."),
        ({"timeout_s": 10_000}, "timeout of 10000 s is outside what double has: 0.05 to 900."),
        ({"trigger": "pigeon"}, "double has no trigger 'pigeon'. It has: http, library."),
        ({"memroy_mb": 5}, "the run has no memroy_mb (did you mean memory_mb?)"),
        ({"start": "lukewarm"}, "start is any, cold or warm, not 'lukewarm'"),
        ({"metrics": "soon"}, "metrics are collected now, later or none, not 'soon'"),
        ({"connections": "few"}, "connections are reused or fresh, not 'few'"),
        ({"size": "test"}, "give either an input size of echo or a payload (sizes: test, small)"),
        ({"size": "huge", "payload": ...}, "echo has no input size 'huge'. It has: test, small."),
        ({"payload": ...}, "give either an input size of echo or a payload"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_a_sentence_before_anything_is_built(
    session, echo, world, tmp_path, arguments, sentence
):
    size = arguments.pop("size", None)
    with pytest.raises(sebs.ConfigError) as refused:
        session.run(echo, size, **{"payload": {}, **arguments})
    assert sentence in str(refused.value)
    assert world.calls == ["open"]
    assert not (tmp_path / "cache" / "packages").exists()
    assert not (tmp_path / "runs").exists()


def test_a_platform_that_cannot_enforce_cold_starts_says_so(world, open_session, echo):
    plugins = Plugins([FakeEntryPoint("double", plugin_of(world, cold_start=False))])
    with pytest.raises(sebs.ConfigError, match="double cannot enforce cold starts: leave out start='cold'"):
        open_session(plugins=plugins).run(echo, payload={}, start="cold")


def test_wrong_settings_of_the_platform_are_named(open_session):
    with pytest.raises(sebs.ConfigError, match=r"the platform double has no flavuor \(did you mean flavour\?\)"):
        open_session(flavuor="sweet")
    with pytest.raises(sebs.ConfigError, match="the platform double workers: "):
        open_session(workers="many")


def test_an_unknown_benchmark_names_the_near_one(open_session, echo):
    with pytest.raises(sebs.ConfigError, match=r"there is no benchmark 'ehco'\. Did you mean echo\?"):
        open_session(benchmarks=[echo.parent]).run("ehco", "test")


def test_a_stage_that_the_platform_lacks_is_named(world, open_session, echo):
    class Bare:
        @hookimpl
        def sebs_open(self):
            pass

    module = plugin_of(world)
    offered = module.sebs_platforms()[0]

    @hookimpl
    def sebs_platforms():
        return [sebs.PlatformInfo(**{**vars(offered), "create": lambda settings, context: Bare()})]

    module.sebs_platforms = sebs_platforms
    session = open_session(plugins=Plugins([FakeEntryPoint("double", module)]))
    with pytest.raises(sebs.StageMissingError, match="nobody implements sebs_runtime"):
        session.package(echo)


# --- opening and closing --------------------------------------------------------------------------------------------------


def test_a_session_opens_once_closes_once_and_takes_its_scratch_folder_with_it(open_session, world):
    scratch = []

    def remember(settings, context):
        scratch.append(context.scratch)
        assert context.scratch.is_dir()
        with pytest.raises(sebs.PluginError, match="asks for the resources id in its create"):
            _ = context.resources_id
        return offered.create(settings, context)

    module = plugin_of(world)
    offered = module.sebs_platforms()[0]
    module.sebs_platforms = hookimpl(lambda: [sebs.PlatformInfo(**{**vars(offered), "create": remember})])
    with open_session(plugins=Plugins([FakeEntryPoint("double", module)])) as session:
        assert session.is_open
    session.close()
    assert world.calls == ["open", "close"]
    assert not scratch[0].exists()
    assert "closed" in repr(session)


def test_a_platform_that_cannot_open_is_closed_again(world, open_session):
    module = plugin_of(world)
    offered = module.sebs_platforms()[0]

    def create(settings, context):
        platform = offered.create(settings, context)
        type_ = type("Failing", (type(platform),), {"sebs_open": hookimpl(fail)})
        return type_(world, settings, context)

    def fail(self):
        raise sebs.CredentialsError("the token has expired")

    module.sebs_platforms = hookimpl(lambda: [sebs.PlatformInfo(**{**vars(offered), "create": create})])
    with pytest.raises(sebs.CredentialsError, match="the token has expired"):
        open_session(plugins=Plugins([FakeEntryPoint("double", module)]))
    assert world.calls == ["close"]


def test_it_works_inside_a_running_event_loop(session, echo):
    async def cell():
        return run(session, echo, load=sebs.Closed(concurrency=2, repetitions=6))

    assert asyncio.run(cell()).summary().count == 6


def test_it_works_in_a_thread_that_is_not_the_main_one(session, echo):
    import threading

    results = []
    thread = threading.Thread(target=lambda: results.append(run(session, echo)))
    thread.start()
    thread.join()
    assert results[0].summary().count == 1


def test_runs_and_cache_lie_where_the_environment_says(plugins, echo, tmp_path, world):
    with sebs.connect("double", plugins=plugins) as session:
        result = run(session, echo)
    assert result.directory.parent == tmp_path / "default-runs"
    assert (tmp_path / "default-cache" / "packages").is_dir()


# --- secrets --------------------------------------------------------------------------------------------------------------


def everything_below(folder):
    return b"\n".join(path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file())


def test_secrets_are_nowhere_on_disk_and_in_no_log(open_session, echo, world, tmp_path, caplog, capfd):
    caplog.set_level("DEBUG")
    token, key = "planted-token-7f3a", "planted-key-91bc"
    observer = Watching()
    session = open_session(token=token, observers=[observer])
    result = session.run(
        echo, "test", load=sebs.Closed(repetitions=2), secrets={"API_KEY": key}, keep_outputs=True, trigger="http"
    )
    result.save(tmp_path / "copy")
    for failing in ({"fail": "x"},):
        session.run(echo, payload=failing, secrets={"API_KEY": key})
    world.fail("deploy", sebs.DeployError("no"))
    with pytest.raises(sebs.DeployError):
        session.run(echo, "small", secrets={"API_KEY": key + "2"})
    (function,) = world.functions.values()
    assert function.environment == {"API_KEY": key}
    assert session.settings.token.get_secret_value() == token
    written = everything_below(tmp_path)
    out, err = capfd.readouterr()
    for secret in (token, key):
        assert secret.encode() not in written
        assert secret not in caplog.text
        assert secret not in out + err
        assert secret not in repr(observer.events)
        assert secret not in repr(result.manifest)
    assert "token" not in result.manifest.settings
    assert result.manifest.settings["flavour"] == "plain"


def test_a_secret_in_settings_is_not_shown_when_another_setting_is_wrong(open_session):
    with pytest.raises(sebs.ConfigError) as refused:
        open_session(token="planted-token-7f3a", workers="many")
    assert "planted" not in str(refused.value)


def test_scratch_folders_of_all_sessions_are_gone(open_session, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    os.mkdir(tmp_path / "temporary")  # noqa: PTH102
    for _ in range(3):
        open_session().close()
    assert list((tmp_path / "temporary").glob("sebs-*")) == []


def test_secrets_in_what_others_say_are_hidden(open_session, echo, world, tmp_path, capfd):
    """In an exception of an SDK, in a provider's raw answer, in what a function raises or returns."""
    token, key = "planted-token-7f3a", "planted-key-91bc"

    class Talkative:
        @hookimpl(wrapper=True)
        def sebs_collect_metrics(self):
            metrics = yield
            return metrics.model_copy(update={"raw": ({"authorization": f"Bearer {token}"},)})

    session = open_session(token=token)
    session.stages.add(Talkative(), "a provider that tells all")
    session.run(echo, payload={"fail": f"cannot log in with {key}"}, secrets={"KEY": key})

    class Failing:
        @hookimpl
        def sebs_run_load(self):
            raise RuntimeError(f"the header was Bearer {token}")

    session.stages.add(Failing(), "an engine that fails")
    with pytest.raises(RuntimeError):
        session.run(echo, "test", secrets={"KEY": key})
    written = everything_below(tmp_path / "runs")
    assert token.encode() not in written
    assert key.encode() not in written
    assert b"cannot log in with ***" in written
    assert b"the header was Bearer ***" in written


@pytest.mark.parametrize("kind", ["bytes", "nested", "listed"])
def test_secret_settings_of_every_form_are_known(kind):
    from pydantic import BaseModel, SecretBytes, SecretStr

    from sebs_core.session import _secrets_in

    class Inner(BaseModel):
        password: SecretStr

    secret = "planted-4711"
    value = {"bytes": SecretBytes(secret.encode()), "nested": Inner(password=secret), "listed": {"a": [SecretStr(secret)]}}[
        kind
    ]
    assert list(_secrets_in(value)) == [secret]


def test_everybody_is_closed_also_when_one_fails(open_session, world):
    session = open_session()

    class Failing:
        @hookimpl
        def sebs_close(self):
            raise RuntimeError("an extension that cannot close")

    session.stages.add(Failing(), "failing")
    with pytest.raises(RuntimeError, match="cannot close"):
        session.close()
    assert world.calls[-1] == "close"
    assert not session.is_open


def test_hiding_a_secret_spoils_no_number_and_no_name(open_session, echo, world, tmp_path):
    """Secrets that occur in records by chance, of this session and of one before in the same process."""
    first = open_session()
    first.confidential.add("the secret PIN", "123456")
    first.confidential.add("the secret MODE", "measured")
    first.confidential.add("the secret KIND", "library")
    first.confidential.add("the secret LONG", "hunter22-prod-key")
    first.confidential.add("the secret SHORT", "hunter22")
    first.close()
    result = run(open_session(), echo, payload={"fail": "it was hunter22-prod-key"}, trigger="library")
    again = sebs.Result.load(result.directory)
    assert again.manifest.trigger.kind == "library"
    assert again.invocations["phase"].to_pylist() == ["measured"]
    assert again.invocations["error_detail"].to_pylist() == ["ValueError: it was ***"]
    metrics = sebs.Metrics(
        values={"r": {"duration_us": 123456}}, sources={"duration_us": "measured"}, raw=({"t": "x hunter22"},)
    )
    from sebs_core.rundir import RunDirectory

    directory = RunDirectory.create(tmp_path, "kept")
    directory.write_metrics(metrics)
    (kept,) = (directory.path / "metrics").iterdir()
    loaded = sebs.Metrics.model_validate_json(kept.read_bytes())
    assert (loaded.values, loaded.sources) == (metrics.values, metrics.sources)
    assert loaded.raw == ({"t": "x ***"},)
