"""What is kept between sessions, as a user meets it: a second run writes nothing, and every option says why it does."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from folder_platform import Cloud, installed_in

BENCHMARK = "900.mine"
CODE = "import os\ndef handler(event):\n    return {'result': 'as it was', 'secret is here': 'SECRET' in os.environ}\n"
KEPT = ("cache", "state", "cloud", BENCHMARK)


@dataclass
class Kept:
    """The command line, on a provider that is a folder."""

    sebs: object
    folder: Path

    @property
    def cloud(self):
        return Cloud(self.folder / "cloud")

    @property
    def code(self):
        return self.folder / BENCHMARK / "python" / "function.py"

    def __call__(self, *arguments, **environment):
        return self.sebs(*arguments, **environment)

    def invoke(self, *options, **environment):
        options = ["--trigger", "library", "--repetitions", 1, "--json", *options]
        return self("benchmark", "invoke", self.folder / BENCHMARK, "test", *options, **environment)

    def resource(self, command, *options):
        return self("resource", command, *options)

    def new_calls(self, work):
        """What the provider was asked to change meanwhile, and what was answered."""
        before = len(self.cloud.calls)
        done = work()
        return [re.sub(r"/sebs-[0-9a-f]{8}-[^ ]*", "/…", call) for call in self.cloud.calls[before:]], done

    @property
    def key_of_role(self):
        return next(key for key in self.cloud.there if key.startswith("role/"))


@pytest.fixture
def kept(sebs, tmp_path):
    """Nothing is kept yet."""
    sebs.environment |= {
        **installed_in(tmp_path / "site"),
        "SEBS_CACHE_DIR": str(tmp_path / "cache"),
        "SEBS_STATE_DIR": str(tmp_path / "state"),
        "SEBS_PLATFORM": "folder",
        "SEBS_SET": f"cloud={tmp_path / 'cloud'}",
    }
    sebs.benchmark(CODE, BENCHMARK)
    return Kept(sebs, tmp_path)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Where what one run leaves is copied from."""
    return tmp_path_factory.mktemp("once")


@pytest.fixture
def after_a_run(kept, once):
    """A function has been deployed and invoked before."""
    if not (once / "cloud").exists():
        done = kept.invoke()
        assert done.status == 0, done.err
        for name in KEPT:
            shutil.copytree(kept.folder / name, once / name)
    for name in KEPT:
        shutil.rmtree(kept.folder / name, ignore_errors=True)
        shutil.copytree(once / name, kept.folder / name)
    return kept


def well(done):
    assert done.status == 0, done.err
    return done


def stages(done):
    """Stage → how it went, as progress tells it."""
    lines = (re.fullmatch(r"(package|deploy) +[^ ]+: (.*)", line) for line in done.err.splitlines())
    return {line[1]: re.sub(r"^[0-9.]+ s ", "", line[2]) for line in lines if line}


def refused(done, status, *said):
    assert (done.status, done.out) == (status, ""), done.err
    assert "Traceback" not in done.err
    for words in said:
        assert words in done.err, done.err


# --- the second time ------------------------------------------------------------------------------------------------------


def test_a_first_run_says_why_it_works_and_a_second_one_writes_nothing_on_the_platform(kept):
    calls, done = kept.new_calls(kept.invoke)
    assert stages(well(done)) == {"package": "(it was not built yet)", "deploy": "(it is not known to be deployed)"}
    assert len(calls) == 5
    calls, done = kept.new_calls(kept.invoke)
    assert stages(well(done)) == {"package": "reused", "deploy": "reused"}
    assert calls == []
    assert kept.cloud.builds == 1


def answer_of(done):
    body = Path(done.json["run"], "bodies", "0.json")
    return json.loads(body.read_text())["result"]


def test_changed_code_is_built_and_deployed_and_the_progress_names_the_file(after_a_run):
    after_a_run.code.write_text(CODE.replace("as it was", "as it is now"))
    (after_a_run.code.parent / "more.py").write_text("")
    calls, done = after_a_run.new_calls(lambda: after_a_run.invoke("--keep-outputs", "--output-dir", after_a_run.folder / "r"))
    assert stages(well(done)) == {
        "package": "(function/function.py changed, function/more.py added)", "deploy": "(its code differs)"
    }  # fmt: skip
    assert [call.split("/")[0] for call in calls] == ["put object", "update function", "update code"]
    assert answer_of(done) == "as it is now"


