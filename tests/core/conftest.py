"""What the tests of sebs_core share: the double of a platform, sessions on it, and small benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from double_platform import FakeEntryPoint, World, plugin_of
from processes import give_up_power, in_child
from watching import Watching

from sebs_core import connect
from sebs_core.plugins import Plugins

ECHO = """
import os
def handler(event):
    if event.get("fail"):
        raise ValueError(event["fail"])
    if event.get("print"):
        print(event["print"])
    return {"result": event.get("value"), "measurement": {"compute_us": 7, "own": "text"}, "seen": os.environ.get("SEEN")}
"""

ECHO_INPUT = """
SIZES = ("test", "small")
def generate_input(size):
    return {"value": {"test": 1, "small": 2}[size]}
def check_output(payload, output):
    if output["result"] != payload.get("value"):
        return "not the value that was sent"
"""


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch, tmp_path):
    """Neither the environment nor the home of whoever runs the tests decides anything."""
    for name in list(os.environ):
        if name.startswith("SEBS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SEBS_CACHE_DIR", str(tmp_path / "default-cache"))
    monkeypatch.setenv("SEBS_STATE_DIR", str(tmp_path / "default-state"))
    monkeypatch.setenv("SEBS_OUTPUT_DIR", str(tmp_path / "default-runs"))


@pytest.fixture
def world():
    """The provider behind the double: counts calls, holds faults."""
    made = World()
    yield made
    made.close()


@pytest.fixture
def plugins(world):
    """The double, and nothing else, installed."""
    return Plugins([FakeEntryPoint("double", plugin_of(world))])


@pytest.fixture
def write_benchmark(tmp_path):
    """``write_benchmark(name, code=…, inputs=…, requirements=…, **config)`` → folder of the benchmark."""

    def write(name="echo", *, code=ECHO, inputs=ECHO_INPUT, requirements=None, parent=None, **config):
        folder = (parent or tmp_path / "benchmarks") / name
        (folder / "python").mkdir(parents=True, exist_ok=True)
        values = {"timeout": 5, "memory": 128, "languages": ["python"], "workload_version": "1", **config}
        (folder / "config.json").write_text(json.dumps(values))
        if inputs is not None:
            (folder / "input.py").write_text(textwrap.dedent(inputs))
        if code is not None:
            (folder / "python" / "function.py").write_text(textwrap.dedent(code))
        if requirements is not None:
            (folder / "python" / "requirements.txt").write_text(requirements)
        return folder

    return write


@pytest.fixture
def echo(write_benchmark):
    """A benchmark without dependencies that returns what it was sent, fails or prints when told to."""
    return write_benchmark()


@pytest.fixture
def open_session(tmp_path, plugins):
    """``open_session(platform="double", **settings)``: sessions on the double, closed at the end."""
    opened = []

    def open_one(platform="double", **more):
        given = {"cache_dir": tmp_path / "cache", "output_dir": tmp_path / "runs", "plugins": plugins, **more}
        session = connect(platform, **given)
        opened.append(session)
        return session

    yield open_one
    for session in opened:
        session.close()


@pytest.fixture
def session(open_session):
    """One session on the double."""
    return open_session()


@pytest.fixture
def watched(open_session):
    """(session, what its observer saw)."""
    observer = Watching()
    return open_session(observers=[observer]), observer


@pytest.fixture(scope="session")
def package_index(tmp_path_factory):
    """Skips the test unless uv can fetch a wheel here."""
    import uv

    folder = tmp_path_factory.mktemp("index")
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-python-downloads", "--only-binary", ":all:"]
    command += ["--python", sys.executable, "--python-version", "3.12", "--python-platform", "x86_64-manylinux2014"]
    command += ["--target", str(folder / "target"), "markupsafe==3.0.3"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "UV_HTTP_RETRIES": "0"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("no package index can be reached: uv did not resolve markupsafe within 60 s")
    if done.returncode:
        pytest.skip(f"no package index can be reached: uv said {' '.join(done.stderr.split())[:200]}")


@pytest.fixture
def run_python():
    """``run_python(code, *arguments)``: a fresh interpreter with the environment of this one; returns the completed process."""

    def run(code, *arguments, options=(), **more):
        command = [sys.executable, *options, "-c", textwrap.dedent(code), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **more)

    return run


@pytest.fixture
def in_powerless_child(tmp_path_factory):
    """``in_powerless_child(work)``: as `in_child`, and permission bits bind it."""
    locked = tmp_path_factory.mktemp("locked")
    locked.chmod(0o555)
    if in_child(lambda: give_up_power() or os.access(locked, os.W_OK)):
        pytest.skip("permission bits do not bind this user (root), and it cannot give that up")
    return lambda work: in_child(lambda: give_up_power() or work())
