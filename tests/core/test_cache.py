"""The cache: what was kept is found by whoever looks, nothing is half there, and nothing is removed that somebody needs."""

import errno
import hashlib
import itertools
import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from example_records import FUNCTION, PACKAGE
from processes import FORK, at_once, in_child

from sebs_core.cache import Cache, Sweep, default_cache_folder
from sebs_core.confidential import Confidential
from sebs_core.database import Database
from sebs_core.errors import CacheError, PluginError
from sebs_core.locks import Locks
from sebs_core.models import Function, Inputs, Package, Trigger


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def open_cache(folder):
    """``open_cache(**options)``: cache objects of one folder, closed at the end."""
    opened = []

    def open_one(where=folder, **more):
        opened.append(Cache(where, **more))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def cache(open_cache):
    return open_cache()


def build(cache, content="content", *, platform="double", note="", **fields):
    """Build a package as sessions do; what is in `content` decides its digest, what is in `note` only its inputs."""
    inputs = Inputs(parts={"content": content, "note": note, **{key: str(value) for key, value in fields.items()}})
    with cache.building(platform, inputs.digest, f"building {content}") as place:
        path = place / "code.zip"
        path.write_text(content)
        told = {"path": path, "digest": hashlib.sha256(content.encode()).hexdigest(), "inputs": inputs.digest}
        package = PACKAGE.model_copy(update={**told, "size_bytes": len(content), **fields})
        return cache.keep_package(platform, package, inputs)


def deploy(cache, package, name="f", *, account="mine", platform="double"):
    function = FUNCTION.model_copy(update={"name": name, "package_digest": package.digest, "platform": platform})
    cache.keep_function(account, function)
    return function


def files_in(folder, below=""):
    return sorted(path.relative_to(folder).as_posix() for path in (folder / below).rglob("*") if path.is_file())


def packages_in(folder):
    return {Path(name).parts[1] for name in files_in(folder, "packages")}


def keys(cache, **conditions):
    return [entry.key for entry in cache.entries(**conditions)]


def change_record(cache, kind, record):
    with cache.database.writing() as connection:
        assert connection.execute("UPDATE entry SET record=? WHERE kind=?", (record, kind)).rowcount


