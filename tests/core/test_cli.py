"""The command line: exit statuses, one JSON object on stdout, and options from four places."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from double_platform import FakeEntryPoint, module_of, plugin_of

from sebs_core import DeployError, Settings, hookimpl
from sebs_core import cli as command_line
from sebs_core.offers import PlatformInfo
from sebs_core.plugins import Plugins

CONTRACT = {
    "run", "platform", "benchmark", "size", "language", "count", "failures", "cold_count", "outputs_ok", "client_us",
    "response_us", "handler_us", "init_us", "provider_us", "achieved_per_s", "send_lag_us", "client_saturated",
    "host_contended", "cost_usd", "errors",
}  # fmt: skip


@pytest.fixture
def install(monkeypatch):
    """Make these the installed plugins."""

    def use(plugins):
        monkeypatch.setattr("sebs_core.plugins.installed", lambda: plugins)
        monkeypatch.setattr("sebs_core.session.installed", lambda: plugins)

    return use


@pytest.fixture
def sebs(install, plugins, capsys, monkeypatch, tmp_path, echo):
    """``sebs("benchmark", "list")`` → its exit status, stdout and stderr. The double is installed."""
    install(plugins)
    monkeypatch.setenv("SEBS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SEBS_OUTPUT_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        capsys.readouterr()
        status = command_line.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err, json=lambda: json.loads(out))

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def invoke(sebs, echo):
    """``invoke(*options)``: the benchmark `echo` with its test inputs on the double."""

    def run(*options, name="echo", size="test"):
        size = [size] if size else []
        return sebs("benchmark", "invoke", name, *size, "--platform", "double", "--benchmarks", echo.parent, *options)

    return run


# --- one good run ---------------------------------------------------------------------------------------------------------


def test_a_run_prints_one_json_object_with_every_key_of_the_contract_and_nothing_else_on_stdout(invoke):
    done = invoke("--json", "--repetitions", 3)
    assert done.status == 0
    told = done.json()
    assert set(told) >= CONTRACT
    assert (told["platform"], told["benchmark"], told["size"], told["language"]) == ("double", "echo", "test", "python")
    assert (told["count"], told["failures"], told["outputs_ok"], told["errors"]) == (3, 0, True, {})
    assert set(told["client_us"]["all"]) >= {"p50", "p95", "p99", "mean", "min", "max"}
    assert told["client_us"]["cold"]["p50"] > told["client_us"]["warm"]["p50"]
    assert Path(told["run"], "result.parquet").is_file()
    assert "package" in done.err


def test_without_json_a_person_reads_the_same(invoke):
    done = invoke("--repetitions", 2)
    assert done.status == 0
    assert "echo test on double, python" in done.out
    assert "2 invocations" in done.out
    assert "outputs right" in done.out


@pytest.mark.parametrize(("option", "cold"), [("--cold", 3), ("--warm", 0)])
def test_cold_and_warm_are_what_was_asked_for(invoke, option, cold):
    told = invoke("--json", "--repetitions", 3, option).json()
    assert (told["count"], told["cold_count"]) == (3, cold)


def test_options_reach_the_run(invoke, tmp_path):
    done = invoke(
        "--json", "--repetitions", 4, "--concurrency", 2, "--memory", 512, "--timeout", 7, "--trigger", "library",
        "--function-name", "mine", "--set", "flavour=sour", "--keep-outputs", "--output-dir", tmp_path / "elsewhere",
    )  # fmt: skip
    told = done.json()
    assert Path(told["run"]).parent == tmp_path / "elsewhere"
    manifest = json.loads(Path(told["run"], "run.json").read_text())
    assert manifest["plan"]["load"] == {"kind": "closed", "repetitions": 4, "concurrency": 2}
    assert manifest["function"]["name"] == "mine"
    assert (manifest["function"]["config"]["memory_mb"], manifest["function"]["config"]["timeout_s"]) == (512, 7)
    assert manifest["trigger"]["kind"] == "library"
    assert manifest["settings"]["flavour"] == "sour"


def test_a_benchmark_may_be_given_as_a_folder_and_the_payload_as_a_file(sebs, echo, tmp_path):
    (tmp_path / "payload.json").write_text('{"value": 77}')
    done = sebs("benchmark", "invoke", echo, "--platform", "double", "--payload", tmp_path / "payload.json", "--json")
    assert (done.status, done.json()["size"]) == (0, None)
    assert json.loads(Path(done.json()["run"], "bodies", "0.json").read_text())["result"]["result"] == 77


def test_metrics_can_be_collected_later(invoke, sebs, install):
    told = invoke("--json", "--metrics", "later").json()
    assert told["provider_us"] is None
    for command in ("collect", "process"):
        done = sebs("benchmark", command, told["run"], "--json")
        assert done.status == 0
        assert done.json()["provider_us"]["all"]["p50"] > 0


def test_statistics_tell_the_same_again(invoke, sebs):
    told = invoke("--json").json()
    again = sebs("benchmark", "statistics", told["run"], "--json")
    assert again.status == 0
    assert again.json() == told


def test_a_package_is_built_and_nothing_deployed(sebs, echo, world):
    done = sebs("benchmark", "package", "echo", "--platform", "double", "--benchmarks", echo.parent, "--json")
    assert done.status == 0
    assert Path(done.json()["path"]).is_file()
    assert world.count("deploy") == 0
    assert "zip" in sebs("benchmark", "package", "echo", "--platform", "double", "--benchmarks", echo.parent).out


# --- lists ----------------------------------------------------------------------------------------------------------------


def test_lists_are_arrays_of_objects_with_names(sebs, write_benchmark, echo):
    (write_benchmark("broken") / "config.json").write_text("{")
    write_benchmark("half", inputs="1/0")
    done = sebs("benchmark", "list", "--benchmarks", echo.parent, "--json")
    listed = {entry["name"]: entry for entry in done.json()}
    assert done.status == 0
    assert set(listed) == {"broken", "echo", "half"}
    assert listed["echo"]["sizes"] == ["test", "small"]
    assert "config.json is not JSON" in listed["broken"]["error"]
    assert "ZeroDivisionError" in listed["half"]["error"]
    assert [entry["name"] for entry in sebs("platform", "list", "--json").json()] == ["double"]
    assert [entry["name"] for entry in sebs("plugin", "list", "--json").json()] == ["core", "double"]


def test_lists_are_readable_too_and_show_what_is_broken(sebs, echo, install, world):
    install(Plugins([FakeEntryPoint("double", plugin_of(world)), FakeEntryPoint("star", ImportError("no module named sdk"))]))
    assert "echo" in sebs("benchmark", "list", "--benchmarks", echo.parent).out
    for group in ("platform", "plugin"):
        done = sebs(group, "list")
        assert done.status == 0
        assert "double" in done.out
        assert "no module named sdk" in done.out


def test_a_platforms_settings_are_listed(sebs):
    (listed,) = sebs("platform", "list", "--json").json()
    assert set(listed["settings"]) == {"account", "flavour", "workers", "token"}
    assert listed["triggers"] == ["http", "library"]


def test_doctor_tells_what_is_well_and_fails_when_something_is_not(sebs, install, world):
    done = sebs("platform", "doctor", "double", "--json")
    assert done.status == 0
    assert done.json() == [{"name": "double", "check": "workers", "ok": True, "found": "1 workers"}]
    install(Plugins([FakeEntryPoint("double", plugin_of(world)), FakeEntryPoint("star", ImportError("x"))]))
    done = sebs("platform", "doctor", "--json")
    assert done.status == 3
    assert {"name": "star", "check": "plugin loads", "ok": False, "found": "ImportError: x"} in done.json()


def test_doctor_of_a_platform_that_needs_a_setting_says_which(sebs, install, world):
    class Needing(Settings):
        region: str

    offered = plugin_of(world).sebs_platforms()[0]
    info = PlatformInfo(**{**vars(offered), "settings": Needing})
    install(Plugins([FakeEntryPoint("double", module_of(sebs_platforms=hookimpl(lambda: [info])))]))
    done = sebs("platform", "doctor", "double")
    assert "a defect in sebs" not in done.err
    assert "region" in done.out + done.err


def test_help_and_version_need_nothing(sebs):
    done = sebs("--help")
    assert done.status == 0
    for group in ("benchmark", "platform", "plugin"):
        assert group in done.out
    assert sebs("--version").out.startswith("sebs, version ")
    assert "--repetitions" in sebs("benchmark", "invoke", "--help").out
    assert "SEBS_REPETITIONS" in sebs("benchmark", "invoke", "--help").out


def test_a_plugin_can_add_commands(sebs, install, world, monkeypatch):
    import click

    module = plugin_of(world)

    @hookimpl
    def sebs_commands(cli):
        cli.add_command(click.Command("star", callback=lambda: click.echo("shining")))

    module.sebs_commands = sebs_commands
    monkeypatch.setattr(command_line.cli, "commands", dict(command_line.cli.commands))
    install(Plugins([FakeEntryPoint("double", module)]))
    assert sebs("star").out == "shining\n"
    assert "star" in sebs("--help").out


def test_a_plugin_whose_commands_cannot_be_added_does_not_take_the_command_line_away(sebs, install, world):
    module = plugin_of(world)

    @hookimpl
    def sebs_commands(cli):
        raise RuntimeError("cannot add")

    module.sebs_commands = sebs_commands
    install(Plugins([FakeEntryPoint("double", module)]))
    assert sebs("plugin", "list").status == 0


# --- exit statuses --------------------------------------------------------------------------------------------------------


def test_failed_invocations_exit_with_1_and_say_why_and_what_was_printed(invoke, tmp_path):
    (tmp_path / "payload.json").write_text('{"fail": "no such thing"}')
    done = invoke("--json", "--payload", tmp_path / "payload.json", size=None)
    assert done.status == 1
    assert (done.json()["failures"], done.json()["errors"]) == (5, {"function_error": 5})
    assert "invocation 0 failed: function_error: ValueError: no such thing" in done.err
    assert "the function printed (end):" in done.err


def test_wrong_outputs_exit_with_1(invoke, echo):
    (echo / "python" / "function.py").write_text("def handler(event): return {'result': 'nonsense'}")
    done = invoke("--json")
    assert (done.status, done.json()["outputs_ok"], done.json()["failures"]) == (1, False, 0)
    assert "wrong output: not the value that was sent" in done.err
    assert invoke("--no-check-outputs").status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--language-version", "2.7"], "double has no python version 2.7. It has:"),
        (["--language", "cobol"], "echo is not written in cobol"),
        (["--architecture", "arm64"], "double has no architecture arm64"),
        (["--architecture", "mips"], "'mips' is not one of"),
        (["--memory", "0"], "0 is not in the range"),
        (["--memory", "9999999"], "is outside what double has"),
        (["--repetitions", "none"], "'none' is not a valid integer"),
        (["--concurrency", "1001"], "1001 is not in the range"),
        (["--trigger", "pigeon"], "double has no trigger 'pigeon'"),
        (["--set", "flavour"], "'flavour' is not KEY=VALUE"),
        (["--set", "=x"], "is not KEY=VALUE"),
        (["--set", "flavuor=sour"], "the platform double has no flavuor (did you mean flavour?)"),
        (["--set", "workers=many"], "the platform double workers: "),
        (["--set", "plugins=x"], "the platform double has no plugins"),
        (["--set", "cache-dir=x"], "the platform double has no cache_dir"),
        (["--set", "platform=x"], "the platform double has no platform"),
        (["--repetitons", "3"], "'--repetitions'"),
        (["--extension", "dask"], "offers the extension 'dask'"),
        (["--payload", "nowhere.json"], "the payload nowhere.json cannot be read"),
        (["--function-name", "a/b"], "function_name"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_one_clear_message_and_nothing_on_stdout(invoke, world, arguments, said):
    payload = "--payload" in arguments
    done = invoke("--json", *arguments, size=None if payload else "test")
    assert done.status == 2
    assert said in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert world.count("deploy") == 0


def test_names_that_do_not_exist_exit_with_2_and_the_near_ones(invoke, sebs):
    done = invoke(name="ehco")
    assert (done.status, "Did you mean echo?" in done.err) == (2, True)
    done = invoke(size="huge")
    assert (done.status, "echo has no input size 'huge'. It has: test, small." in done.err) == (2, True)
    done = invoke(size=None)
    assert (done.status, "give either an input size of echo or a payload (sizes: test, small)" in done.err) == (2, True)
    done = sebs("benchmark", "invoke", "echo", "test", "--platform", "doubel")
    assert (done.status, "Did you mean double?" in done.err, "pip install sebs-doubel" in done.err) == (2, True, True)
    done = sebs("benchmark", "invok", "echo")
    assert (done.status, "invok" in done.err) == (2, True)
    assert sebs("benchmark", "list", "--benchmarks", "nowhere").status == 2


def test_a_broken_benchmark_exits_with_2_and_names_the_file(invoke, echo):
    (echo / "config.json").write_text("{")
    done = invoke()
    assert done.status == 2
    assert f"{echo / 'config.json'} is not JSON" in done.err


def test_a_payload_that_is_no_json_exits_with_2(invoke, tmp_path):
    (tmp_path / "payload.json").write_text("{")
    done = invoke("--payload", tmp_path / "payload.json", size=None)
    assert (done.status, "is not JSON" in done.err) == (2, True)


@pytest.mark.parametrize("fault", ["deploy", "package", "plugin"])
def test_what_the_platform_or_machine_cannot_do_exits_with_3(invoke, world, echo, install, fault):
    if fault == "deploy":
        world.fail("deploy", DeployError("the quota is used up"))
        said = "error: the quota is used up"
    elif fault == "package":
        (echo / "python" / "requirements.txt").write_text("!!\n")
        said = "error: installing !! for Python"
    else:
        install(Plugins([FakeEntryPoint("double", ImportError("no module named sdk"))]))
        said = "error: the plugin for 'double' (sebs-double 1.0) could not be loaded: ImportError: no module named sdk"
    done = invoke("--json")
    assert (done.status, done.out) == (3, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_defect_is_one_line_and_the_place_is_shown_when_asked_for(invoke, world, caplog):
    world.fail("enforce_cold_start", TypeError("broken"), times=2)
    done = invoke("--cold")
    assert done.status == 3
    assert "error: a defect in sebs or in a plugin: TypeError" in done.err
    assert "Traceback" not in done.err
    with caplog.at_level("DEBUG", "sebs_core"):
        invoke("--cold", "-v")
    assert "Traceback" in caplog.text


def test_statistics_of_what_is_no_run_say_so(sebs, tmp_path):
    done = sebs("benchmark", "statistics", tmp_path)
    assert done.status in (2, 3)
    assert "is no run directory" in done.err


def test_an_interrupt_exits_with_130_and_prints_the_partial_result(invoke, world):
    answered = []

    def count():
        answered.append(1)
        if len(answered) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    world.on_answer = count
    done = invoke("--json", "--repetitions", 5000)
    assert done.status == 130
    told = done.json()
    assert told["state"] == "interrupted"
    assert 1 <= told["count"] < 5000
    assert "interrupted" in done.err
    assert "Traceback" not in done.err


def test_an_interrupt_before_the_load_exits_with_130_and_prints_nothing(invoke, world):
    world.fail("deploy", KeyboardInterrupt())
    done = invoke("--json")
    assert (done.status, done.out) == (130, "")


# --- where options come from ----------------------------------------------------------------------------------------------


def repetitions(done):
    assert done.status == 0, done.err
    return done.json()["count"]


def test_the_command_line_goes_before_the_environment_before_the_file_before_the_default(invoke, monkeypatch, tmp_path):
    config = tmp_path / "sebs.toml"
    config.write_text("repetitions = 2\n")
    assert repetitions(invoke("--json")) == 5
    assert repetitions(invoke("--json", "--config", config)) == 2
    monkeypatch.setenv("SEBS_REPETITIONS", "3")
    assert repetitions(invoke("--json", "--config", config)) == 3
    assert repetitions(invoke("--json", "--config", config, "--repetitions", 4)) == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'platform = "double"\nrepetitions = 2\nkeep-outputs = true\ncold = true\n'
                   '[set]\nflavour = "sour"\nworkers = 2\n'),
        ("a.json", '{"platform": "double", "repetitions": 2, "keep_outputs": true, "cold": true, '
                   '"set": {"flavour": "sour", "workers": 2}}'),
        ("a.yaml", "platform: double\nrepetitions: 2\nkeep-outputs: true\ncold: true\nset: {flavour: sour, workers: 2}\n"),
    ],
)  # fmt: skip
def test_a_file_may_hold_every_option_in_toml_json_or_yaml(sebs, echo, tmp_path, name, text):
    if name.endswith("yaml"):
        pytest.importorskip("yaml", reason="YAML needs pyyaml, which is not installed")
    (tmp_path / name).write_text(text)
    done = sebs("benchmark", "invoke", "echo", "test", "--benchmarks", echo.parent, "--config", tmp_path / name, "--json")
    assert (repetitions(done), done.json()["cold_count"]) == (2, 2)
    manifest = json.loads(Path(done.json()["run"], "run.json").read_text())
    assert (manifest["settings"]["flavour"], manifest["settings"]["workers"]) == ("sour", 2)


def test_the_config_file_may_be_named_by_the_environment(invoke, monkeypatch, tmp_path):
    (tmp_path / "sebs.toml").write_text("repetitions = 2\n")
    monkeypatch.setenv("SEBS_CONFIG", str(tmp_path / "sebs.toml"))
    assert repetitions(invoke("--json")) == 2


def test_warm_may_stand_in_a_file_as_cold_may(invoke, tmp_path):
    (tmp_path / "sebs.toml").write_text("warm = true\n")
    assert invoke("--json", "--config", tmp_path / "sebs.toml").json()["cold_count"] == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "repetitons = 2\n", "has no option repetitons; known: "),
        ("a.toml", "repetitions = \n", "a.toml is not valid"),
        ("a.json", "{", "a.json is not valid"),
        ("a.json", "[1]", "a.json must hold options by name"),
        ("a.toml", 'repetitions = "many"\n', "'many' is not a valid integer"),
        ("a.toml", "[set]\nflavuor = 1\n", "did you mean flavour?"),
    ],
)
def test_a_wrong_config_file_exits_with_2_and_names_file_and_key(invoke, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    done = invoke("--config", tmp_path / name)
    assert done.status == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_wrong_value_in_the_environment_exits_with_2(invoke, monkeypatch):
    monkeypatch.setenv("SEBS_REPETITIONS", "many")
    done = invoke()
    assert (done.status, "'many' is not a valid integer" in done.err) == (2, True)


def test_every_option_has_its_environment_variable():
    import click

    for group_name in ("benchmark", "platform", "plugin"):
        group = command_line.cli.get_command(None, group_name)
        for command in group.commands.values():
            for parameter in command.params:
                if isinstance(parameter, click.Option) and parameter.name != "help":
                    assert parameter.envvar == f"SEBS_{parameter.opts[-1].lstrip('-').replace('-', '_').upper()}"


def test_the_same_option_has_the_same_default_in_every_command():
    import click

    defaults = {}
    for group_name in ("benchmark", "platform", "plugin"):
        for command in command_line.cli.get_command(None, group_name).commands.values():
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    defaults.setdefault(parameter.opts[-1], set()).add(repr(parameter.default))
    assert {name: values for name, values in defaults.items() if len(values) > 1} == {}
    assert defaults["--platform"] == {"'local'"}
    assert defaults["--repetitions"] == {"5"}


# --- as a program ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path, echo):
    """Arguments and environment of ``python -m sebs_core`` where the double is really installed, by entry point."""
    site = tmp_path / "site"
    info = site / "sebs_double-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sebs-double\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sebs]\ndouble = double_platform\n")
    doubles = Path(sys.modules["double_platform"].__file__).parent
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(doubles)]), "SEBS_PLATFORM": "double",
        "SEBS_BENCHMARKS": str(echo.parent), "SEBS_CACHE_DIR": str(tmp_path / "cache"),
        "SEBS_OUTPUT_DIR": str(tmp_path / "runs"),
    }  # fmt: skip
    return [sys.executable, "-m", "sebs_core"], environment


def test_as_a_program_stdout_holds_the_object_and_stderr_the_rest(program):
    command, environment = program
    done = subprocess.run(
        [*command, "benchmark", "invoke", "echo", "test", "--json", "--repetitions", "2"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_with_130_and_a_partial_result(program, tmp_path, number):
    command, environment = program
    running = subprocess.Popen(
        [*command, "benchmark", "invoke", "echo", "test", "--json", "--repetitions", "1000000"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not list((tmp_path / "runs").glob("*/rows/*.arrow")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130, err
    assert json.loads(out)["state"] == "interrupted"
    assert json.loads(out)["count"] > 0
    assert "Traceback" not in err


def test_a_reader_that_has_left_is_neither_a_traceback_nor_a_failed_invocation(program):
    command, environment = program
    shell = f"{' '.join(command)} benchmark list --json | true"
    done = subprocess.run(
        ["bash", "-c", f"{shell}; exit ${{PIPESTATUS[0]}}"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 141)
    assert done.stderr == ""


# --- a plugin of one's own ------------------------------------------------------------------------------------------------


def test_a_new_plugin_is_the_template_under_another_name(sebs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = sebs("plugin", "new", "mine")
    assert done.status == 0
    assert "pip install -e sebs-mine" in done.out
    files = {path.relative_to(tmp_path / "sebs-mine").as_posix(): path for path in (tmp_path / "sebs-mine").rglob("*")}
    assert {"pyproject.toml", "README.md", "sebs_mine/platform.py", "emulator/mine_emulator.py"} <= set(files)
    text = "".join(path.read_text() for path in files.values() if path.is_file())
    assert "skylark" not in text.lower()
    assert "class MinePlatform" in text
    assert not any(part.startswith(".") or part == "__pycache__" for name in files for part in name.split("/"))


@pytest.mark.parametrize("name", ["Bad", "b", "a-b", "1a", "x" * 32, "ä"])
def test_what_cannot_be_the_name_of_a_platform_is_refused(sebs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    done = sebs("plugin", "new", name)
    assert done.status == 2
    assert "cannot be the name of a platform" in done.err
    assert not list(tmp_path.glob("sebs-*"))


def test_a_new_plugin_overwrites_nothing(sebs, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    done = sebs("plugin", "new", "mine", "--directory", tmp_path / "there")
    assert (done.status, [path.name for path in (tmp_path / "there").iterdir()]) == (2, ["mine.txt"])
    assert "exists already: choose another --directory" in done.err
