"""One SQLite file: all of a change or nothing of it, whoever dies; and errors that name the file and the way out."""

import os
import resource
import shutil
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from processes import FORK, at_once, in_child

from sebs_core import database as database_module
from sebs_core.database import Database
from sebs_core.errors import CacheError

WAY_OUT = "choose another folder, or ask your neighbour."
FIRST = "CREATE TABLE entry (key TEXT PRIMARY KEY, value)"
SECOND = "ALTER TABLE entry ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'; CREATE TABLE other (x)"
LARGE = "x" * 100_000


def opened(path, *migrations):
    return Database(path, migrations or (FIRST,), way_out=WAY_OUT)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "kept.sqlite"


@pytest.fixture
def database(path):
    return opened(path)


def put(database, **values):
    with database.writing() as connection:
        connection.executemany("INSERT OR REPLACE INTO entry (key, value) VALUES (?, ?)", values.items())


def content(database):
    with database.reading() as connection:
        return dict(connection.execute("SELECT key, value FROM entry ORDER BY key"))


def version_of(path):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute("PRAGMA user_version").fetchone()[0]


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def refusal(work):
    """The text of the `CacheError` that this raises."""
    with pytest.raises(CacheError) as refused:
        work()
    return str(refused.value)


# --- changes --------------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_by_whoever_opens_the_file(database, path):
    put(database, a=1, b="ü")
    assert content(database) == content(opened(path)) == in_child(lambda: content(database)) == {"a": 1, "b": "ü"}


def test_a_block_that_fails_changes_nothing(database, path):
    put(database, a=1)
    with pytest.raises(ZeroDivisionError), database.writing() as connection:
        connection.execute("UPDATE entry SET value=2")
        connection.execute("INSERT INTO entry VALUES ('b', 1)")
        _ = 1 / 0
    assert content(database) == {"a": 1}
    assert files_in(path.parent) == ["kept.sqlite"]


def test_an_interrupted_block_changes_nothing(database):
    put(database, a=1)
    with pytest.raises(KeyboardInterrupt), database.writing() as connection:
        connection.execute("UPDATE entry SET value=2")
        raise KeyboardInterrupt
    assert content(database) == {"a": 1}


def test_others_see_a_change_when_its_block_ended(database, path):
    put(database, a=1)
    with database.writing() as connection:
        connection.execute("UPDATE entry SET value=2")
        assert content(opened(path)) == {"a": 1}
    assert content(opened(path)) == {"a": 2}


def test_every_change_is_synced_and_no_write_ahead_log_is_kept(database, path):
    for access in (database.writing, database.reading):
        with access() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert files_in(path.parent) == ["kept.sqlite"]


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_no_connection_outlives_its_access(database):
    def open_files():
        return [link for link in Path("/proc/self/fd").iterdir() if "kept.sqlite" in os.path.realpath(link)]

    put(database, a=1)
    content(database)
    with pytest.raises(ZeroDivisionError), database.writing():
        _ = 1 / 0
    with pytest.raises(CacheError), database.reading() as connection:
        connection.execute("nonsense")
    assert open_files() == []


def test_eight_processes_that_count_lose_nothing(database):
    put(database, count=0)

    def count(_):
        for _ in range(20):
            with database.writing() as connection:
                before = connection.execute("SELECT value FROM entry").fetchone()[0]
                connection.execute("UPDATE entry SET value=?", (before + 1,))

    at_once(8, count)
    assert content(database) == {"count": 160}


def test_threads_that_count_lose_nothing(database):
    put(database, count=0)

    def count():
        for _ in range(20):
            with database.writing() as connection:
                before = connection.execute("SELECT value FROM entry").fetchone()[0]
                connection.execute("UPDATE entry SET value=?", (before + 1,))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(database) == {"count": 80}


def test_a_file_that_another_holds_too_long_says_so(database, path, monkeypatch):
    monkeypatch.setattr(database_module, "PATIENCE_S", 0)
    with database.writing():
        told = refusal(lambda: put(opened(path), a=1))
    assert f"{path} cannot be used: database is locked" in told
    assert "Another process has held it" in told
    assert told.endswith(WAY_OUT)


# --- reading --------------------------------------------------------------------------------------------------------------


def test_reading_creates_nothing_and_finds_nothing(database, tmp_path):
    assert content(database) == {}
    assert files_in(tmp_path) == []


def test_a_file_without_content_is_read_as_empty_and_written_to(database, path):
    path.parent.mkdir()
    path.touch()  # whoever made it died before the first transaction ended
    assert content(database) == {}
    assert path.stat().st_size == 0
    put(database, a=1)
    assert content(database) == {"a": 1}