def test_changed_memory_updates_the_function_and_nothing_else(after_a_run):
    calls, done = after_a_run.new_calls(lambda: after_a_run.invoke("--memory", 256))
    assert stages(well(done)) == {"package": "reused", "deploy": "(its configuration differs: memory_mb)"}
    assert calls == ["update function/…"]
    (function,) = [key for key in after_a_run.cloud.there if key.startswith("function/")]
    assert after_a_run.cloud.peek(*function.split("/"))["config"]["memory_mb"] == 256


def test_rebuild_builds_and_deploys_although_nothing_changed(after_a_run):
    calls, done = after_a_run.new_calls(lambda: after_a_run.invoke("--rebuild"))
    assert stages(well(done)) == dict.fromkeys(("package", "deploy"), "(a rebuild was asked for)")
    assert (after_a_run.cloud.builds, calls[-1]) == (2, "update function/…")


def test_a_function_of_another_name_is_another_function(after_a_run):
    calls, done = after_a_run.new_calls(lambda: after_a_run.invoke("--function-name", "mine"))
    assert stages(well(done)) == {"package": "reused", "deploy": "(it is not known to be deployed)"}
    assert calls[:2] == ["create function/mine", "update code/mine"]
    calls, done = after_a_run.new_calls(lambda: after_a_run.invoke("--function-name", "mine"))
    assert (stages(well(done))["deploy"], calls) == ("reused", [])


def test_ignored_functions_are_deployed_again_and_known_from_then_on(after_a_run):
    calls, done = after_a_run.new_calls(lambda: after_a_run.invoke("--ignore-cached", "functions"))
    assert stages(well(done)) == {"package": "reused", "deploy": "(cached functions are ignored)"}
    assert "update function/…" in calls
    calls, _ = after_a_run.new_calls(lambda: well(after_a_run.invoke()))
    assert calls == []


def test_replaced_inputs_are_forgotten_of_this_benchmark_only(after_a_run):
    plant = (
        "import sys; from pathlib import Path; from sebs_core.cache import Cache; cache = Cache(Path(sys.argv[1]))\n"
        "for name in (sys.argv[2], 'another'): cache.merge_data('storage', 'folder', 'main', name, {'buckets': {'in': 'b'}})"
    )
    subprocess.run([sys.executable, "-c", plant, str(after_a_run.folder / "cache"), BENCHMARK], check=True)

    def stored():
        rows = well(after_a_run("cache", "list", "--json")).json
        return [row["benchmark"] for row in rows if row["kind"] == "storage"]

    assert stored() == [BENCHMARK, "another"]
    calls, _ = after_a_run.new_calls(lambda: well(after_a_run.invoke("--replace-inputs")))
    assert (stored(), calls) == (["another"], [])


def test_a_run_that_was_killed_leaves_what_the_next_one_takes_up(kept):
    assert kept.invoke(SEBS_TEST_DIE_AT="function:after").status == -9
    listed = {row["kind"]: row["status"] for row in well(kept.resource("list", "--json")).json}
    assert listed == {"object": "exists", "role": "exists", "function": "exists"}
    assert stages(well(kept.invoke())) == {"package": "reused", "deploy": "(it is not known to be deployed)"}
    assert {outcome["outcome"] for outcome in well(kept.resource("cleanup", "--json")).json} == {"removed"}
    assert kept.cloud.there == []


# --- the resources id -----------------------------------------------------------------------------------------------------


def ids(kept):
    return {kept.cloud.peek(*key.split("/"))["resources_id"] for key in kept.cloud.there}


def test_a_prefix_begins_an_id_that_is_found_again_also_without_the_state(kept):
    well(kept.invoke("--resource-prefix", "team"))
    (one,) = ids(kept)
    assert re.fullmatch("team-[0-9a-f]{8}", one)
    calls, _ = kept.new_calls(lambda: well(kept.invoke("--resource-prefix", "team")))
    assert calls == []
    shutil.rmtree(kept.folder / "state")
    well(kept.invoke("--resource-prefix", "team"))
    assert ids(kept) == {one}
    listed = well(kept.resource("list", "--resource-prefix", "team", "--json")).json
    assert sorted(row["name"] for row in listed) == kept.cloud.there


def test_what_belongs_to_another_id_is_told_and_neither_used_nor_touched(after_a_run):
    (first,) = ids(after_a_run)
    before = after_a_run.cloud.there
    done = well(after_a_run.invoke("--resource-prefix", "team"))
    assert f"there are resources of other ids: {first}. This session uses team-" in done.err
    well(after_a_run.invoke("--resources-id", "exactly-this"))
    assert ids(after_a_run) == {first, "exactly-this", *(one for one in ids(after_a_run) if one.startswith("team-"))}
    assert len(after_a_run.cloud.there) == 3 * len(before)
    assert well(after_a_run.resource("cleanup", "--json")).json
    assert set(before).isdisjoint(after_a_run.cloud.there)
    assert len(after_a_run.cloud.there) == 2 * len(before)
    calls, _ = after_a_run.new_calls(lambda: well(after_a_run.invoke("--resources-id", "exactly-this")))
    assert [call for call in calls if not call.startswith("put object/")] == []


