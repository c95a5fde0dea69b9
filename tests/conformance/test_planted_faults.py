"""Ten faults planted in the template's plugin are caught by ten different checks of the kit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="httpx is in the dependency group `checks`")

TEMPLATE = Path(__file__).parents[2] / "docs" / "plugin-template"
FAULTS = {
    "forgets to write down what it makes": (
        'with self._context.resource("role", role):',
        "if role:",
        "test_what_is_listed_is_what_was_made",
    ),
    "loses the id of what it lists": (
        'resources_id=one["value"], ',
        "",
        "test_a_clean_up_leaves_others_alone",
    ),
    "drops the region": (
        '"{account}/{region}".format(',
        '"{account}".format(',
        "test_two_accounts_are_kept_apart",
    ),
    "keeps a secret": (
        '"package_digest": package.digest}',
        '"package_digest": package.digest, "seen": dict(secrets)}',
        "test_secrets_reach_the_function_and_nothing_else",
    ),
    "reuses a stale function": (
        '        return function.model_copy(update={"config": config, **found})',
        '        return function if function.url else function.model_copy(update={"config": config, **found})',
        "test_a_function_changed_behind_the_back_is_not_reused",
    ),
    "tells warm as cold": (
        "else sebs.fields_from_envelope(response.body)",
        "else sebs.fields_from_envelope(response.body).but(instance_sequence=0)",
        "test_warm_is_not_told_as_cold",
    ),
    "takes throttling for success": (
        "if response.status_code == accept else",
        "if response.status_code in (accept, 429) else",
        "test_every_call_of_a_clean_up_may_fail[throttled]",
    ),
    "mixes the order of metrics": (
        "sebs.Metrics(values=told, ",
        "sebs.Metrics(values=dict(zip(told, list(told.values())[::-1])), ",
        "test_metrics_are_of_their_requests",
    ),
    "writes while it lists": (
        'found, cursor = list[Any](), ""',
        'found, cursor = list[Any](), self._ask("POST", "roles", accept=409, json={"name": "x", "tags": {}}) and "" or ""',
        "test_looking_writes_nothing",
    ),
    "raises for a failing function": (
        "        if failure is None:",
        '        if b"ValueError" in response.body:\n'
        '            raise sebs.InvokeError("it failed")\n'
        "        if failure is None:",
        "test_a_failing_function_is_a_row_and_no_exception",
    ),
}


def test_each_is_caught_by_a_check_of_its_own():
    assert len({check for _, _, check in FAULTS.values()}) == len(FAULTS) == 10


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(tmp_path, fault):
    right, wrong, check = FAULTS[fault]
    plugin = tmp_path / "plugin"
    shutil.copytree(TEMPLATE, plugin, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    platform = plugin / "sebs_skylark" / "platform.py"
    source = platform.read_text()
    assert source.count(right) == 1, "the template has changed: plant this fault elsewhere"
    platform.write_text(source.replace(right, wrong))
    installed = plugin / "sebs_skylark-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: sebs-skylark\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text("[sebs]\nskylark = sebs_skylark\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), f"{plugin / 'tests' / 'test_conformance.py'}::TestSkylark::{check}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(plugin), str(plugin / "emulator")])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, f"the check {check} did not catch it:\n{done.stdout[-3000:]}"
    assert "1 failed" in done.stdout or "1 error" in done.stdout