def test_reading_changes_nothing(database, path):
    put(database, a=1)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    content(database)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert files_in(path.parent) == ["kept.sqlite"]


def test_what_cannot_be_written_can_be_read_and_copied(database, path, tmp_path, in_powerless_child):
    put(database, a=1)
    path.chmod(0o444)
    path.parent.chmod(0o555)

    def work():
        database.copy_to(tmp_path / "copy.sqlite")
        return content(database), refusal(lambda: put(database, a=2))

    found, told = in_powerless_child(work)
    assert found == content(opened(tmp_path / "copy.sqlite")) == {"a": 1}
    assert told.startswith(f"{path} cannot be used: ")
    assert told.endswith(f"Mend the permissions of its folder, or {WAY_OUT}")


@pytest.mark.parametrize("access", ["reading", "writing"])
def test_a_folder_that_may_not_be_entered_is_an_error_with_the_way_out(database, path, access, in_powerless_child):
    put(database, a=1)
    path.parent.chmod(0)
    told = in_powerless_child(lambda: refusal(getattr(database, access)().__enter__))
    path.parent.chmod(0o700)
    assert told.startswith(f"{path} cannot be used: ")
    assert told.endswith(f". Mend the permissions of its folder, or {WAY_OUT}")


def test_a_copy_of_nothing_is_empty(database, tmp_path):
    database.copy_to(tmp_path / "copy.sqlite")
    assert content(opened(tmp_path / "copy.sqlite")) == {}


# --- places ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a b", "a?b", "a?mode=memory", "a#b", "a%b", "a%20b", "a&b=c;d", "ümläut ß", "日本", "'quoted' \"twice\"", "a\nb", "a\\b"],
)
def test_any_path_will_do(tmp_path, name):
    path = tmp_path / name / f"{name}.sqlite"
    put(opened(path), a=1)
    assert content(opened(path)) == {"a": 1}
    assert files_in(tmp_path) == [name, f"{name}/{name}.sqlite"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names in Unicode only")
def test_a_path_that_is_not_utf_8_will_do(tmp_path):
    path = tmp_path / os.fsdecode(b"latin-\xfc") / "kept.sqlite"
    put(opened(path), a=1)
    assert content(opened(path)) == {"a": 1}


def test_a_path_with_two_slashes_at_its_beginning_will_do(path):
    put(opened(Path(f"/{path}")), a=1)
    assert content(opened(path)) == {"a": 1}


def test_a_relative_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(opened(Path("kept.sqlite")), a=1)
    assert content(opened(tmp_path / "kept.sqlite")) == {"a": 1}


def test_a_moved_folder_goes_on_elsewhere_and_begins_anew_here(database, path, tmp_path):
    put(database, a=1)
    path.parent.rename(tmp_path / "moved")
    assert content(opened(tmp_path / "moved" / path.name)) == {"a": 1}
    assert content(database) == {}
    put(database, b=2)
    assert content(database) == {"b": 2}
    assert content(opened(tmp_path / "moved" / path.name)) == {"a": 1}


@pytest.mark.parametrize("gone", ["file", "folder"])
def test_what_was_deleted_meanwhile_begins_anew(database, path, gone):
    put(database, a=1)
    content(database)
    path.unlink() if gone == "file" else shutil.rmtree(path.parent)
    assert content(database) == {}
    put(database, b=2)
    assert content(database) == {"b": 2}


def test_a_file_that_was_replaced_meanwhile_is_noticed(database, path, tmp_path):
    put(database, a=1)
    other = opened(tmp_path / "other.sqlite")
    put(other, b=2)
    other.path.replace(path)
    assert content(database) == {"b": 2}


def test_a_fork_between_accesses_does_no_harm(database):
    put(database, parent=1)
    content(database)

    def work():
        put(database, child=1)
        return content(database)

    assert in_child(work) == {"child": 1, "parent": 1}
    put(database, parent=2)
    assert content(database) == {"child": 1, "parent": 2}


def test_a_file_where_the_folder_should_be_is_an_error_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    database = opened(tmp_path / "file" / "kept.sqlite")
    for work in (lambda: content(database), lambda: put(database, a=1)):
        told = refusal(work)
        assert told.startswith(f"{database.path} cannot be used: ")
        assert told.endswith(WAY_OUT)


# --- deaths ---------------------------------------------------------------------------------------------------------------


def test_a_process_killed_within_a_change_leaves_the_state_before_it(database, path):
    put(database, a=1)
    before = path.read_bytes()

    def work():
        with database.writing() as connection:
            connection.execute("PRAGMA cache_size=1")  # so that changed pages are in the file before the end
            connection.execute("UPDATE entry SET value=2")
            connection.executemany("INSERT INTO entry VALUES (?, ?)", [(str(n), LARGE) for n in range(10)])
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) is None
    assert path.read_bytes() != before
    assert files_in(path.parent) == ["kept.sqlite", "kept.sqlite-journal"]
    assert content(database) == {"a": 1}
    assert version_of(path) == 1
    put(database, a=3)
    assert content(database) == {"a": 3}
    assert files_in(path.parent) == ["kept.sqlite"]


