"""The cache: the old or the new is there, never half of either; and what cannot be used says what to do."""

import errno
import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from example_records import CONFIG

from sebs_core import cache as cache_module
from sebs_core.cache import Cache, default_cache_folder, write_atomically
from sebs_core.errors import CacheError
from sebs_core.models import Function, Package


def a_function(**more):
    given = {"name": "f", "platform": "double", "benchmark": "b", "package_digest": "d", "config": CONFIG, **more}
    return Function(**given)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def built(cache):
    """A package as a build leaves it: a zip in a folder for building."""

    def build(content=b"zip", digest="digest", inputs="inputs"):
        with cache.building() as place:
            (place / "code.zip").write_bytes(content)
            package = Package(
                benchmark="b", workload_version="1", digest=digest, inputs=inputs, kind="zip", path=place / "code.zip",
                size_bytes=len(content), language="python", language_version="3.12", language_variant="default",
                system_variant="package", architecture="x64", memory_mb=1, timeout_s=1, entry_point="h",
                created="2024-01-01T00:00:00Z",
            )  # fmt: skip
            return cache.keep_package("double", package)

    return build


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- writing --------------------------------------------------------------------------------------------------------------


def no_space(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FAULTS = {
    "syncing": ("os.fsync", no_space),
    "renaming": ("pathlib.Path.replace", no_space),
    "making the temporary file": ("tempfile.mkstemp", no_space),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing_else(tmp_path, monkeypatch, fault):
    path = tmp_path / "record.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(*FAULTS[fault])
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == ["record.json"]


def test_an_interrupted_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def interrupt(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == ["record.json"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_full_disk_is_a_cache_error_with_folder_and_remedy_and_the_old_record_stays(cache, monkeypatch, fault):
    cache.keep_function(a_function(generation="old"))
    monkeypatch.setattr(*FAULTS[fault])
    with pytest.raises(CacheError) as refused:
        cache.keep_function(a_function(generation="new"))
    monkeypatch.undo()
    message = str(refused.value)
    assert str(cache.folder) in message
    assert "No space left on device" in message
    assert "Free some space" in message
    assert "--cache-dir (SEBS_CACHE_DIR)" in message
    assert cache.function("double", "f").generation == "old"


def test_the_content_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("sync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("rename"), replace(self, target))[1])
    write_atomically(tmp_path / "x", b"content")
    assert done == ["sync", "rename"]


def test_a_folder_that_cannot_be_written_is_a_cache_error_with_the_remedy(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("permission bits do not bind this user (root)")
    with pytest.raises(CacheError, match=f"{folder}.*--cache-dir"):
        _ = Cache(folder).resources_id


def test_a_file_where_the_cache_folder_should_be_is_a_cache_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="--cache-dir"):
        Cache(tmp_path / "file").keep_function(a_function())


@pytest.mark.parametrize("wrong", ["the cache is a file", "the id is a folder"])
def test_a_resources_id_that_cannot_be_read_is_a_cache_error(tmp_path, wrong):
    if wrong == "the cache is a file":
        (tmp_path / "cache").write_text("")
    else:
        (tmp_path / "cache" / "resources_id").mkdir(parents=True)
    with pytest.raises(CacheError, match="--cache-dir"):
        _ = Cache(tmp_path / "cache").resources_id


# --- reading --------------------------------------------------------------------------------------------------------------


def test_reading_an_empty_cache_creates_nothing(cache):
    assert cache.function("double", "f") is None
    assert cache.package("double", "inputs") is None
    assert not cache.folder.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"name": "f"}', b"null",
                b'{"tag": []}'],
)  # fmt: skip
def test_a_damaged_record_is_named_with_the_remedy(cache, content):
    cache.keep_function(a_function())
    (path,) = cache.folder.rglob("f.json")
    path.write_bytes(content)
    with pytest.raises(CacheError) as refused:
        cache.function("double", "f")
    assert f"{path} is damaged" in str(refused.value)
    assert "Remove this file" in str(refused.value)


def test_functions_are_kept_per_platform_and_forgotten_one_by_one(cache):
    cache.keep_function(a_function(generation="1"))
    cache.keep_function(a_function(platform="other", generation="2"))
    assert cache.function("double", "f").generation == "1"
    assert cache.function("other", "f").generation == "2"
    cache.forget_function("double", "f")
    cache.forget_function("double", "f")
    assert cache.function("double", "f") is None
    assert cache.function("other", "f").generation == "2"


def test_what_a_plugin_that_is_not_here_stored_is_kept(cache):
    cache.keep_function(a_function())
    (path,) = cache.folder.rglob("f.json")
    values = {**json.loads(path.read_text()), "tag": "not-installed", "arn": "a:1"}
    path.write_text(json.dumps(values))
    kept = cache.function("double", "f")
    cache.keep_function(kept)
    assert json.loads(path.read_text()) == values


# --- packages -------------------------------------------------------------------------------------------------------------


def test_a_package_lies_under_its_digest_and_is_found_by_its_inputs(cache, built):
    kept = built()
    assert kept.path.read_bytes() == b"zip"
    assert "digest" in kept.path.parts
    assert cache.package("double", "inputs") == kept
    assert cache.package("other", "inputs") is None
    assert cache.package("double", "other inputs") is None


def test_a_package_whose_files_vanished_counts_as_absent(cache, built):
    built().path.unlink()
    assert cache.package("double", "inputs") is None


def test_a_package_built_again_with_the_same_digest_keeps_the_files_that_are_there(cache, built):
    first = built(b"zip")
    inode = first.path.stat().st_ino
    second = built(b"zip", inputs="other inputs")
    assert second.path == first.path
    assert second.path.stat().st_ino == inode
    assert cache.package("double", "inputs").path == cache.package("double", "other inputs").path


def test_the_whole_cache_can_be_moved(cache, built, tmp_path):
    built()
    cache.folder.rename(tmp_path / "moved")
    assert Cache(tmp_path / "moved").package("double", "inputs").path.read_bytes() == b"zip"


def test_a_build_leaves_nothing_behind_when_it_fails(cache):
    with pytest.raises(RuntimeError), cache.building() as place:
        (place / "half").write_text("x")
        raise RuntimeError
    assert files_in(cache.folder) == []


def test_a_full_disk_while_keeping_a_package_is_a_cache_error(cache, built, monkeypatch):
    monkeypatch.setattr(Path, "rename", no_space)
    with pytest.raises(CacheError, match="No space left"):
        built()
    assert cache.package("double", "inputs") is None


# --- the id of all resources ----------------------------------------------------------------------------------------------


def test_the_resources_id_is_made_once(cache):
    made = cache.resources_id
    assert len(made) == 8
    assert Cache(cache.folder).resources_id == made


def test_eight_processes_that_ask_at_once_get_one_id(tmp_path):
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        together, answers = context.Barrier(8), context.Queue()

        def ask(folder=tmp_path / f"cache-{attempt}", together=together, answers=answers):
            together.wait(10)
            answers.put(Cache(folder).resources_id)

        asking = [context.Process(target=ask, daemon=True) for _ in range(8)]
        for process in asking:
            process.start()
        told = {answers.get(timeout=10) for _ in asking}
        for process in asking:
            process.join()
        assert len(told) == 1
        assert len(told.pop()) == 8


def test_the_id_file_is_never_seen_empty(cache, monkeypatch):
    monkeypatch.setattr(cache_module.secrets, "token_hex", no_space)  # dies between creating and writing
    with pytest.raises(CacheError):
        _ = cache.resources_id
    monkeypatch.undo()
    assert len(cache.resources_id) == 8


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
