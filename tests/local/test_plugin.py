"""What the plugin offers: discovery, settings, interpreters, the doctor."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

import sebs_local
from sebs_core.errors import ConfigError
from sebs_core.models import Function, FunctionConfig
from sebs_core.settings import validated
from sebs_local import doctor, interpreters
from sebs_local.models import PYTHON_VERSIONS, LocalFunction, LocalSettings

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def config(**changes):
    values = {
        "function_name": "f",
        "language": "python",
        "language_version": OWN,
        "language_variant": "default",
        "system_variant": "package",
        "architecture": "x64",
        "memory_mb": 128,
        "timeout_s": 1,
    }
    return FunctionConfig(**{**values, **changes})


def test_discovery_offers_one_platform_and_imports_no_heavy_part():
    code = "import sys, sebs_local; list(sebs_local.sebs_platforms()); print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"httptools", "asyncio", "sebs_local.platform", "sebs_local.connection", "uv"}
    (info,) = sebs_local.sebs_platforms()
    assert info.name == "local"
    assert info.capabilities.languages[0].versions[0] == OWN
    assert sorted(info.capabilities.languages[0].versions) == list(PYTHON_VERSIONS)


def test_the_platform_keeps_the_contract_of_the_hooks(tmp_path):
    from sebs_core.context import Context
    from sebs_core.plugins import Stages

    (info,) = sebs_local.sebs_platforms()
    stages = Stages(SimpleNamespace(installed=()))
    stages.add(info.create(info.settings(), Context(resources_id="x")), "local")


def test_a_wrong_setting_is_named():
    with pytest.raises(ConfigError, match="did you mean port"):
        validated(LocalSettings, {"prot": 1}, "local")
    with pytest.raises(ConfigError, match="max_instances"):
        validated(LocalSettings, {"max_instances": 0}, "local")


def test_a_function_record_survives_as_its_root():
    function = LocalFunction(
        name="f", platform="local", benchmark="b", package_digest="d", config=config(),
        folder="/a", python="/b", gateway="g", generation="0-a",
    )  # fmt: skip
    assert Function.model_validate_json(function.model_dump_json()) == function


def test_the_runtime_is_the_shim(local):
    runtime = local.platform.sebs_runtime(config())
    assert runtime.entry_point == "handler.py"
    assert runtime.files["handler.py"].name == "handler.py"
    assert (runtime.requirements, runtime.wheel_platform) == ((), None)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_trigger_that_does_not_exist_is_refused(local, asynchronous):
    function = local.deploy("def handler(event): return 1")
    with pytest.raises(ConfigError, match="It has: http, library"):
        local.platform.sebs_create_trigger(function, "http" if asynchronous else "queue", asynchronous)


@pytest.mark.parametrize("version", PYTHON_VERSIONS)
def test_a_function_runs_under_the_version_that_was_asked(local, version):
    try:
        local.platform.sebs_runtime(config(language_version=version))
    except ConfigError as error:
        pytest.skip(f"Python {version} is not on this machine: {error}")
    code = (
        "import sys\ndef handler(event): exit if event else None\ndef handler(event): return sys.version_info[:2], sys.prefix"
    )
    function = local.deploy(code, version=version)
    found, prefix = local.call(function).output
    assert ".".join(map(str, found)) == version
    assert "site-packages" not in prefix


class TestInterpreters:
    def test_ours_is_the_one_outside_the_virtual_environment(self):
        found = interpreters.interpreter(OWN)
        code = "import sys; print(sys.prefix == sys.base_prefix, *sys.version_info[:2])"
        done = subprocess.run([found, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["True", *OWN.split(".")]

    def test_a_shim_that_fails_is_passed_over_for_one_that_runs(self, tmp_path, monkeypatch):
        other = "3.99"
        bad, good = tmp_path / "bad", tmp_path / "good"
        for folder, text in ((bad, "echo not here >&2; exit 127"), (good, _pretend(other, tmp_path))):
            folder.mkdir()
            (folder / f"python{other}").write_text(f"#!/bin/sh\n{text}\n")
            (folder / f"python{other}").chmod(0o755)
        monkeypatch.setenv("PATH", f"{bad}:{good}:/usr/bin:/bin")
        assert interpreters.interpreter(other) == tmp_path / "bin" / f"python{other}"

    def test_what_was_searched_is_told_when_none_runs(self, tmp_path, monkeypatch):
        (tmp_path / "python3.99").write_text("#!/bin/sh\necho not here >&2; exit 127\n")
        (tmp_path / "python3.99").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(
            ConfigError, match=rf"Python 3.99.*{tmp_path}/python3.99 \(cannot be run: not here\).*--language-version"
        ):
            interpreters.interpreter("3.99")


def _pretend(version, prefix):
    (prefix / "bin").mkdir()
    (prefix / "bin" / f"python{version}").touch()
    major, minor = version.split(".")
    return f"""echo '["cpython", {major}, {minor}, "{prefix}", "x"]'"""


class TestDoctor:
    def test_all_is_well_here_for_our_own_version(self):
        rows = {what: (well, found) for what, well, found in doctor.checks(LocalSettings())}
        assert rows[f"Python {OWN}"][0]
        assert rows["a port on 127.0.0.1"][0]
        assert rows["a process of its own session"][0]
        assert len(rows) == len(PYTHON_VERSIONS) + 3

    def test_a_taken_port_has_its_remedy(self):
        import socket

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            rows = {what: (well, found) for what, well, found in doctor.checks(LocalSettings(port=port))}
        well, found = rows[f"port {port} on 127.0.0.1"]
        assert not well
        assert "--set port=" in found

    def test_a_folder_that_cannot_be_written_has_its_remedy(self, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", "/nowhere")
        rows = {what: (well, found) for what, well, found in doctor.checks(LocalSettings())}
        well, found = rows["working folders in /nowhere"]
        assert not well
        assert "TMPDIR" in found