def test_the_journal_of_a_death_does_no_harm_to_a_new_file(database, path):
    def work():
        with database.writing() as connection:
            connection.execute("PRAGMA cache_size=1")
            connection.executemany("INSERT INTO entry VALUES (?, ?)", [(str(n), LARGE) for n in range(10)])
            os.kill(os.getpid(), signal.SIGKILL)

    put(database, a=1)
    in_child(work)
    path.unlink()
    assert content(database) == {}
    put(database, b=2)
    assert content(database) == {"b": 2}
    assert version_of(path) == 1


def test_a_process_killed_at_any_moment_loses_nothing_that_it_had_finished(database, path):
    put(database, count=0)
    for finished in range(1, 11):
        here, there = FORK.Pipe()

        def work(there=there):
            while True:
                with database.writing() as connection:
                    count = connection.execute("SELECT value FROM entry WHERE key='count'").fetchone()[0] + 1
                    connection.execute("UPDATE entry SET value=? WHERE key='count'", (count,))
                    connection.execute("INSERT OR REPLACE INTO entry VALUES ('twin', ?)", (count,))
                there.send(count)

        process = FORK.Process(target=work, daemon=True)
        process.start()
        told = [here.recv() for _ in range(finished)]
        process.kill()
        process.join()
        found = content(database)
        assert found["count"] == found["twin"] >= told[-1]
        assert version_of(path) == 1


# --- damage and full disks ------------------------------------------------------------------------------------------------


def garbage(path):
    path.write_bytes(bytes(range(256)) * 64)


