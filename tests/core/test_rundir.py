"""The run directory: complete on disk at any moment, and a pure function from there to the result."""

import errno
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from example_records import FUNCTION, a_manifest

from sebs_core import rundir
from sebs_core.errors import StorageError
from sebs_core.exchange import Exchange, Fields, Response
from sebs_core.interrupts import Interrupts
from sebs_core.models import Metrics, Trigger
from sebs_core.rows import row_of
from sebs_core.rundir import RowSink, RunDirectory, write_atomically


def rows_of(*indices, **fields):
    told = {"instance_id": "i", "instance_sequence": 1}
    return [
        row_of(
            Exchange(index, 0, 0, finished_ns=1_000_000 * (index + 1)), Fields(request_id=f"r{index}", **{**told, **fields}),
            "measured", "f", None,
        )
        for index in indices
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(tmp_path, "run")
    made.write_manifest(a_manifest())
    return made


def indices(table):
    return table["index"].to_pylist()


# --- directories ----------------------------------------------------------------------------------------------------------


def test_each_run_has_a_directory_of_its_own(tmp_path):
    names = [RunDirectory.create(tmp_path / "runs", "a").path.name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_a_parent_that_is_a_file_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--output-dir"):
        RunDirectory.create(tmp_path / "file", "a")


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(StorageError, match=r"is no run directory: it has no run\.json"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_manifest_is_named_with_the_place(run, content):
    (run.path / "run.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"run\.json is damaged at ") as refused:
        run.manifest()
    assert "\n" not in str(refused.value)


def test_the_manifest_is_replaced_and_never_half_written(run, monkeypatch):
    def no_space(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match=r"No space left on device\. What was written before is kept\. Free some space"):
        run.write_manifest(a_manifest(state="complete"))
    monkeypatch.undo()
    assert run.manifest() == a_manifest()
    assert sorted(path.name for path in run.path.iterdir()) == ["bodies", "metrics", "rows", "run.json"]


# --- writing --------------------------------------------------------------------------------------------------------------


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def no_space(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fault", ["os.fsync", "pathlib.Path.replace", "tempfile.mkstemp"])
def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing_else(tmp_path, monkeypatch, fault):
    path = tmp_path / "record.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(fault, no_space)
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


def test_the_content_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("sync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("rename"), replace(self, target))[1])
    write_atomically(tmp_path / "x", b"content")
    assert done == ["sync", "rename"]


# --- rows and the result --------------------------------------------------------------------------------------------------


def test_rows_of_an_unfinished_run_can_be_read(run):
    assert indices(run.rows()) == []
    run.write_rows(rows_of(0, 1))
    run.write_rows(rows_of(2))
    assert run.manifest().state == "running"
    assert indices(run.rows()) == [0, 1, 2]
    assert indices(run.finish()) == [0, 1, 2]


def test_files_of_rows_are_never_rewritten(run):
    run.write_rows(rows_of(0))
    (first,) = (run.path / "rows").iterdir()
    before = first.read_bytes()
    run.write_rows(rows_of(1))
    run.finish()
    assert first.read_bytes() == before
    assert sorted(path.name for path in (run.path / "rows").iterdir()) == ["000000.arrow", "000001.arrow"]


def test_a_file_that_a_crash_left_half_written_is_not_taken_for_rows(run):
    run.write_rows(rows_of(0))
    (run.path / "rows" / "000001.arrow.tmp").write_bytes(b"half")
    assert indices(run.finish()) == [0]


def test_a_damaged_file_of_rows_is_a_storage_error(run):
    run.write_rows(rows_of(0))
    (run.path / "rows" / "000001.arrow").write_bytes(b"no arrow at all")
    with pytest.raises(StorageError, match=r"the rows in .* cannot be read"):
        run.rows()


def test_finishing_is_pure_and_repeatable_to_the_byte(run):
    run.write_rows(rows_of(3, 1, measurement={"own": "text", "compute_us": 2}))
    run.write_rows(rows_of(2, 0))
    run.write_metrics(Metrics(values={"r1": {"duration_us": 5, "zone": "z"}}))
    digests = set()
    for _ in range(3):
        table = run.finish()
        digests.add(hashlib.sha256((run.path / "result.parquet").read_bytes()).hexdigest())
        assert indices(table) == [0, 1, 2, 3]
    assert len(digests) == 1
    written = sorted(path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file())
    assert written == ["metrics/000000.json", "result.parquet", "rows/000000.arrow", "rows/000001.arrow", "run.json"]


def test_the_parquet_file_holds_the_table(run):
    from arro3.io import read_parquet

    run.write_rows(rows_of(1, 0, measurement={"own": "text"}))
    table = run.finish()
    read = read_parquet(run.path / "result.parquet").read_all()
    assert list(read.column_names) == list(table.column_names)
    for name in table.column_names:
        assert read[name].to_pylist() == table[name].to_pylist(), name


def test_metrics_of_a_later_collection_fill_what_the_first_did_not_know(run):
    run.write_rows(rows_of(0, 1))
    run.write_metrics(Metrics(values={"r0": {"duration_us": 1, "memory_mb": None}}, missing=("r1",)))
    run.write_metrics(Metrics(values={"r0": {"duration_us": None, "memory_mb": 7}, "r1": {"duration_us": 2}}))
    provider = run.finish()["provider"].to_pylist()
    assert [(value["duration_us"], value["memory_mb"]) for value in provider] == [(1, 7), (2, None)]


def test_damaged_metrics_are_a_storage_error(run):
    (run.path / "metrics" / "000000.json").write_text("{")
    with pytest.raises(StorageError):
        run.finish()


# --- full disks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 128 KiB; needs root."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here, so no small file system to fill")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(run):
    """Write rows until the disk is full; returns the indices that were written, and the error."""
    written = []
    for start in range(0, 100_000, 50):
        batch = rows_of(*range(start, start + 50), error_detail=hashlib.sha256(str(start).encode()).hexdigest() * 20)
        for row in batch:
            row["output_problem"] = hashlib.sha256(str(row["index"]).encode()).hexdigest() * 4
        try:
            run.write_rows(batch)
        except Exception as error:
            return written, error
        written += range(start, start + 50)
    raise AssertionError("the disk was never full")


def test_on_a_full_disk_rows_that_were_written_stay_readable(tiny_disk):
    run = RunDirectory.create(tiny_disk, "run")
    run.write_manifest(a_manifest())
    written, _ = fill(run)
    assert len(written) > 50
    assert indices(run.rows()) == written
    assert run.manifest().state == "running"


def test_on_a_full_disk_the_message_names_the_folder_and_says_to_free_space(tiny_disk):
    run = RunDirectory.create(tiny_disk, "run")
    _, error = fill(run)
    assert isinstance(error, StorageError)
    assert str(run.path) in str(error)
    assert "What was written before is kept. Free some space" in str(error)
    assert [path.name for path in (run.path / "rows").iterdir() if not path.name.endswith(".arrow")] == []


def test_finishing_on_a_full_disk_is_a_storage_error_and_loses_no_row(tiny_disk):
    run = RunDirectory.create(tiny_disk, "run")
    written, _ = fill(run)
    (tiny_disk / "ballast").write_bytes(b"")
    with pytest.raises(OSError, match="No space"), (tiny_disk / "ballast").open("ab", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 512)
    try:
        with pytest.raises(StorageError):
            run.finish()
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__} instead of StorageError") from None
    (tiny_disk / "ballast").unlink()
    assert indices(run.rows()) == written


@pytest.mark.parametrize("what", ["rows", "body", "metrics", "parquet"])
def test_a_fault_while_writing_is_a_storage_error_with_folder_and_remedy(run, monkeypatch, what):
    def no_space(*_args, **_more):
        raise OSError(28, "No space left on device")

    run.write_rows(rows_of(0))
    monkeypatch.setattr(Path, "write_bytes", no_space)
    monkeypatch.setattr(os, "fsync", no_space)
    write = {
        "rows": lambda: run.write_rows(rows_of(1)),
        "body": lambda: run.write_body(0, b"x"),
        "metrics": lambda: run.write_metrics(Metrics(values={})),
        "parquet": run.finish,
    }[what]
    with pytest.raises(StorageError, match=r"cannot be written to .*run.*Free some space.*SEBS_OUTPUT_DIR"):
        write()
    monkeypatch.undo()
    assert indices(run.finish()) == [0]


# --- the sink -------------------------------------------------------------------------------------------------------------


class Answering:
    """Stages that read every response as the same fields."""

    def __init__(self, **fields):
        self.fields = Fields(**{"request_id": "r", "instance_id": "i", "instance_sequence": 0, "output": {"x": 1}, **fields})

    def call(self, stage, **_arguments):
        assert stage == "sebs_response"
        return self.fields


def a_sink(run, stages=None, **more):
    given = {
        "function": FUNCTION, "trigger": Trigger(kind="http"), "workload_version": "3", "check": None, "keep_outputs": False,
        "written": lambda: None, "interrupts": Interrupts(), **more,
    }  # fmt: skip
    return RowSink(run, stages or Answering(), **given)


def answered(index=0, body=b'{"x": 1}'):
    return Exchange(index, 0, 0, finished_ns=5, response=Response(200, {}, body))


def test_nothing_is_decoded_before_the_flush_and_everything_after(run):
    sink = a_sink(run)
    sink.add(answered(0))
    sink.add(answered(1))
    assert indices(run.rows()) == []
    sink.flush()
    table = run.rows()
    assert indices(table) == [0, 1]
    assert table["workload_version"].to_pylist() == ["3", "3"]
    sink.flush()
    assert len(list((run.path / "rows").iterdir())) == 1


def test_it_is_due_after_a_second_or_when_much_is_held(run, monkeypatch):
    sink = a_sink(run)
    assert not sink.due
    monkeypatch.setattr(sink, "_last_flush", time.monotonic() - 10)
    assert not sink.due, "nothing is held"
    sink.add(answered())
    assert sink.due
    sink.flush()
    assert not sink.due
    monkeypatch.setattr(rundir, "MOST_BYTES_HELD", 10)
    sink.add(answered(1, b"x" * 11))
    assert sink.due


def test_the_output_check_decides_and_a_check_that_fails_itself_says_so(run):
    def check(output):
        if output["x"] == 1:
            return None
        raise KeyError("y")

    sink = a_sink(run, check=check)
    sink.add(answered(0))
    sink.flush()
    sink._stages.fields = sink._stages.fields.but(output={"x": 2})
    sink.add(answered(1))
    sink.flush()
    sink._stages.fields = sink._stages.fields.but(error="function_error")
    sink.add(answered(2))
    sink.flush()
    table = run.rows()
    assert table["output_ok"].to_pylist() == [True, False, None]
    assert table["output_problem"].to_pylist() == [None, "the output check itself failed on this output: KeyError: 'y'", None]
    assert sink.failures == 2


def test_answers_are_kept_of_the_first_few_and_of_failures_or_of_all(run, tmp_path):
    sink = a_sink(run)
    for index in range(8):
        sink.add(answered(index))
    sink.flush()
    sink._stages.fields = sink._stages.fields.but(error="function_error")
    sink.add(answered(8, b"why it failed"))
    sink.flush()
    kept = {path.name: path.read_bytes() for path in (run.path / "bodies").iterdir()}
    assert sorted(kept) == ["0.json", "1.json", "2.json", "3.json", "4.json", "8.json"]
    assert kept["8.json"] == b"why it failed"
    everything = RunDirectory.create(tmp_path, "everything")
    keeping = a_sink(everything, keep_outputs=True)
    for index in range(8):
        keeping.add(answered(index))
    keeping.flush()
    assert len(list((everything.path / "bodies").iterdir())) == 8


def test_in_a_cold_run_what_came_warm_is_rejected_whether_it_failed_or_not(run):
    sink = a_sink(run)
    sink.only_cold, sink.generation = True, "g2"
    cases = [
        {"instance_sequence": 0, "generation": "g2"},
        {"instance_sequence": 1, "generation": "g2"},
        {"instance_sequence": 0, "generation": "g1"},
        {"instance_sequence": 1, "generation": "g2", "error": "function_error"},
        {"error": "timeout", "instance_sequence": None},
    ]
    for index, fields in enumerate(cases):
        sink._stages = Answering(**fields)
        sink.add(answered(index))
        sink.flush()
    assert run.rows()["phase"].to_pylist() == ["measured", "rejected", "rejected", "rejected", "measured"]
    assert (sink.measured, sink.failures) == (2, 1)


def test_observers_are_told_after_the_rows_are_written(run):
    told = []
    sink = a_sink(run, written=lambda: told.append(len(indices(run.rows()))))
    sink.add(answered())
    sink.flush()
    assert told == [1]


def test_what_was_wanted_stopped_is_heard_at_the_next_look(run):
    class Stop(Interrupts):
        def check(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _ = a_sink(run, interrupts=Stop()).due


def test_json_is_what_a_body_of_a_platform_without_http_is_kept_as(run):
    sink = a_sink(run)
    sink.add(Exchange(0, 0, 0, finished_ns=5, fields=Fields(output={"a": "ü"})))
    sink.flush()
    assert json.loads((run.path / "bodies" / "0.json").read_bytes()) == {"a": "ü"}
