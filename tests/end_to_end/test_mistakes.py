"""Each mistake of a user: a sentence that helps, the right exit status, no traceback, nothing on stdout."""

import json
import os
import shutil
import socket
import subprocess

import pytest


def refused(done, status, *said):
    assert done.status == status, (done.out, done.err)
    assert "Traceback" not in done.err
    assert done.out == ""
    for words in said:
        assert words in done.err, done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["benchmark", "invoke", "110.dynamic-html", "test", "--platform", "aws"], ["'aws'", "pip install sebs-aws"]),
        (["benchmark", "invoke", "110.dynamic-html", "test", "--platform", "locl"], ["Did you mean local"]),
        (["benchmark", "invoke", "110.dynamic", "test"], ["Did you mean 110.dynamic-html"]),
        (["benchmark", "invoke", "010.sleep", "huge"], ["'huge'", "test, small, large"]),
        (["benchmark", "invoke", "010.sleep"], ["size", "payload"]),
        (["benchmark", "invoke", "010.sleep", "test", "--repetition", "3"], ["--repetitions"]),
        (["benchmark", "invoke", "010.sleep", "test", "--repetitions", "0"], ["--repetitions"]),
        (["benchmark", "invoke", "010.sleep", "test", "--language-version", "2.7"], ["2.7", "3.11"]),
        (["benchmark", "invoke", "010.sleep", "test", "--language", "cobol"], ["cobol", "python"]),
        (["benchmark", "invoke", "010.sleep", "test", "--memory", "1"], ["memory", "128"]),
        (["benchmark", "invoke", "010.sleep", "test", "--trigger", "pigeon"], ["pigeon", "http"]),
        (["benchmark", "invoke", "010.sleep", "test", "--set", "keepalive=3"], ["keep_alive_s"]),
        (["benchmark", "invoke", "010.sleep", "test", "--set", "nonsense"], ["KEY=VALUE"]),
        (["benchmark", "invoke", "010.sleep", "test", "--extension", "none-such"], ["none-such"]),
        (["benchmark", "invoke", "010.sleep", "test", "--payload", "none.json"], ["none.json"]),
        (["benchmark", "invoke", "010.sleep", "test", "--config", "none.toml"], ["none.toml"]),
        (["benchmark", "invoke", "./nowhere", "test"], ["nowhere", "config.json"]),
        (["benchmark", "list", "--benchmarks", "nowhere"], ["nowhere"]),
        (["platform", "doctor", "aws"], ["pip install sebs-aws"]),
        (["benchmrk"], ["benchmrk"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_exit_status_2(sebs, arguments, said):
    refused(sebs(*arguments), 2, *said)


def test_a_run_that_is_none(sebs):
    refused(sebs("benchmark", "statistics", "."), 3, "run.json")


def test_an_option_unknown_to_the_configuration(sebs):
    (sebs.folder / "run.json").write_text(json.dumps({"repetitons": 3}))
    refused(sebs("benchmark", "invoke", "010.sleep", "test", "--config", "run.json"), 2, "repetitons")


@pytest.mark.parametrize("breakage", ["no input.py", "config is no JSON", "unknown key", "no code", "input.py fails"])
def test_a_broken_benchmark_folder(sebs, breakage):
    folder = sebs.benchmark("def handler(event): ...\n")
    if breakage == "no input.py":
        (folder / "input.py").unlink()
    elif breakage == "config is no JSON":
        (folder / "config.json").write_text("{")
    elif breakage == "unknown key":
        (folder / "config.json").write_text('{"timeout": 1, "memory": 128, "languages": ["python"], "memroy": 3}')
    elif breakage == "no code":
        (folder / "python" / "function.py").unlink()
    else:
        (folder / "input.py").write_text("import no_such_module\n")
    refused(sebs("benchmark", "invoke", "./900.mine", "test"), 2, str(folder))
    listed = sebs("benchmark", "list", "--benchmarks", ".", "--json").json
    assert {"010.sleep", "110.dynamic-html"} <= {row["name"] for row in listed if not row["error"]}


def test_a_taken_port(sebs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(sebs("benchmark", "invoke", "010.sleep", "test", "--set", f"port={port}"), 3, str(port), "another port")


def test_no_network_when_packaging(sebs, tmp_path):
    sebs.benchmark("def handler(event): ...\n", requirements="markupsafe==2.1.5\n")
    nowhere = "http://127.0.0.1:9/simple"
    done = sebs(
        "benchmark", "invoke", "./900.mine", "test", UV_INDEX_URL=nowhere, UV_DEFAULT_INDEX=nowhere, UV_FIND_LINKS="",
        UV_CACHE_DIR=str(tmp_path / "uv"), UV_HTTP_RETRIES="0",
    )  # fmt: skip
    refused(done, 3, "markupsafe==2.1.5", "index could not be reached")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a full disk is made with a tmpfs, as root")
@pytest.mark.parametrize("what", ["cache", "runs"])
def test_a_full_disk(sebs, what):
    disk = sebs.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        (disk / "ballast").write_bytes(b"x" * 48 * 1024)
        sebs.benchmark("def handler(event): ...\n# " + "x" * 40_000 + "\n")
        option = ("--cache-dir", disk / "c") if what == "cache" else ("--output-dir", disk / "r")
        done = sebs("benchmark", "invoke", "./900.mine", "test", *option)
        refused(done, 3, str(disk), "No space left")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_plugin_that_cannot_be_imported_harms_nobody_else(sebs, tmp_path):
    site = tmp_path / "site"
    info = site / "sebs_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sebs-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sebs]\nbroken = sebs_broken\n")
    (site / "sebs_broken.py").write_text("import no_such_sdk\n")
    listed = sebs("platform", "list", "--json", PYTHONPATH=str(site))
    assert {row["name"]: row["error"] for row in listed.json}["broken"].endswith("No module named 'no_such_sdk'")
    done = sebs("benchmark", "invoke", "010.sleep", "test", "--repetitions", 1, PYTHONPATH=str(site))
    assert done.status == 0
    assert done.err.count("sebs_broken") == 1
    done = sebs("benchmark", "invoke", "010.sleep", "test", "--platform", "broken", PYTHONPATH=str(site))
    assert done.status == 3
    assert "no_such_sdk" in done.err
    assert "Traceback" not in done.err


def test_a_pipe_that_closes_early(sebs):
    if shutil.which("head") is None:
        pytest.skip("there is no head")
    done = subprocess.run(
        f"{' '.join(__import__('sys').executable.split())} -m sebs_core benchmark list | head -c 1", shell=True,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_lists_print_arrays_of_objects_with_names(sebs):
    for command in (["benchmark", "list"], ["platform", "list"], ["plugin", "list"], ["platform", "doctor", "local"]):
        rows = sebs(*command, "--json").json
        assert rows
        assert all(row["name"] for row in rows)
