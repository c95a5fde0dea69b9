"""The index of source files: what did not change is not read again, and what did change is never overlooked."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from double_platform import HANDLER
from example_records import CONFIG

from sebs_core.benchmark import Benchmark
from sebs_core.cache import Cache
from sebs_core.errors import CacheError
from sebs_core.models import Runtime
from sebs_core.packaging import Sources, index
from sebs_core.packaging.archive import files_of, marked_digest
from sebs_core.packaging.index import FileIndex
from sebs_core.packaging.python import PYTHON

LATER_S = 3600
RUNTIME = Runtime(files={"handler.py": HANDLER})


class CountingDatabase:
    """A database, and how often it was written."""

    def __init__(self, database):
        self.database, self.writes, self.fails = database, 0, False
        self.reading = database.reading

    @contextlib.contextmanager
    def writing(self):
        self.writes += 1
        with self.database.writing() as connection:
            yield connection
            if self.fails:
                raise CacheError("cache.sqlite cannot be used: database or disk is full")

    def rows(self):
        with self.reading() as connection:
            return dict(connection.execute("SELECT name, digest FROM file"))


@pytest.fixture
def database(tmp_path):
    return CountingDatabase(Cache(tmp_path / "cache").database)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "python"
    (made / "data").mkdir(parents=True)
    for name in ("function.py", "data/a.txt", "data/b.txt"):
        (made / name).write_text(f"this is {name}")
    return made


@pytest.fixture
def clock(monkeypatch):
    """``clock(seconds)``: what the index takes for the time is so much later than it is."""

    def later(seconds):
        monkeypatch.setattr(index, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + int(seconds * 1e9)))

    return later


@pytest.fixture
def just_after(monkeypatch):
    """``just_after(folder, nanoseconds)``: the index's clock stands so much after the latest change in the folder."""

    def stand(folder, nanoseconds):
        latest = max(path.stat().st_ctime_ns for _, path in files_of(folder))
        monkeypatch.setattr(index, "time", SimpleNamespace(time_ns=lambda: latest + nanoseconds))

    return stand


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that the index has read."""
    names, hash_one = [], index._hashed

    def recorded(path):
        names.append(path.name)
        return hash_one(path)

    monkeypatch.setattr(index, "_hashed", recorded)
    return names


def digests(database, folder):
    return FileIndex(database).digests(folder, dict(files_of(folder)))


def truth(folder):
    return {name: marked_digest(path) for name, path in files_of(folder)}


# --- what is remembered ---------------------------------------------------------------------------------------------------


def test_what_did_not_change_is_neither_read_nor_written_again(database, folder, clock, hashed):
    clock(LATER_S)
    assert digests(database, folder) == truth(folder)
    assert (sorted(hashed), database.writes) == (["a.txt", "b.txt", "function.py"], 1)
    assert digests(database, folder) == truth(folder)
    assert (len(hashed), database.writes) == (3, 1)


def test_of_changed_files_only_those_are_read(database, folder, clock, hashed):
    clock(LATER_S)
    digests(database, folder)
    hashed.clear()
    (folder / "data/a.txt").write_text("other")
    os.utime(folder / "data/b.txt")
    (folder / "new").write_text("new")
    assert digests(database, folder) == truth(folder)
    assert hashed == ["a.txt", "b.txt", "new"]
    assert database.writes == 2


def test_what_is_gone_is_forgotten_in_this_folder_only(database, folder, clock, tmp_path):
    clock(LATER_S)
    other = shutil.copytree(folder, tmp_path / "other" / "python")
    (other / "of the other").touch()
    digests(database, other)
    digests(database, folder)
    (folder / "data/a.txt").unlink()
    (folder / "data/b.txt").rename(folder / "data/c.txt")
    digests(database, folder)
    with database.reading() as connection:
        rows = connection.execute("SELECT folder, name FROM file").fetchall()
    assert {name for place, name in rows if place == str(folder)} == {"function.py", "data/c.txt"}
    assert {name for place, name in rows if place == str(other)} == {"function.py", "data/a.txt", "data/b.txt", "of the other"}
    before = database.writes
    digests(database, folder)
    digests(database, other)
    assert database.writes == before


def test_a_folder_without_files_costs_no_write_and_makes_no_file(database, tmp_path):
    assert FileIndex(database).digests(tmp_path, {}) == {}
    assert database.writes == 0
    assert not (tmp_path / "cache").exists()


def test_the_executable_bit_is_seen(database, folder, clock):
    clock(LATER_S)
    before = digests(database, folder)
    (folder / "function.py").chmod(0o755)
    assert digests(database, folder) == {**before, "function.py": f"{before['function.py']} executable"}
    (folder / "function.py").chmod(0o644)
    assert digests(database, folder) == before


def test_a_link_is_as_old_as_the_file_that_it_names(database, folder, clock):
    clock(LATER_S)
    (folder / "link").symlink_to("data/a.txt")
    digests(database, folder)
    (folder / "data/a.txt").write_text("other")
    assert digests(database, folder) == truth(folder)
    (folder / "link").unlink()
    (folder / "link").symlink_to("data/b.txt")
    assert digests(database, folder) == truth(folder)


# --- times that could deceive ---------------------------------------------------------------------------------------------


def test_a_file_changed_within_the_two_seconds_is_not_remembered(database, folder, just_after, hashed):
    """Its next change might leave all its times as they are, where the clock of the file system is coarse."""
    just_after(folder, 1_000_000_000)
    for _ in range(2):
        assert digests(database, folder) == truth(folder)
    assert len(hashed) == 6
    assert (database.writes, database.rows()) == (0, {})


@pytest.mark.parametrize(("nanoseconds", "kept"), [(1_999_999_999, False), (2_000_000_000, True)])
def test_two_seconds_are_the_border(database, tmp_path, just_after, nanoseconds, kept):
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "function.py").touch()
    just_after(tmp_path / "python", nanoseconds)
    digests(database, tmp_path / "python")
    assert bool(database.rows()) is kept


def test_an_old_time_of_modification_makes_nothing_trustworthy(database, folder, just_after):
    for _, path in files_of(folder):
        os.utime(path, (1e9, 1e9))
    just_after(folder, 1_000_000_000)
    digests(database, folder)
    assert database.rows() == {}


def test_the_same_size_and_a_restored_time_do_not_deceive(database, folder, clock):
    clock(LATER_S)
    path = folder / "function.py"
    digests(database, folder)
    before = path.stat()
    time.sleep(0.02)  # a tick of the coarsest kernel
    path.write_text(path.read_text().swapcase())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    assert digests(database, folder) == truth(folder)


@pytest.mark.parametrize("place", range(4), ids=["size", "time of modification", "time of change", "inode"])
def test_a_file_is_read_again_when_any_one_of_four_numbers_is_another(database, folder, clock, hashed, place):
    clock(LATER_S)
    digests(database, folder)
    hashed.clear()
    with database.writing() as connection:
        ((stat,),) = connection.execute("SELECT stat FROM file WHERE name='function.py'").fetchall()
        numbers = stat.split()
        numbers[place] = str(int(numbers[place]) + 1)
        connection.execute("UPDATE file SET stat=? WHERE name='function.py'", (" ".join(numbers),))
    digests(database, folder)
    assert hashed == ["function.py"]


def test_a_file_replaced_by_another_of_the_same_size_and_time_does_not_deceive(database, folder, clock):
    clock(LATER_S)
    path, other = folder / "function.py", folder.parent / "other.py"
    other.write_text(path.read_text().swapcase())
    digests(database, folder)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    assert digests(database, folder) == truth(folder)


def test_with_a_clock_set_back_files_of_the_future_are_read_each_time(database, folder, clock, hashed):
    clock(-LATER_S)
    for _ in range(2):
        assert digests(database, folder) == truth(folder)
    assert (len(hashed), database.rows()) == (6, {})


def test_what_was_remembered_before_the_clock_was_set_back_is_still_checked(database, folder, clock):
    clock(LATER_S)
    digests(database, folder)
    clock(-LATER_S)
    time.sleep(0.02)
    (folder / "function.py").write_text("other")
    assert digests(database, folder) == truth(folder)
    (folder / "function.py").write_text("again")
    assert digests(database, folder) == truth(folder)


def test_a_file_dated_into_the_future_is_read_each_time(database, folder, clock, hashed):
    clock(10)
    os.utime(folder / "function.py", (time.time() + LATER_S, time.time() + LATER_S))
    digests(database, folder)
    hashed.clear()
    assert digests(database, folder) == truth(folder)
    assert hashed == ["function.py"]


def test_a_file_written_while_it_is_read_is_not_remembered(database, folder, clock, monkeypatch):
    clock(LATER_S)
    content_digest = index.content_digest

    def disturbed(file):
        digest = content_digest(file)
        if Path(file.name).name == "function.py":
            time.sleep(0.02)
            (folder / "function.py").write_text("other")
        return digest

    monkeypatch.setattr(index, "content_digest", disturbed)
    digests(database, folder)
    assert database.rows().keys() == {"data/a.txt", "data/b.txt"}
    monkeypatch.undo()
    assert digests(database, folder) == truth(folder)


# --- any history ----------------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "d/a", "d/b")
RACY_MS = 25
"""Instead of two seconds; more than a tick of any kernel."""


def write(path, _other, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)


def write_and_restore_times(path, _other, content):
    before = path.stat()
    path.write_text(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch(path, _other, _content):
    os.utime(path)


def date_back(path, _other, _content):
    os.utime(path, (1e9, 1e9))


def rename(path, other, _content):
    other.parent.mkdir(exist_ok=True)
    path.rename(other)


def copy_with_times(path, other, _content):
    other.parent.mkdir(exist_ok=True)
    if path != other:
        shutil.copy2(path, other)


def delete(path, _other, _content):
    path.unlink()


def switch_executable(path, _other, _content):
    path.chmod(path.stat().st_mode ^ 0o100)


def wait(_path, _other, _content):
    time.sleep(1.2 * RACY_MS / 1000)


def look(_path, _other, _content):
    """Nothing happens."""


STEPS = (write, write_and_restore_times, touch, date_back, rename, copy_with_times, delete, switch_executable, wait, look)


@pytest.mark.slow
def test_after_any_history_the_index_says_what_reading_says(monkeypatch, hashed):
    hypothesis = pytest.importorskip("hypothesis")
    given, one_of = hypothesis.given, hypothesis.strategies.sampled_from
    monkeypatch.setattr(index, "RACY_NS", RACY_MS * 1_000_000)
    step = hypothesis.strategies.tuples(one_of(STEPS), one_of(NAMES), one_of(NAMES), one_of(["x", "y", "long"]))
    asked = 0

    def check(database, folder):
        nonlocal asked
        expected = truth(folder)
        assert digests(database, folder) == expected
        asked += len(expected)

    @hypothesis.settings(max_examples=60, deadline=None, database=None)
    @given(hypothesis.strategies.lists(step, min_size=3, max_size=20))
    def go_through(history):
        with tempfile.TemporaryDirectory() as temporary:
            folder, database = Path(temporary, "python"), CountingDatabase(Cache(Path(temporary, "cache")).database)
            folder.mkdir()
            for act, name, other, content in [*((write, name, name, "x") for name in NAMES), (wait, *"aax"), *history]:
                if act in (write, wait, look) or (folder / name).exists():
                    act(folder / name, folder / other, content)
                check(database, folder)

    go_through()
    assert asked - len(hashed) > asked / 10, "the index recognised hardly any file, so that nothing is proved"


# --- company, and trouble -------------------------------------------------------------------------------------------------

INDEXING = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from sebs_core.cache import Cache
from sebs_core.packaging import index
from sebs_core.packaging.archive import files_of, marked_digest

cache, folder, forgotten = map(Path, sys.argv[1:])
index.time = SimpleNamespace(time_ns=lambda: time.time_ns() + 3600 * 10**9)
database = Cache(cache).database
files = dict(files_of(folder))
truth = {name: marked_digest(path) for name, path in files.items()}
for round in range(30):
    known = {name: path for name, path in files.items() if name != str(forgotten) or round % 2}
    assert index.FileIndex(database).digests(folder, known) == {name: truth[name] for name in known}
"""