def no_space(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Other:
    """Another process: enters a block, and stays there until it is told to go on or killed."""

    def __init__(self, block):
        self.pipe, there = FORK.Pipe()

        def run():
            with block() as entered:
                there.send(entered)
                there.recv()

        self.process = FORK.Process(target=run, daemon=True)
        self.process.start()
        there.close()
        assert self.pipe.poll(20)
        self.entered = self.pipe.recv()

    def go_on(self, *_):
        self.pipe.send("go on")

    def end(self):
        self.process.join(20)
        return self.process.exitcode

    def kill(self, *_):
        self.process.kill()
        self.process.join(20)


@pytest.fixture
def other():
    """``other(block)``: another process within this block."""
    others = []

    def make(block):
        others.append(Other(block))
        return others[-1]

    yield make
    for one in others:
        one.kill()


class Using:
    """A block within which a package is in use."""

    def __init__(self, folder, inputs):
        self.cache, self.inputs = Cache(folder), inputs

    def __enter__(self):
        return self.cache.package("double", self.inputs).path

    def __exit__(self, *_):
        self.cache.close()


# --- packages -------------------------------------------------------------------------------------------------------------


def test_a_package_lies_under_its_digest_and_is_found_by_its_inputs(cache, folder, open_cache):
    kept = build(cache, "zip")
    assert kept.path == folder / "packages" / kept.digest / "code.zip"
    assert kept.path.read_text() == "zip"
    assert cache.package("double", kept.inputs) == open_cache().package("double", kept.inputs) == kept
    assert cache.package("other", kept.inputs) is None
    assert cache.package("double", "other inputs") is None
    assert files_in(folder, "building") == []


VARIANTS = {
    "benchmark": ["b", "c"],
    "language": ["python", "nodejs"],
    "language_version": ["3.11", "3.12"],
    "language_variant": ["default", "pypy"],
    "system_variant": ["package", "container", "package-2nd-gen"],
    "architecture": ["x64", "arm64"],
}


def test_packages_of_all_variants_stand_side_by_side(cache):
    one = {field: values[0] for field, values in VARIANTS.items()}
    variants = [{**one, field: value} for field, values in VARIANTS.items() for value in values[1:]] + [one]
    kept = {build(cache, f"package {n}", **variant).inputs: variant for n, variant in enumerate(variants)}
    assert len(kept) == len(variants) == 8
    for inputs, variant in kept.items():
        package = cache.package("double", inputs)
        assert {field: getattr(package, field) for field in VARIANTS} == variant
        assert cache.inputs("double", package.variant).digest == inputs
    assert {package.inputs for package in cache.packages("double")} == set(kept)
    assert [package.benchmark for package in cache.packages("double", "c")] == ["c"]
    assert cache.packages("other") == []


def test_the_places_of_listed_packages_are_relative_to_the_folder(cache, folder):
    kept = build(cache)
    (listed,) = cache.packages("double")
    assert folder / listed.path == kept.path


def test_a_container_keeps_its_image_and_where_it_was_pushed(cache):
    kept = build(cache, kind="container", system_variant="container", image_id="sha256:1")
    assert (kept.kind, kept.image_id, kept.uri) == ("container", "sha256:1", None)
    cache.keep_published("double", "mine", kept.model_copy(update={"uri": "registry/b:1"}))
    published = cache.published("double", "mine", cache.package("double", kept.inputs))
    assert (published.image_id, published.uri, published.path) == ("sha256:1", "registry/b:1", kept.path)
    assert cache.package("double", kept.inputs).uri is None


def test_a_folder_can_be_a_package(cache):
    inputs = Inputs(parts={})
    with cache.building("double", inputs.digest, "building") as place:
        (place / "code" / "inner").mkdir(parents=True)
        (place / "code" / "inner" / "x.py").write_text("x")
        package = PACKAGE.model_copy(update={"path": place / "code", "inputs": inputs.digest, "kind": "folder"})
        kept = cache.keep_package("double", package, inputs)
    assert (kept.path / "inner" / "x.py").read_text() == "x"
    assert cache.package("double", inputs.digest) == kept


def test_a_package_that_another_session_keeps_at_the_same_moment_is_taken(cache, monkeypatch):
    rename = Path.rename

    def late(self, target):
        shutil.copytree(self, target)
        return rename(self, target)

    with cache.building("double", "i", "building") as place:
        (place / "code").mkdir()
        (place / "code" / "x.py").write_text("x")
        package = PACKAGE.model_copy(update={"path": place / "code", "inputs": "i", "kind": "folder"})
        monkeypatch.setattr(Path, "rename", late)
        kept = cache.keep_package("double", package, Inputs(parts={}))
    assert cache.package("double", "i") == kept
    assert (kept.path / "x.py").read_text() == "x"


def test_what_went_into_the_latest_build_of_a_variant_is_told(cache):
    first, second = build(cache, "one"), build(cache, "two")
    assert first.variant == second.variant
    assert cache.inputs("double", first.variant).parts["content"] == "two"
    assert cache.inputs("double", "another variant") is None
    assert cache.inputs("other", first.variant) is None
    assert cache.package("double", first.inputs) == first


def test_a_package_built_again_with_the_same_digest_keeps_the_files_that_are_there(cache):
    first = build(cache, "same")
    inode = first.path.stat().st_ino
    again, of_other_inputs = build(cache, "same"), build(cache, "same", note="other")
    assert first.inputs == again.inputs != of_other_inputs.inputs
    assert first.path == again.path == of_other_inputs.path
    assert first.path.stat().st_ino == inode
    assert cache.package("double", first.inputs) == again
    assert cache.package("double", of_other_inputs.inputs) == of_other_inputs


def test_processes_that_build_the_same_at_once_all_have_it(folder, open_cache):
    def work(n):
        cache = Cache(folder)
        for note in ("", f"my own {n}"):
            kept = build(cache, "same" * 1000, note=note)
            assert cache.package("double", kept.inputs) == kept
            assert kept.path.read_text() == "same" * 1000

    at_once(8, work)
    assert len(open_cache().packages("double")) == 9
    assert len(packages_in(folder)) == 1
    assert files_in(folder, "building") == files_in(folder, "locks") == []


def test_a_package_whose_files_are_gone_counts_as_absent_and_is_built_again(cache, folder):
    kept = build(cache)
    shutil.rmtree(kept.path.parent)
    assert cache.package("double", kept.inputs) is None
    assert build(cache) == kept
    assert cache.package("double", kept.inputs).path.read_text() == "content"
    shutil.rmtree(folder / "packages")
    assert cache.package("double", kept.inputs) is None


# --- building -------------------------------------------------------------------------------------------------------------


def test_who_wants_to_build_the_same_waits_and_finds_it(cache, open_cache, other, folder):
    told = []
    builder = other(lambda: cache.building("double", "i", "building the package of b"))

    def tell(text):
        told.append(text)
        builder.go_on()

    with open_cache(tell=tell).building("double", "i", "building"):
        assert builder.end() == 0
    assert len(told) == 1
    assert f"process {builder.process.pid} " in told[0]
    assert told[0].endswith("which is building the package of b")


def test_what_is_built_of_other_inputs_or_for_others_waits_for_nobody(cache, open_cache):
    other = open_cache(tell=pytest.fail)
    with cache.building("double", "i", ""), other.building("double", "j", ""), other.building("other", "i", ""):
        pass


def test_a_build_leaves_nothing_behind_when_it_fails(cache, folder):
    with pytest.raises(RuntimeError), cache.building("double", "i", "building") as place:
        (place / "half").write_text("x")
        raise RuntimeError
    assert files_in(folder) == []


def test_a_build_begins_in_an_empty_folder_although_one_before_died(cache, other):
    died = other(lambda: cache.building("double", "i", "building"))
    (died.entered / "half").write_text("x")
    died.kill()
    assert (died.entered / "half").exists()
    with cache.building("double", "i", "building") as place:
        assert place == died.entered
        assert list(place.iterdir()) == []


def no_space_for_packages(path, mkdir=Path.mkdir, **more):
    if "packages" in path.parts:
        no_space()
    mkdir(path, **more)


FAULTS = {
    "syncing": ("os.fsync", no_space),
    "renaming": ("pathlib.Path.rename", no_space),
    "making its folder": ("pathlib.Path.mkdir", no_space_for_packages),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_full_disk_while_a_package_is_kept_leaves_no_half_of_it(cache, folder, monkeypatch, fault):
    old = build(cache, "old")
    inputs = Inputs(parts={})
    with cache.building("double", inputs.digest, "building") as place:
        (place / "code.zip").write_text("new")
        package = PACKAGE.model_copy(update={"path": place / "code.zip", "inputs": inputs.digest, "digest": "new"})
        monkeypatch.setattr(*FAULTS[fault])
        with pytest.raises(CacheError) as refused:
            cache.keep_package("double", package, inputs)
        monkeypatch.undo()
    message = str(refused.value)
    assert str(folder) in message
    assert "No space left on device" in message
    assert "Free some space" in message
    assert "--cache-dir (SEBS_CACHE_DIR)" in message
    assert packages_in(folder) == {old.digest}
    assert cache.package("double", inputs.digest) is None
    assert cache.package("double", old.inputs) == old
    assert cache.inputs("double", old.variant).digest == old.inputs
    assert build(cache, "new").path.read_text() == "new"


def test_a_package_is_on_the_disk_before_its_record_says_that_it_is_there(cache, monkeypatch):
    done = []
    fsync, rename, writing = os.fsync, Path.rename, Database.writing
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("sync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "rename", lambda self, target: (done.append("rename"), rename(self, target))[1])
    monkeypatch.setattr(Database, "writing", lambda self: (done.append("record"), writing(self))[1])
    build(cache)
    assert done == ["sync", "rename", "record"]


def test_a_process_killed_before_the_record_leaves_a_package_that_counts_as_absent(cache, folder, monkeypatch):
    def work():
        monkeypatch.setattr(Database, "writing", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        build(Cache(folder))

    assert in_child(work) is None
    assert len(packages_in(folder)) == 1
    assert cache.packages("double") == cache.entries() == []
    kept = build(cache)
    assert cache.package("double", kept.inputs) == kept
    assert len(packages_in(folder)) == 1


# --- publications ---------------------------------------------------------------------------------------------------------


def publish(cache, package, account="mine", platform="double"):
    cache.keep_published(platform, account, package.model_copy(update={"uri": f"https://{account}/{package.digest}"}))


def test_a_package_is_published_once_per_account(cache):
    kept = build(cache)
    assert cache.published("double", "mine", kept) is None
    publish(cache, kept)
    assert cache.published("double", "mine", kept) == kept.model_copy(update={"uri": f"https://mine/{kept.digest}"})
    assert cache.published("double", "other", kept) is None
    assert cache.published("other", "mine", kept) is None
    assert cache.published("double", "mine", build(cache, "another")) is None


def test_what_was_published_is_forgotten_for_a_whole_account_and_packages_stay(cache):
    one, two = build(cache, "one"), build(cache, "two")
    for package, account in itertools.product((one, two), ("mine", "other")):
        publish(cache, package, account)
    cache.forget_published("double", "mine")
    cache.forget_published("double", "mine")
    assert [cache.published("double", "mine", package) for package in (one, two)] == [None, None]
    assert None not in [cache.published("double", "other", package) for package in (one, two)]
    assert cache.package("double", one.inputs) == one


def test_a_rebuild_forgets_its_publications_and_no_others(cache):
    kept, another = build(cache, "one"), build(cache, "two")
    elsewhere = build(cache, "one", platform="other")
    for account in ("mine", "other"):
        publish(cache, kept, account)
    publish(cache, another)
    publish(cache, elsewhere, platform="other")
    assert build(cache, "one").inputs == kept.inputs == elsewhere.inputs
    assert [cache.published("double", account, kept) for account in ("mine", "other")] == [None, None]
    assert cache.published("double", "mine", another) is not None
    assert cache.published("other", "mine", elsewhere) is not None


def test_what_was_published_of_another_digest_is_not_this_package(cache):
    kept = build(cache)
    publish(cache, kept.model_copy(update={"digest": "another"}))
    assert cache.published("double", "mine", kept) is None


# --- functions ------------------------------------------------------------------------------------------------------------


def a_function(**more):
    return FUNCTION.model_copy(update=more)


def test_functions_are_kept_per_account_and_platform_and_forgotten_one_by_one(cache):
    places = list(itertools.product(("double", "other"), ("mine", "yours")))
    for platform, account in places:
        cache.keep_function(account, a_function(platform=platform, generation=f"{platform} {account}"))
    for platform, account in places:
        assert cache.function(platform, account, "f").generation == f"{platform} {account}"
    for _ in range(2):
        cache.forget_function("double", "mine", "f")
    assert cache.function("double", "mine", "f") is None
    assert cache.function("double", "mine", "unknown") is None
    assert [cache.function(*place, "f") is None for place in places] == [True, False, False, False]


def test_a_function_is_brought_up_to_date_under_its_name(cache):
    cache.keep_function("mine", a_function(generation="1"))
    later = a_function(generation="2", triggers=(Trigger(kind="http", url="https://x"),))
    cache.keep_function("mine", later)
    assert cache.function("double", "mine", "f") == later
    assert cache.functions("double") == [later]


def test_functions_are_listed_of_a_platform_an_account_or_a_benchmark(cache):
    for name, benchmark, account in (("f", "b", "mine"), ("g", "c", "mine"), ("h", "b", "yours")):
        cache.keep_function(account, a_function(name=name, benchmark=benchmark))
    cache.keep_function("mine", a_function(platform="other"))
    listed = {
        "all": cache.functions("double"),
        "mine": cache.functions("double", "mine"),
        "of b": cache.functions("double", benchmark="b"),
        "mine of b": cache.functions("double", "mine", "b"),
    }
    names = {what: [function.name for function in functions] for what, functions in listed.items()}
    assert names == {"all": ["f", "g", "h"], "mine": ["f", "g"], "of b": ["f", "h"], "mine of b": ["f"]}


def test_functions_need_no_package_and_can_be_ignored(cache, open_cache):
    cache.keep_function("mine", a_function())
    ignoring = open_cache(ignore=("functions",))
    assert ignoring.function("double", "mine", "f") is None
    assert ignoring.functions("double") == []
    assert ignoring.function("double", "mine", "f", anyway=True) == a_function()
    ignoring.keep_function("mine", a_function(generation="2"))
    assert cache.function("double", "mine", "f").generation == "2"
    assert open_cache(ignore=("storage",)).function("double", "mine", "f") is not None


# --- storage and NoSQL ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["storage", "nosql"])
def test_data_of_benchmarks_is_merged_listed_and_forgotten_without_any_package(cache, kind):
    assert cache.data(kind, "double", "mine", "b") is None
    assert cache.all_data(kind, "double", "mine") == {}
    cache.merge_data(kind, "double", "mine", "b", {"buckets": {"input": {"name": "i", "size": 1}}, "digest": "1"})
    cache.merge_data(kind, "double", "mine", "b", {"buckets": {"input": {"size": 2}, "output": {"name": "o"}}, "digest": "2"})
    cache.merge_data(kind, "double", "mine", "c", {"x": 1})
    of_b = {"buckets": {"input": {"name": "i", "size": 2}, "output": {"name": "o"}}, "digest": "2"}
    assert cache.data(kind, "double", "mine", "b") == of_b
    assert cache.all_data(kind, "double", "mine") == {"b": of_b, "c": {"x": 1}}
    for _ in range(2):
        cache.forget_data(kind, "double", "mine", "b")
    assert cache.data(kind, "double", "mine", "b") is None
    assert cache.all_data(kind, "double", "mine") == {"c": {"x": 1}}
    for _ in range(2):
        cache.forget_data(kind, "double", "mine")
    assert cache.all_data(kind, "double", "mine") == {}


def test_data_of_other_kinds_accounts_and_platforms_stays(cache):
    places = list(itertools.product(("storage", "nosql"), ("double", "other"), ("mine", "yours")))
    for place in places:
        cache.merge_data(*place, "b", {"place": list(place)})
    cache.forget_data(*places[0])
    assert [cache.data(*place, "b") for place in places] == [None, *({"place": list(place)} for place in places[1:])]
    assert [cache.all_data(*place) for place in places] == [{}, *({"b": {"place": list(place)}} for place in places[1:])]


def test_ignored_data_is_not_found_and_not_lost(cache, open_cache):
    cache.merge_data("storage", "double", "mine", "b", {"x": 1})
    ignoring = open_cache(ignore=("storage",))
    for kind in ("storage", "nosql"):
        assert ignoring.data(kind, "double", "mine", "b") is None
        assert ignoring.all_data(kind, "double", "mine") == {}
    ignoring.merge_data("storage", "double", "mine", "b", {"y": 2})
    assert cache.data("storage", "double", "mine", "b") == {"x": 1, "y": 2}
    assert open_cache(ignore=("functions",)).data("storage", "double", "mine", "b") == {"x": 1, "y": 2}


def test_processes_that_add_at_once_lose_nothing(cache, folder):
    at_once(8, lambda n: Cache(folder).merge_data("storage", "double", "mine", "b", {"all": {str(n): n}}))
    assert cache.data("storage", "double", "mine", "b") == {"all": {str(n): n for n in range(8)}}


# --- the list -------------------------------------------------------------------------------------------------------------


def test_everything_is_listed_with_keys_sizes_and_dates(cache, monkeypatch):
    clock = itertools.count(1000)
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    kept = build(cache, "x" * 5000)
    publish(cache, kept)
    deploy(cache, kept)
    cache.merge_data("storage", "double", "mine", "b", {"x": 1})
    cache.merge_data("nosql", "double", "mine", "b", {"x": 1})
    deploy(cache, kept)
    entries = cache.entries()
    assert [entry.key for entry in entries] == [
        "function/double/mine/f",
        f"inputs/double/{kept.variant}",
        "nosql/double/mine/b",
        f"package/double/{kept.inputs}",
        f"published/double/mine/{kept.inputs}",
        "storage/double/mine/b",
    ]
    assert {entry.benchmark for entry in entries} == {"b"}
    for entry in entries:
        assert json.loads(entry.record)["schema_version"] == 1
        assert entry.size_bytes == len(entry.record) + (5000 if entry.kind == "package" else 0)
        changed = entry.kind == "function"
        assert 1000 <= entry.created_ns <= entry.modified_ns
        assert changed == (entry.created_ns < entry.modified_ns)


def test_the_list_can_be_narrowed(cache):
    cache.keep_function("mine", a_function())
    cache.keep_function("yours", a_function(benchmark="c", platform="other"))
    cache.merge_data("storage", "double", "mine", "b", {})
    assert keys(cache, kind="function") == ["function/double/mine/f", "function/other/yours/f"]
    assert keys(cache, platform="double") == ["function/double/mine/f", "storage/double/mine/b"]
    assert keys(cache, account="yours") == keys(cache, benchmark="c") == ["function/other/yours/f"]
    assert keys(cache, kind="storage", benchmark="b", platform="double") == ["storage/double/mine/b"]
    assert keys(cache, kind="storage", benchmark="c") == keys(cache, kind="nosql") == []


def test_a_package_is_listed_while_another_process_removes_its_files(cache, monkeypatch):
    kept = build(cache)
    stat = Path.stat

    def gone(self, **more):
        if self == kept.path:
            kept.path.unlink(missing_ok=True)
        return stat(self, **more)

    monkeypatch.setattr(Path, "stat", gone)
    (entry,) = cache.entries(kind="package")
    assert entry.size_bytes == len(entry.record)


def test_reading_an_empty_cache_creates_nothing(cache, folder):
    assert cache.function("double", "mine", "f") is None
    assert cache.functions("double") == cache.packages("double") == cache.entries() == []
    assert cache.package("double", "i") is cache.inputs("double", "v") is cache.published("double", "mine", PACKAGE) is None
    assert cache.data("storage", "double", "mine", "b") is None
    cache.forget_function("double", "mine", "f")
    cache.forget_published("double", "mine")
    cache.forget_data("nosql", "double", "mine")
    cache.close()
    assert not folder.exists()


# --- records --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null", '{"name": "f"}', '{"tag": []}', "\ufffd"])
def test_a_damaged_record_counts_as_absent_with_a_warning_and_others_stay(cache, caplog, damaged):
    kept = build(cache)
    deploy(cache, kept)
    change_record(cache, "function", damaged)
    deploy(cache, kept, "g")
    with caplog.at_level(logging.WARNING):
        assert cache.function("double", "mine", "f") is None
    assert "the record function/double/mine/f in " in caplog.text
    assert "cannot be read and counts as absent" in caplog.text
    assert [function.name for function in cache.functions("double")] == ["g"]
    assert keys(cache, kind="function") == ["function/double/mine/f", "function/double/mine/g"]
    deploy(cache, kept, "f")
    assert cache.function("double", "mine", "f") is not None


def test_damaged_records_of_all_kinds_count_as_absent(cache):
    kept = build(cache)
    publish(cache, kept)
    cache.merge_data("storage", "double", "mine", "b", {"x": 1})
    for kind in ("package", "inputs", "published", "storage"):
        change_record(cache, kind, "{")
    assert cache.package("double", kept.inputs) is cache.inputs("double", kept.variant) is None
    assert cache.published("double", "mine", kept) is cache.data("storage", "double", "mine", "b") is None
    assert cache.packages("double") == []
    assert cache.all_data("storage", "double", "mine") == {}
    cache.merge_data("storage", "double", "mine", "b", {"y": 1})
    assert cache.data("storage", "double", "mine", "b") == {"y": 1}
    assert build(cache) == cache.package("double", kept.inputs) == kept


def test_records_of_plugins_that_are_not_installed_survive_identically(cache):
    told = {"tag": "not-installed", "arn": "a:1", "deep": {"list": [1, {"x": None}]}, "schema_version": 7}
    trigger = {"schema_version": 3, "tag": "its-trigger", "kind": "queue", "url": None, "asynchronous": True, "queue": "q"}
    kept = build(cache)
    deploy(cache, kept)
    publish(cache, kept)
    before = {}
    for kind in ("function", "published"):
        (entry,) = cache.entries(kind=kind)
        record = {**json.loads(entry.record), **told, **({"triggers": [trigger]} if kind == "function" else {})}
        change_record(cache, kind, json.dumps(record))
        before[kind] = record
    function = cache.function("double", "mine", "f")
    assert (type(function), function.arn) == (Function, "a:1")
    cache.keep_function("mine", function)
    published = cache.published("double", "mine", kept)
    assert (type(published), published.arn) == (Package, "a:1")
    cache.keep_published("double", "mine", published.model_copy(update={"path": Path(before["published"]["path"])}))
    assert {entry.kind: json.loads(entry.record) for entry in cache.entries() if entry.kind in before} == before


SECRET = 'hunter2 "ü"'


@pytest.mark.parametrize("what", ["function", "package", "published", "storage", "nosql"])
def test_secrets_are_refused_and_nothing_is_stored(open_cache, folder, what):
    confidential = Confidential()
    confidential.add("the setting password", SECRET)
    cache = open_cache(confidential=confidential)
    keep = {
        "function": lambda: cache.keep_function("mine", Function(**FUNCTION.model_dump(), connection=f"user:{SECRET}@host")),
        "package": lambda: build(cache, dependencies={"x": SECRET}),
        "published": lambda: cache.keep_published("double", "mine", PACKAGE.model_copy(update={"uri": f"https://{SECRET}"})),
        "storage": lambda: cache.merge_data("storage", "double", "mine", "b", {"a": [{"b": SECRET}]}),
        "nosql": lambda: cache.merge_data("nosql", "double", "mine", "b", {SECRET: 1}),
    }
    with pytest.raises(PluginError, match="of the cache would hold the setting password") as refused:
        keep[what]()
    assert SECRET not in str(refused.value)
    assert cache.entries() == []
    assert all(b"hunter2" not in (folder / name).read_bytes() for name in files_in(folder) if "packages" not in name)


# --- the folder -----------------------------------------------------------------------------------------------------------


def test_the_whole_cache_can_be_moved(cache, folder, open_cache, tmp_path):
    kept = build(cache)
    deploy(cache, kept)
    cache.close()
    folder.rename(tmp_path / "moved")
    moved = open_cache(tmp_path / "moved")
    assert moved.package("double", kept.inputs).path == tmp_path / "moved" / kept.path.relative_to(folder)
    assert moved.package("double", kept.inputs).path.read_text() == "content"
    assert moved.function("double", "mine", "f") is not None
    assert cache.package("double", kept.inputs) is None


def test_a_relative_folder_stays_the_same_when_the_working_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    cache = Cache(Path("cache"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    kept = build(cache)
    cache.close()
    assert kept.path.is_relative_to(tmp_path / "cache")


def test_a_folder_deleted_while_it_is_in_use_begins_anew(cache, folder, open_cache):
    kept = build(cache)
    deploy(cache, kept)
    shutil.rmtree(folder)
    assert cache.package("double", kept.inputs) is None
    assert cache.function("double", "mine", "f") is None
    assert build(cache) == kept
    assert cache.package("double", kept.inputs) == kept
    assert open_cache().clear().in_use == (kept.digest,)  # the new files are in use as the old ones were
    assert kept.path.exists()
    cache.close()
    assert files_in(folder, "locks") == []


def test_a_damaged_file_is_an_error_with_the_way_out(cache, folder):
    deploy(cache, PACKAGE)
    (folder / "cache.sqlite").write_bytes(b"garbage" * 1000)
    for work in (lambda: cache.function("double", "mine", "f"), lambda: deploy(cache, PACKAGE), cache.prune, cache.clear):
        with pytest.raises(CacheError) as refused:
            work()
        assert str(refused.value) == (
            f"{folder / 'cache.sqlite'} is damaged (file is not a database). Move it away, or choose another folder "
            f"(--cache-dir, SEBS_CACHE_DIR): all that {folder} holds can be made again."
        )


def test_a_file_where_the_folder_should_be_is_an_error_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    for work in (lambda cache: deploy(cache, PACKAGE), lambda cache: cache.entries(), build):
        with pytest.raises(CacheError, match="SEBS_CACHE_DIR"):
            work(Cache(tmp_path / "file"))


@pytest.mark.parametrize("extra", [0, 50_000])
def test_a_full_disk_is_an_error_that_says_so_and_the_old_record_stays(cache, folder, extra):
    cache.keep_function("mine", a_function(generation="old"))
    limit = (folder / "cache.sqlite").stat().st_size + extra

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with pytest.raises(CacheError) as refused:
            Cache(folder).keep_function("mine", a_function(generation="new" * 50_000))
        return str(refused.value), Cache(folder).function("double", "mine", "f").generation

    told, found = in_child(work)
    assert told.startswith(f"{folder / 'cache.sqlite'} cannot be used: ")
    assert "Free some space on that disk, or choose another folder (--cache-dir, SEBS_CACHE_DIR)" in told
    assert found == cache.function("double", "mine", "f").generation == "old"


# --- a folder that cannot be written --------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def write_protect(folder):
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_of_a_read_only_folder_packages_are_served_and_what_is_new_ends_with_the_object(
    cache, folder, temporary, in_powerless_child
):
    kept = build(cache)
    deploy(cache, kept)
    cache.close()
    write_protect(folder)
    before = {name: (folder / name).read_bytes() for name in files_in(folder)}

    def work():
        cache = Cache(folder)
        assert cache.read_only
        assert cache.package("double", kept.inputs) == kept
        assert cache.function("double", "mine", "f") is not None
        new = build(cache, "new")
        assert cache.package("double", new.inputs) == new
        assert new.path.read_text() == "new"
        assert not new.path.is_relative_to(folder)
        assert {package.inputs for package in cache.packages("double")} == {kept.inputs, new.inputs}
        assert [entry.size_bytes - len(entry.record) for entry in cache.entries(kind="package")].count(7) == 1
        publish(cache, kept)
        assert cache.published("double", "mine", kept).path == kept.path
        deploy(cache, new, "g")
        cache.forget_function("double", "mine", "f")
        assert [function.name for function in cache.functions("double")] == ["g"]
        cache.merge_data("storage", "double", "mine", "b", {"x": 1})
        assert cache.data("storage", "double", "mine", "b") == {"x": 1}
        assert build(cache).path.read_text() == "content"
        assert len(list(temporary.iterdir())) == 1
        cache.close()
        cache.close()
        assert list(temporary.iterdir()) == []
        return "done"

    assert in_powerless_child(work) == "done"
    assert {name: (folder / name).read_bytes() for name in files_in(folder)} == before
    assert [function.name for function in cache.functions("double")] == ["f"]


@pytest.mark.parametrize("what", ["an empty folder", "only the file"])
def test_whatever_of_it_cannot_be_written_the_folder_counts_as_read_only(cache, folder, in_powerless_child, what):
    if what == "an empty folder":
        folder.mkdir()
        folder.chmod(0o555)
    else:
        deploy(cache, PACKAGE)
        (folder / "cache.sqlite").chmod(0o444)

    def work():
        cache = Cache(folder)
        deploy(cache, build(cache), "g")
        found = sorted(function.name for function in cache.functions("double"))
        cache.close()
        return cache.read_only, found

    before = files_in(folder)
    assert in_powerless_child(work) == (True, ["g"] if what == "an empty folder" else ["f", "g"])
    assert files_in(folder) == before


def test_a_read_only_folder_is_neither_cleared_nor_pruned(cache, folder, in_powerless_child):
    kept = build(cache)
    cache.close()
    write_protect(folder)

    def work():
        for change in (Cache(folder).clear, Cache(folder).prune):
            with pytest.raises(CacheError, match=f"the cache folder {folder} is read-only: .*--cache-dir"):
                change()
        return "done"

    assert in_powerless_child(work) == "done"
    assert kept.path.read_text() == "content"


@pytest.mark.parametrize("state", ["may not be entered", "is damaged"])
def test_a_read_only_folder_that_cannot_be_read_is_an_error_and_leaves_nothing(
    cache, folder, temporary, in_powerless_child, state
):
    build(cache)
    cache.close()
    if state == "is damaged":
        (folder / "cache.sqlite").write_bytes(b"garbage" * 1000)
        write_protect(folder)
    else:
        folder.chmod(0)

    def work():
        cache = Cache(folder)
        for look in (cache.entries, lambda: build(cache)):
            with pytest.raises(CacheError, match=r"cache\.sqlite .*SEBS_CACHE_DIR"):
                look()
        cache.close()
        return list(temporary.iterdir())

    assert in_powerless_child(work) == []


@pytest.mark.parametrize("mode", [0o555, 0])
def test_a_folder_that_cannot_be_made_is_an_error_with_the_way_out(folder, in_powerless_child, mode):
    folder.mkdir()
    folder.chmod(mode)

    def work():
        cache = Cache(folder / "inner")
        uses = [lambda: build(cache), lambda: deploy(cache, PACKAGE)]
        if mode:
            assert cache.entries() == []
        else:
            uses += [cache.entries, cache.prune]
        for use in uses:
            with pytest.raises(CacheError, match=f"{folder}/inner.*SEBS_CACHE_DIR"):
                use()
        return "done"

    assert in_powerless_child(work) == "done"


# --- clearing -------------------------------------------------------------------------------------------------------------


def fill(cache, folder):
    """Something of everything on two platforms; returns both packages."""
    packages = [build(cache, platform, platform=platform) for platform in ("double", "other")]
    for package, platform in zip(packages, ("double", "other"), strict=True):
        publish(cache, package, platform=platform)
        deploy(cache, package, platform=platform)
        cache.merge_data("storage", platform, "mine", "b", {"x": 1})
        cache.merge_data("nosql", platform, "mine", "b", {"x": 1})
    with cache.database.writing() as connection:
        connection.execute("INSERT INTO file VALUES (?, 'name', 'stat', 'digest')", (str(folder),))
    cache.close()
    return packages


def count(cache, table):
    with cache.database.reading() as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_clearing_removes_everything(cache, folder):
    packages = fill(cache, folder)
    assert cache.clear() == Sweep(12, sum(len(p) for p in ("double", "other")), ())
    assert cache.entries() == []
    assert count(cache, "file") == 0
    assert files_in(folder) == ["cache.sqlite"]
    assert cache.clear() == Sweep(0, 0, ())
    assert build(cache, "double").inputs == packages[0].inputs


def test_clearing_one_platform_leaves_the_others(cache, folder):
    of_double, of_other = fill(cache, folder)
    assert cache.clear("double") == Sweep(6, len("double"), ())
    assert {entry.platform for entry in cache.entries()} == {"other"}
    assert len(cache.entries()) == 6
    assert packages_in(folder) == {of_other.digest}
    assert count(cache, "file") == 1
    assert cache.clear("unknown") == Sweep(0, 0, ())


def test_clearing_leaves_the_files_of_packages_in_use(cache, folder, other):
    used, unused = build(cache, "used"), build(cache, "unused")
    cache.close()
    user = other(lambda: Using(folder, used.inputs))
    assert cache.clear() == Sweep(3, len("unused"), (used.digest,))
    assert used.path.read_text() == "used"
    assert not unused.path.exists()
    user.go_on()
    assert user.end() == 0
    assert cache.clear() == Sweep(0, len("used"), ())
    assert files_in(folder) == ["cache.sqlite"]


def test_clearing_what_is_not_there_is_no_error(cache):
    assert cache.clear() == cache.prune() == Sweep(0, 0, ())


# --- pruning --------------------------------------------------------------------------------------------------------------


def test_pruning_removes_replaced_packages_that_no_function_uses(cache, folder):
    old, used, newest = build(cache, "old"), build(cache, "used"), build(cache, "newest")
    variant = build(cache, "variant", architecture="arm64")
    elsewhere = build(cache, "elsewhere", platform="other")
    for package in (old, used, newest):
        publish(cache, package)
    deploy(cache, used)
    cache.close()
    assert cache.prune() == Sweep(2, len("old"), ())
    assert packages_in(folder) == {package.digest for package in (used, newest, variant, elsewhere)}
    assert cache.package("double", old.inputs) is cache.published("double", "mine", old) is None
    assert None not in [cache.package("double", package.inputs) for package in (used, newest, variant)]
    assert None not in [cache.published("double", "mine", package) for package in (used, newest)]
    assert cache.function("double", "mine", "f") is not None
    cache.close()
    assert cache.prune() == Sweep(0, 0, ())


def test_pruning_does_not_depend_on_the_clock(cache, folder, monkeypatch):
    for number, now in enumerate((3_000, 2_000, 1_000, 0)):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        monkeypatch.setattr(time, "time", lambda now=now: now)
        newest = build(cache, f"build {number}")
        os.utime(newest.path.parent, (now, now))
    cache.close()
    assert cache.prune().records == 3
    assert packages_in(folder) == {newest.digest}
    assert cache.package("double", newest.inputs) == newest


def test_files_that_another_record_needs_stay(cache, folder):
    shared = build(cache, "shared", note="replaced")
    build(cache, "newest")
    also = build(cache, "shared", platform="other")
    cache.close()
    assert cache.prune() == Sweep(1, 0, ())
    assert cache.package("double", shared.inputs) is None
    assert cache.package("other", also.inputs).path.read_text() == "shared"


def test_packages_that_another_process_uses_stay_until_it_ends(cache, folder, other):
    old = build(cache, "old")
    build(cache, "newest")
    cache.close()
    user = other(lambda: Using(folder, old.inputs))
    assert cache.prune() == Sweep(1, 0, (old.digest,))
    assert user.entered == old.path
    assert old.path.read_text() == "old"
    user.kill()
    assert cache.prune() == Sweep(0, len("old"), ())
    assert not old.path.exists()


def test_what_is_built_while_the_cache_is_pruned_stays(cache, open_cache, monkeypatch):
    build(cache, "old")
    build(cache, "newest")
    cache.close()
    entries, made = Cache.entries, []

    def late(self, **conditions):
        found = entries(self, **conditions)
        monkeypatch.undo()
        made.append(build(open_cache(), "newer still"))
        return found

    monkeypatch.setattr(Cache, "entries", late)
    cache.prune()
    assert cache.package("double", made[0].inputs) == made[0]


def test_left_overs_of_dead_builds_go_and_builds_that_go_on_stay(cache, folder, other):
    dead, live = (other(lambda inputs=inputs: cache.building("double", inputs, "building")) for inputs in ("dead", "live"))
    for builder in (dead, live):
        (builder.entered / "half").write_text("half")
    dead.kill()
    assert cache.prune() == Sweep(0, len("half"), ())
    assert not dead.entered.exists()
    assert (live.entered / "half").read_text() == "half"
    live.go_on()
    assert live.end() == 0
    assert files_in(folder, "building") == files_in(folder, "locks") == []


def test_a_build_that_ends_while_the_cache_is_pruned_is_no_error(cache, folder, monkeypatch):
    (folder / "building" / "double-i").mkdir(parents=True)
    if_free = Locks.if_free

    def late(self, name):
        shutil.rmtree(folder / "building" / "double-i", ignore_errors=True)
        return if_free(self, name)

    monkeypatch.setattr(Locks, "if_free", late)
    assert cache.prune() == Sweep(0, 0, ())
    assert files_in(folder) == ["cache.sqlite"]


def test_left_overs_of_a_removal_that_died_go(cache, folder, monkeypatch):
    old = build(cache, "old")
    build(cache, "newest")
    cache.close()

    def work():
        monkeypatch.setattr(shutil, "rmtree", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        cache.prune()

    for _ in range(2):
        assert in_child(work) is None
    assert not old.path.exists()
    assert len(files_in(folder, "building")) == 1
    build(cache, "old")  # which now is the newest, and replaces what was
    cache.close()
    assert cache.prune().freed_bytes == len("old") + len("newest")
    assert files_in(folder, "building") == []
    assert packages_in(folder) == {old.digest}


def test_packages_without_a_record_go_and_records_without_files_too(cache, folder):
    (folder / "packages" / "unknown" / "inner").mkdir(parents=True)
    (folder / "packages" / "unknown" / "inner" / "x").write_text("12345")
    gone = build(cache, "gone")
    build(cache, "damaged", platform="other")
    shutil.rmtree(gone.path.parent)
    with cache.database.writing() as connection:
        connection.execute("UPDATE entry SET record='{' WHERE kind='package' AND platform='other'")
    cache.close()
    assert cache.prune() == Sweep(2, 5 + len("damaged"), ())
    assert packages_in(folder) == set()
    assert keys(cache, kind="package") == []


def test_processes_that_prune_at_once_do_not_disturb_each_other_or_who_builds(cache, folder):
    for number in range(15):
        build(cache, f"build {number}")
    cache.close()

    def work(n):
        mine = Cache(folder)
        for number in range(5):
            if n < 3:
                mine.prune()
            else:
                kept = build(mine, f"build {n} {number}", architecture=f"of {n}")
                assert mine.package("double", kept.inputs).path.read_text() == f"build {n} {number}"
        mine.close()

    at_once(5, work)
    cache.prune()
    assert {package.architecture for package in cache.packages("double")} == {"x64", "of 3", "of 4"}
    assert len(packages_in(folder)) == 3
    assert files_in(folder, "building") == files_in(folder, "locks") == []


def remember_files_of(cache, *folders):
    with cache.database.writing() as connection:
        connection.executemany("INSERT INTO file VALUES (?, 'name', 'stat', 'digest')", [(str(one),) for one in folders])


def remembered(cache):
    with cache.database.reading() as connection:
        return {Path(row[0]).name for row in connection.execute("SELECT folder FROM file")}


def test_digests_of_source_folders_that_are_gone_are_forgotten(cache, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a file").write_text("")
    remember_files_of(cache, tmp_path / "there", tmp_path / "gone", tmp_path / "a file", tmp_path / "a file" / "below")
    cache.prune()
    assert remembered(cache) == {"there"}


def test_source_folders_that_cannot_be_looked_at_are_no_error(cache, tmp_path, in_powerless_child):
    hidden = tmp_path / "another user"
    (hidden / "benchmark").mkdir(parents=True)
    remember_files_of(cache, hidden / "benchmark", tmp_path / "gone")
    hidden.chmod(0)
    assert in_powerless_child(lambda: cache.prune().records) == 0
    hidden.chmod(0o755)
    assert "gone" not in remembered(cache)


# --- the default ----------------------------------------------------------------------------------------------------------


def test_the_cache_folder_is_the_given_one_else_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("SEBS_CACHE_DIR", str(tmp_path / "given"))
    assert default_cache_folder() == tmp_path / "given"
    monkeypatch.delenv("SEBS_CACHE_DIR")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "xdg" / "sebs"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "sebs"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_cache_folder() == tmp_path / "Library" / "Caches" / "sebs"