# --- the cache ------------------------------------------------------------------------------------------------------------


def test_the_cache_is_listed_with_sizes_and_each_record_can_be_read(after_a_run):
    rows = well(after_a_run("cache", "list", "--json")).json
    assert [row["kind"] for row in rows] == ["function", "inputs", "package", "published"]
    sizes = {row["kind"]: row["size_bytes"] for row in rows}
    (package,) = after_a_run.folder.glob("cache/packages/*/code.zip")
    assert 0 < sizes["package"] - package.stat().st_size < 5000
    assert {row["account"] for row in rows} == {None, "main"}
    assert all(re.fullmatch(r"2\d{3}-\d\d-\d\dT[0-9:]+\+00:00", row["created"]) for row in rows)

    table = well(after_a_run("cache", "list"))
    assert re.search(rf"^[0-9.]+ kB +.*{BENCHMARK} +package/folder/", table.out, re.MULTILINE)
    assert re.fullmatch(rf"[0-9.]+ kB in {after_a_run.folder}/cache\n", table.err)
    assert well(after_a_run("cache", "list", "--platform", "another", "--json")).json == []

    (function,) = [row["name"] for row in rows if row["kind"] == "function"]
    assert well(after_a_run("cache", "show", function)).json["config"]["memory_mb"] == 128
    assert well(after_a_run("cache", "show", "package/")).json["benchmark"] == BENCHMARK


def test_after_clearing_the_cache_all_is_built_anew_and_nothing_on_the_platform_is_lost(after_a_run):
    there = after_a_run.cloud.there
    calls, done = after_a_run.new_calls(lambda: well(after_a_run("cache", "clear", "--json")))
    assert (done.json["records"], done.json["in_use"], calls) == (4, [], [])
    assert done.json["freed_bytes"] > 1000
    assert well(after_a_run("cache", "list", "--json")).json == []
    assert stages(well(after_a_run.invoke()))["package"] == "(it was not built yet)"
    assert after_a_run.cloud.there == there
    assert "removed 0 records" in well(after_a_run("cache", "clear", "--platform", "another")).out


def test_pruning_removes_what_a_newer_build_replaced_and_nothing_else(after_a_run):
    assert well(after_a_run("cache", "prune", "--json")).json == {"records": 0, "freed_bytes": 0, "in_use": []}
    after_a_run.code.write_text(CODE + "# changed\n")
    well(after_a_run.invoke())
    pruned = well(after_a_run("cache", "prune", "--json")).json
    assert (pruned["records"], pruned["freed_bytes"] > 1000) == (2, True)
    calls, done = after_a_run.new_calls(after_a_run.invoke)
    assert (stages(well(done))["package"], calls) == ("reused", [])


# --- resources ------------------------------------------------------------------------------------------------------------


def test_resources_are_listed_removed_and_cleaned_up(after_a_run):
    listed = well(after_a_run.resource("list", "--json")).json
    assert sorted(row["name"] for row in listed) == after_a_run.cloud.there
    assert {row["status"] for row in listed} == {"exists"}
    (rule,) = [row for row in listed if row["kind"] == "rule"]
    (function,) = [row for row in listed if row["kind"] == "function"]
    assert rule["depends_on"] == [function["name"]]

    calls, done = after_a_run.new_calls(lambda: well(after_a_run.resource("cleanup", "--dry-run", "--json")))
    assert calls == []
    would = [outcome["name"] for outcome in done.json]
    assert would.index(rule["name"]) < would.index(function["name"]) < would.index(after_a_run.key_of_role)
    assert {outcome["outcome"] for outcome in done.json} == {"would be removed"}
    calls, done = after_a_run.new_calls(lambda: well(after_a_run.resource("remove", rule["name"], "--dry-run")))
    assert (calls, "would be removed" in done.out) == ([], True)

    calls, done = after_a_run.new_calls(lambda: well(after_a_run.resource("remove", rule["name"], "--json")))
    assert [(outcome["name"], outcome["outcome"]) for outcome in done.json] == [(rule["name"], "removed")]
    assert len(calls) == 1
    done = well(after_a_run.resource("cleanup", "--kind", "function", "--json"))
    assert [(outcome["name"], outcome["outcome"]) for outcome in done.json] == [(function["name"], "removed")]
    done = well(after_a_run.resource("cleanup", "--json"))
    assert ([outcome["name"] for outcome in done.json], after_a_run.cloud.there) == (would[2:], [])
    calls, done = after_a_run.new_calls(lambda: well(after_a_run.resource("cleanup")))
    assert (calls, done.out) == ([], "none\n")