def test_two_processes_can_use_one_index(database, folder, tmp_path, clock, hashed):
    for number in range(100):
        (folder / f"file{number}").write_text(str(number))
    command = [sys.executable, "-c", INDEXING, tmp_path / "cache", folder]
    both = [subprocess.Popen([*command, forgotten], stderr=subprocess.PIPE, text=True) for forgotten in ("file5", "data/a.txt")]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in both] == [("", 0), ("", 0)]
    clock(LATER_S)
    assert digests(database, folder) == truth(folder)
    assert set(hashed) <= {"file5", "a.txt"}


def test_what_cannot_be_stored_is_only_warned_of(database, folder, clock, caplog, hashed):
    clock(LATER_S)
    database.fails = True
    with caplog.at_level(logging.WARNING, "sebs_core"):
        assert digests(database, folder) == truth(folder)
    (record,) = caplog.records
    assert "digests of source files were not stored" in record.getMessage()
    assert "disk is full" in record.getMessage()
    assert database.rows() == {}
    database.fails = False
    assert digests(database, folder) == truth(folder)
    assert len(database.rows()) == 3


# --- a whole benchmark ----------------------------------------------------------------------------------------------------

RECOGNISING = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from example_records import CONFIG
from sebs_core.benchmark import Benchmark
from sebs_core.cache import Cache
from sebs_core.models import Runtime
from sebs_core.packaging import Sources, index
from sebs_core.packaging.python import PYTHON

