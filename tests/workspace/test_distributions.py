"""The distributions: built, installed in a fresh environment, imported, weighed; and the pins that both installers use."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import uv

ROOT = Path(__file__).parents[2]
MEMBERS = {"sebs-core": "sebs_core", "sebs-local": "sebs_local", "sebs-benchmarks": "sebs_benchmarks"}
MOST_MEGABYTES = 110


def run(*command, **options):
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheels")
    command = [uv.find_uv_bin(), "build", "--all-packages", "--wheel", "--out-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if re.search(r"dns error|failed to fetch|error sending request|connect", done.stderr, re.I) and done.returncode:
        pytest.skip(f"building needs the package index: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return sorted(out.glob("*.whl"))


@pytest.fixture(scope="module")
def fresh(wheels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, folder)
    run(uv.find_uv_bin(), "pip", "install", "--quiet", "--python", folder, "-c", ROOT / "constraints.txt", *wheels)
    return folder


def test_every_member_becomes_a_wheel(wheels):
    assert {re.split(r"-\d", wheel.name)[0].replace("_", "-") for wheel in wheels} == set(MEMBERS)


def test_wheels_work_in_a_fresh_environment(fresh, tmp_path):
    for package in MEMBERS.values():
        where = run(fresh / "bin" / "python", "-c", f"import {package}; print({package}.__file__)", cwd=tmp_path)
        assert Path(where.strip()).is_relative_to(fresh)
        assert (Path(where.strip()).parent / "py.typed").exists()
    names = [row["name"] for row in json.loads(run(fresh / "bin" / "sebs", "benchmark", "list", "--json", cwd=tmp_path))]
    assert {"010.sleep", "110.dynamic-html"} <= set(names)
    platforms = json.loads(run(fresh / "bin" / "python", "-m", "sebs_core", "platform", "list", "--json", cwd=tmp_path))
    assert [row["name"] for row in platforms] == ["local"]
    assert platforms[0]["error"] is None


def test_a_run_from_wheels_leaves_nothing_in_the_installation(fresh, tmp_path):
    before = {path for path in fresh.rglob("*") if "__pycache__" not in path.parts}
    out = run(
        fresh / "bin" / "sebs", "benchmark", "invoke", "010.sleep", "test", "--repetitions", "2", "--json",
        "--cache-dir", tmp_path / "cache", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(out)["count"] == 2
    assert {path for path in fresh.rglob("*") if "__pycache__" not in path.parts} == before


def test_a_new_plugin_can_be_begun_from_the_wheels(fresh, tmp_path):
    run(fresh / "bin" / "sebs", "plugin", "new", "mine", cwd=tmp_path)
    assert (tmp_path / "sebs-mine" / "sebs_mine" / "platform.py").is_file()


def test_the_installation_is_small(fresh):
    size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file() and not path.is_symlink())
    assert size / 1e6 <= MOST_MEGABYTES, f"{size / 1e6:.0f} MB"


def test_versions_agree():
    versions = {re.search(r'^version = "(.+)"', path.read_text(), re.M)[1] for path in ROOT.glob("*/*/pyproject.toml")}
    versions |= {re.search(r'^version = "(.+)"', (ROOT / "benchmarks/pyproject.toml").read_text(), re.M)[1]}
    versions |= {
        re.search(r'__version__ = "(.+)"', p.read_text())[1]
        for p in ROOT.glob("*/*/*/__init__.py")
        if "__version__" in p.read_text()
    }
    assert len(versions) == 1, versions


def test_both_installers_have_the_same_pins():
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"constraint-dependencies = \[(.*?)\n\]", text, re.S)[1]
    in_workspace = set(re.findall(r'"([^"]+)"', block))
    in_file = {line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")}
    assert in_workspace == {line.replace('"', "'") for line in in_file}
    assert not any("://" in line or "@" in line for line in in_file)


def test_no_lock_file_and_no_address_is_tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    assert not [name for name in tracked if name.endswith("uv.lock")]
    hosts = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.")
    texts = [name for name in tracked if (ROOT / name).is_file() and not name.endswith((".png", ".parquet"))]
    assert not [name for name in texts if any(host in (ROOT / name).read_text(errors="ignore") for host in hosts)]