def cut(path):
    os.truncate(path, path.stat().st_size // 3)


def cut_within_the_header(path):
    os.truncate(path, 50)


def overwritten(path):
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


@pytest.mark.parametrize("damage", [garbage, cut, cut_within_the_header, overwritten])
def test_a_damaged_file_is_an_error_that_names_it_and_the_way_out(database, path, damage):
    put(database, **{f"k{n}": LARGE for n in range(5)})
    damage(path)
    for work in (lambda: content(database), lambda: put(database, **{f"k{n}": 1 for n in range(5)})):
        told = refusal(work)
        assert told.startswith(f"{path} is damaged (")
        assert told.endswith(f"Move it away, or {WAY_OUT}")


def test_a_folder_in_place_of_the_file_is_an_error_with_the_way_out(database, path):
    path.mkdir(parents=True)
    for work in (lambda: content(database), lambda: put(database, a=1)):
        assert refusal(work).endswith(WAY_OUT)


@pytest.mark.parametrize("room", ["none", "for the journal", "for half of it"])
def test_a_full_disk_is_an_error_that_says_so_and_the_old_content_stays(database, path, room):
    put(database, **{f"k{n}": LARGE for n in range(5)})
    before = content(database)
    limit = {"none": 0, "for the journal": path.stat().st_size, "for half of it": path.stat().st_size + 300_000}[room]

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        told = refusal(lambda: put(database, **{f"new{n}": LARGE for n in range(10)}))
        return told, content(database)

    told, found_there = in_child(work)
    assert told.startswith(f"{path} cannot be used: ")
    assert told.endswith(f"Free some space on that disk, or {WAY_OUT}")
    assert found_there == content(database) == before
    put(database, a=1)
    assert content(database) == {"a": 1, **before}


def test_a_disk_that_gets_full_within_a_change_says_so(database, path):
    put(database, a=1)

    def work():
        with database.writing() as connection:
            connection.execute("PRAGMA max_page_count=10")
            connection.execute("UPDATE entry SET value=?", (LARGE,))

    told = refusal(work)
    assert told == f"{path} cannot be used: database or disk is full. Free some space on that disk, or {WAY_OUT}"
    assert content(database) == {"a": 1}


# --- versions of the schema -----------------------------------------------------------------------------------------------


def coloured(path):
    with opened(path, FIRST, SECOND).reading() as connection:
        return connection.execute("SELECT key, value, colour FROM entry ORDER BY key").fetchall()


@pytest.mark.parametrize("access", ["reading", "writing"])
def test_an_older_file_is_migrated_with_its_content_when_it_is_opened(database, path, access):
    put(database, a=1)
    with getattr(opened(path, FIRST, SECOND), access)() as connection:
        assert connection.execute("SELECT * FROM entry").fetchall() == [("a", 1, "red")]
        assert connection.execute("SELECT * FROM other").fetchall() == []
    assert version_of(path) == 2


def test_a_new_file_has_the_newest_schema(path):
    assert coloured(path) == []
    with opened(path, FIRST, SECOND).writing() as connection:
        connection.execute("INSERT INTO entry VALUES ('a', 1, 'blue')")
    assert coloured(path) == [("a", 1, "blue")]
    assert version_of(path) == 2


def test_processes_that_migrate_at_once_migrate_once(database, path):
    put(database, a=1)

    def work(n):
        with opened(path, FIRST, SECOND).writing() as connection:
            connection.execute("INSERT INTO entry VALUES (?, ?, 'blue')", (f"child {n}", n))

    at_once(8, work)
    assert coloured(path) == [("a", 1, "red"), *((f"child {n}", n, "blue") for n in range(8))]


def test_a_migration_by_another_right_after_connecting_is_noticed(database, path, monkeypatch):
    put(database, a=1)
    connect = Database._connect

    def late(self, mode):
        connection = connect(self, mode)
        monkeypatch.undo()
        coloured(path)
        return connection

    monkeypatch.setattr(Database, "_connect", late)
    with opened(path, FIRST, SECOND).writing() as connection:
        connection.execute("INSERT INTO entry VALUES ('b', 2, 'blue')")
    assert coloured(path) == [("a", 1, "red"), ("b", 2, "blue")]


def test_processes_that_make_the_file_at_once_make_one(path):
    at_once(8, lambda n: put(opened(path), **{str(n): n}))
    assert content(opened(path)) == {str(n): n for n in range(8)}


@pytest.mark.parametrize("access", ["reading", "writing", "copying"])
def test_a_file_of_a_newer_version_is_refused_with_the_way_out_and_untouched(path, tmp_path, access):
    with opened(path, FIRST, SECOND).writing() as connection:
        connection.execute("INSERT INTO entry VALUES ('a', 1, 'blue')")
    before = path.read_bytes()
    older = opened(path)
    accesses = {
        "reading": lambda: content(older),
        "writing": lambda: put(older, a=2),
        "copying": lambda: older.copy_to(tmp_path / "copy.sqlite"),
    }
    told = refusal(accesses[access])
    assert told == (
        f"{path} was written by a newer version of sebs (its schema is 2, this one knows up to 1). "
        f"Upgrade sebs-core, or {WAY_OUT}"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("access", ["reading", "writing"])
def test_a_migration_that_fails_half_way_leaves_the_old_version(database, path, access):
    put(database, a=1)
    broken = opened(path, FIRST, SECOND, "ALTER TABLE other ADD COLUMN y; INSERT INTO nowhere VALUES (1)")
    assert "nowhere" in refusal(getattr(broken, access)().__enter__)
    assert version_of(path) == 1
    assert content(database) == {"a": 1}
    assert coloured(path) == [("a", 1, "red")]


class DeadlyScript(str):
    """A migration in the middle of which the process dies."""

    def split(self, *_):
        yield from str.split(self, ";")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_within_a_migration_leaves_the_old_version(database, path):
    put(database, **{f"k{n:02}": LARGE for n in range(40)})  # more than SQLite holds in memory
    deadly = DeadlyScript(f"{SECOND}; UPDATE entry SET value=value || 'more'")
    assert in_child(lambda: content(opened(path, FIRST, deadly))) is None
    assert (path.parent / "kept.sqlite-journal").exists()
    assert content(database) == {f"k{n:02}": LARGE for n in range(40)}
    assert version_of(path) == 1
    assert len(coloured(path)) == 40


def test_an_older_file_that_cannot_be_written_is_copied_and_the_copy_migrated(database, path, tmp_path, in_powerless_child):
    put(database, a=1)
    before = path.read_bytes()
    path.parent.chmod(0o555)
    path.chmod(0o444)
    copy = tmp_path / "copy.sqlite"
    assert in_powerless_child(lambda: opened(path, FIRST, SECOND).copy_to(copy) or "done") == "done"
    assert coloured(copy) == [("a", 1, "red")]
    assert path.read_bytes() == before