index.time = SimpleNamespace(time_ns=lambda: time.time_ns() + 3600 * 10**9)
benchmark, database = Benchmark.load(sys.argv[1]), Cache(Path(sys.argv[2])).database
code, opened = str(benchmark.code("python")), []

def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(code):
        opened.append(arguments[0])

sys.addaudithook(watch)
for _ in range(2):
    opened.clear()
    inputs = Sources(benchmark, CONFIG, Runtime(files={}), PYTHON).inputs(index.FileIndex(database))
    print(len(opened), inputs.digest)
"""


def test_a_benchmark_of_1400_files_is_recognised_without_reading_one(echo, run_python, tmp_path):
    for number in range(1399):
        path = echo / "python" / f"folder{number % 50}" / f"file{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"this is number {number}")
    doubles = str(Path(__file__).parent.parent / "doubles")
    done = run_python(RECOGNISING, echo, tmp_path / "cache", env={**os.environ, "PYTHONPATH": doubles})
    expected = Sources(Benchmark.load(echo), CONFIG, Runtime(files={}), PYTHON).inputs().digest
    assert done.stdout.split() == ["1400", expected, "0", expected], done.stderr


def inputs(folder, database):
    return Sources(Benchmark.load(folder), CONFIG, RUNTIME, PYTHON).inputs(FileIndex(database))


def test_inputs_are_the_same_with_an_index_and_without(echo, database, clock):
    clock(LATER_S)
    (echo / "python" / "tool.sh").touch(0o755)
    without = Sources(Benchmark.load(echo), CONFIG, RUNTIME, PYTHON).inputs()
    assert inputs(echo, database) == inputs(echo, database) == without
    assert without.parts["function/tool.sh"].endswith(" executable")


def test_neither_a_touch_nor_another_place_nor_compiled_files_change_the_inputs(echo, database, clock, tmp_path):
    clock(LATER_S)
    before = inputs(echo, database)
    for path in echo.rglob("*"):
        os.utime(path)
    (echo / "python" / "__pycache__").mkdir()
    (echo / "python" / "__pycache__" / "function.pyc").write_bytes(b"compiled")
    assert inputs(echo, database).digest == before.digest
    elsewhere = echo.parent.rename(tmp_path / "elsewhere") / echo.name
    assert inputs(elsewhere, database).digest == before.digest


def test_with_an_index_too_a_change_is_named(echo, database, clock):
    clock(LATER_S)
    before = inputs(echo, database)
    time.sleep(0.02)
    (echo / "python" / "function.py").write_text("other")
    (echo / "python" / "new.txt").touch()
    assert inputs(echo, database).difference(before) == "function/function.py changed, function/new.txt added"


def test_a_file_of_the_platform_goes_before_the_benchmarks_of_the_same_name(echo, database, clock):
    clock(LATER_S)
    before = inputs(echo, database)
    runtime = Runtime(files={**RUNTIME.files, "function/function.py": HANDLER})
    after = Sources(Benchmark.load(echo), CONFIG, runtime, PYTHON).inputs(FileIndex(database))
    assert after.difference(before) == "function/function.py changed"
    assert after.parts["function/function.py"] == after.parts["handler.py"]