def test_what_somebody_removed_already_was_gone_and_is_no_error(after_a_run):
    rule = next(key for key in after_a_run.cloud.there if key.startswith("rule/"))
    after_a_run.cloud.delete(*rule.split("/"))
    done = well(after_a_run.resource("cleanup", "--json"))
    outcomes = {outcome["name"]: outcome["outcome"] for outcome in done.json}
    assert outcomes.pop(rule) == "was gone"
    assert set(outcomes.values()) == {"removed"}


def test_one_removal_that_fails_is_told_by_the_exit_status_and_the_rest_is_removed(after_a_run):
    role = after_a_run.key_of_role
    after_a_run.cloud.create("function", "theirs", resources_id="theirs", depends_on=[role])
    done = after_a_run.resource("cleanup", "--json")
    assert (done.status, "Traceback" in done.err) == (3, False)
    outcomes = {outcome["name"]: (outcome["outcome"], outcome["error"]) for outcome in done.json}
    assert outcomes.pop(role) == ("failed", f"{role} is still used by function/theirs")
    assert set(outcomes.values()) == {("removed", None)}
    assert after_a_run.cloud.there == ["function/theirs", role]
    assert [row["name"] for row in well(after_a_run.resource("list", "--json")).json] == [role]
    assert after_a_run.resource("cleanup").status == 3
    after_a_run.cloud.delete("function", "theirs")
    well(after_a_run.resource("cleanup"))
    assert after_a_run.cloud.there == []


def test_mistakes_are_sentences_with_the_exit_status_2_and_change_nothing(after_a_run):
    def mistakes():
        role = after_a_run.key_of_role
        refused(after_a_run.resource("remove", role), 2, "uses", f"{role}: remove it too, or first")
        refused(after_a_run.resource("remove", "role/typo"), 2, "there is no resource role/typo of", "There are:", role)
        refused(
            after_a_run.resource("list", "--resource-prefix", "UPPER"), 2, "'UPPER' cannot be a resource prefix", "20 small"
        )
        refused(after_a_run("cache", "show", "nothing/such"), 2, "has no record 'nothing/such'", "sebs cache list")
        refused(after_a_run("cache", "show", "p"), 2, "'p' begins 2 records: package/folder/", "published/folder/")
        refused(after_a_run.invoke("--ignore-cached", "packages"), 2, "'packages' is not one of")

    calls, _ = after_a_run.new_calls(mistakes)
    assert calls == []


# --- secrets --------------------------------------------------------------------------------------------------------------

WITH_A_SECRET = """
import pathlib, sys, sebs_core as sebs
cloud, folder, secret, token = sys.argv[1:]
with sebs.connect("folder", cloud=cloud, token=token) as session:
    result = session.run(pathlib.Path(folder), "test", trigger="library", secrets={"SECRET": secret}, keep_outputs=True)
    assert result.body(0)["secret is here"]
    result.save("copy")
"""


def test_planted_secrets_are_nowhere_in_what_is_kept_or_said(kept):
    token, secret = "planted-token-7f3a", "planted-secret-91bc"
    said = []
    for options in ([], ["--rebuild"]):
        done = well(kept.invoke("-vv", "--set", f"token={token}", "--set", f"cloud={kept.folder / 'cloud'}", *options))
        said += [done.out, done.err]
    script = [sys.executable, "-c", WITH_A_SECRET, str(kept.folder / "cloud"), str(kept.folder / BENCHMARK), secret, token]
    done = subprocess.run(
        script, env=kept.sebs.environment, cwd=kept.folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said += [done.stdout, done.stderr]
    for command in (["cache", "list", "-vv"], ["cache", "show", "function/"], ["resource", "cleanup", "-vv", "--dry-run"]):
        done = well(kept(*command))
        said += [done.out, done.err]
    assert secret in str([kept.cloud.peek(*key.split("/")) for key in kept.cloud.there]), "the provider has it"

    looked_at = {name: [path for path in (kept.folder / name).rglob("*") if path.is_file()] for name in (*KEPT, "runs", "copy")}
    del looked_at["cloud"]
    assert all(looked_at.values())
    for text in (token, secret):
        assert [path for paths in looked_at.values() for path in paths if text.encode() in path.read_bytes()] == []
        assert not any(text in one for one in said)
    assert oct((kept.folder / "state" / "key").stat().st_mode & 0o777) == "0o600"
