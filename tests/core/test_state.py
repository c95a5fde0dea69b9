"""What exists in the world: whatever happens while it is made or removed, what may be there has a line."""

import errno
import json
import os
import resource
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
from processes import at_once, in_child

from sebs_core.confidential import Confidential
from sebs_core.errors import CacheError, PluginError
from sebs_core.models import Resource
from sebs_core.state import State, default_state_folder

SECRET = 'hunter2 "ü"'
DAY_NS = 24 * 3600 * 1_000_000_000


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def state(folder):
    return State(folder)


@pytest.fixture
def ledger(state):
    return state.ledger("double", "mine")


@pytest.fixture
def clock(monkeypatch):
    """``clock.now``: what time it is."""

    class Clock:
        now = 1_000 * DAY_NS

    monkeypatch.setattr(time, "time_ns", lambda: Clock.now)
    return Clock


def make(ledger, name="one", kind="bucket", *, depends_on=(), **facts):
    with ledger.resource(kind, name, "id", depends_on) as making:
        if facts:
            making.record(**facts)


def status(ledger, name="one", kind="bucket"):
    line = ledger.line(kind, name)
    return None if line is None else line.status


def statuses(ledger):
    return {line.resource.key: line.status for line in ledger.lines()}


# --- making ---------------------------------------------------------------------------------------------------------------


def test_the_intent_is_stored_before_something_is_made_and_existence_after(ledger, state):
    with ledger.resource("bucket", "one", "id", ["role/r"]) as making:
        assert in_child(lambda: status(State(state.folder).ledger("double", "mine"))) == "intended"
        assert ledger.find("bucket", "one") is None
        making.record(arn="a:1")
        assert ledger.line("bucket", "one").resource.arn == "a:1"
        making.record(size=3, nested={"x": [1, None]})
    assert status(ledger) == "exists"
    found = ledger.find("bucket", "one")
    assert (found.key, found.platform, found.resources_id, found.depends_on) == ("bucket/one", "double", "id", ("role/r",))
    assert (found.arn, found.size, found.nested) == ("a:1", 3, {"x": [1, None]})


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_intent_with_what_was_recorded_until_then(ledger, error):
    with pytest.raises(error), ledger.resource("bucket", "one", "id", []) as making:
        making.record(arn="a:1")
        raise error
    assert status(ledger) == "intended"
    assert ledger.line("bucket", "one").resource.arn == "a:1"
    assert ledger.find("bucket", "one") is None
    make(ledger, size=2)
    assert (ledger.find("bucket", "one").arn, ledger.find("bucket", "one").size) == ("a:1", 2)


def test_a_killed_process_leaves_the_intent_with_what_was_recorded_until_then(ledger):
    def work():
        with ledger.resource("bucket", "one", "id", []) as making:
            making.record(arn="a:1")
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) is None
    assert status(ledger) == "intended"
    assert ledger.line("bucket", "one").resource.arn == "a:1"


def test_what_exists_stays_so_while_it_is_changed(ledger, clock):
    make(ledger, depends_on=["role/r"], arn="a:1")
    begun = clock.now
    clock.now += DAY_NS
    with pytest.raises(ZeroDivisionError), ledger.resource("bucket", "one", "id", []) as making:
        assert status(ledger) == "exists"
        making.record(size=1)
        assert ledger.find("bucket", "one").arn == "a:1"
        _ = 1 / 0
    line = ledger.line("bucket", "one")
    assert (line.status, line.resource.arn, line.resource.size) == ("exists", "a:1", 1)
    assert line.resource.depends_on == ("role/r",)
    assert (line.intended_ns, line.changed_ns) == (begun, clock.now)


def test_facts_can_be_added_later_and_change_no_status(ledger):
    make(ledger, arn="a:1")
    ledger.record("bucket", "one", {"arn": "a:2", "url": "u"})
    assert (ledger.find("bucket", "one").arn, ledger.find("bucket", "one").url) == ("a:2", "u")
    ledger.gone("bucket", "one")
    ledger.record("bucket", "one", {"late": 1})
    assert status(ledger) == "gone"


def test_facts_never_change_what_a_line_is_about(ledger):
    make(ledger, kind="bucket", name="one", arn="a:1")
    ledger.record("bucket", "one", {"kind": "role", "name": "two", "platform": "other", "arn": "a:2"})
    found = ledger.find("bucket", "one")
    assert (found.key, found.platform, found.arn) == ("bucket/one", "double", "a:2")
    assert statuses(ledger) == {"bucket/one": "exists"}


@pytest.mark.parametrize(
    "facts", [{"depends_on": "role/r"}, {"resources_id": 3}, {"tag": []}, {"schema_version": "x"}], ids=str
)
def test_facts_that_would_make_the_line_unreadable_are_refused(ledger, facts):
    make(ledger, arn="a:1")
    with pytest.raises(PluginError, match=f"the line bucket/one of the ledger could not be read again: {next(iter(facts))}"):
        ledger.record("bucket", "one", facts)
    assert statuses(ledger) == {"bucket/one": "exists"}
    assert ledger.find("bucket", "one").arn == "a:1"


@pytest.mark.parametrize("fact", [Path("x"), b"x", {1, 2}, float("nan"), object()], ids=lambda fact: type(fact).__name__)
def test_facts_that_are_no_json_are_refused(ledger, fact):
    with pytest.raises(PluginError, match="the line bucket/one of the ledger cannot be written as JSON"):
        make(ledger, fact=fact)
    assert status(ledger) == "intended"


def test_records_of_plugins_that_are_not_installed_keep_all_they_have(ledger):
    make(ledger, tag="not-installed", deep={"list": [1, {"x": None}]})
    found = ledger.find("bucket", "one")
    assert (type(found), found.tag, found.deep) == (Resource, "not-installed", {"list": [1, {"x": None}]})
    make(ledger)
    assert ledger.find("bucket", "one") == found


def test_processes_that_record_at_once_lose_nothing(ledger):
    make(ledger)
    at_once(8, lambda n: ledger.record("bucket", "one", {f"fact_{n}": n}))
    found = ledger.find("bucket", "one")
    assert [getattr(found, f"fact_{n}") for n in range(8)] == list(range(8))


# --- finding --------------------------------------------------------------------------------------------------------------


def test_only_what_exists_is_found(ledger):
    assert ledger.find("bucket", "one") is ledger.line("bucket", "one") is None
    for name in ("there", "gone", "half removed"):
        make(ledger, name)
    ledger.gone("bucket", "gone")
    for broken in (ledger.resource("bucket", "half made", "id", []), ledger.removal("bucket", "half removed")):
        with pytest.raises(ZeroDivisionError), broken:
            _ = 1 / 0
    names = ("there", "gone", "half made", "half removed", "unknown")
    assert [name for name in names if ledger.find("bucket", name)] == ["there"]
    assert ledger.find("role", "there") is None


def test_lines_are_told_by_kind_and_name_with_those_that_are_gone(ledger):
    for kind, name in (("role", "b"), ("bucket", "z"), ("role", "a")):
        make(ledger, name, kind)
    ledger.gone("role", "a")
    assert list(statuses(ledger).items()) == [("bucket/z", "exists"), ("role/a", "gone"), ("role/b", "exists")]


def test_accounts_and_platforms_never_see_each_other(state):
    ledgers = [state.ledger(platform, account) for platform in ("double", "other") for account in ("mine", "yours")]
    for number, ledger in enumerate(ledgers):
        make(ledger, number=number)
        make(ledger, f"only {number}")
        ledger.keep_value("number", value=number)
        ledger.keep_resources_id("", f"id-{number}")
    for number, ledger in enumerate(ledgers):
        assert set(statuses(ledger)) == {"bucket/one", f"bucket/only {number}"}
        assert ledger.find("bucket", "one").number == number
        assert (ledger.value("number"), ledger.resources_id("")) == (number, f"id-{number}")
    ledgers[0].gone("bucket", "one")
    ledgers[0].forget_value()
    assert [status(ledger) for ledger in ledgers] == ["gone", "exists", "exists", "exists"]
    assert [ledger.value() for ledger in ledgers] == [{}, {"number": 1}, {"number": 2}, {"number": 3}]


# --- removing -------------------------------------------------------------------------------------------------------------


def test_what_was_removed_is_gone_and_what_was_never_known_leaves_no_line(ledger):
    make(ledger, arn="a:1")
    ledger.gone("bucket", "one")
    assert (status(ledger), ledger.line("bucket", "one").resource.arn) == ("gone", "a:1")
    ledger.gone("bucket", "unknown")
    with ledger.removal("bucket", "unknown"):
        pass
    assert statuses(ledger) == {"bucket/one": "gone"}


def test_what_is_being_removed_is_not_found_and_gone_afterwards(ledger):
    make(ledger, arn="a:1")
    with ledger.removal("bucket", "one"):
        assert ledger.find("bucket", "one") is None
        assert status(ledger) == "removing"
    assert status(ledger) == "gone"


@pytest.mark.parametrize("end", ["an exception", "a kill"])
def test_a_removal_that_did_not_end_leaves_its_line(ledger, end):
    make(ledger, arn="a:1")

    def work():
        with ledger.removal("bucket", "one"):
            os.kill(os.getpid(), signal.SIGKILL)

    if end == "a kill":
        assert in_child(work) is None
    else:
        with pytest.raises(ZeroDivisionError), ledger.removal("bucket", "one"):
            _ = 1 / 0
    assert (status(ledger), ledger.line("bucket", "one").resource.arn) == ("removing", "a:1")


def test_what_is_made_anew_while_it_is_removed_exists(ledger):
    make(ledger)
    with ledger.removal("bucket", "one"):
        make(ledger)
    assert status(ledger) == "exists"


def test_what_was_gone_comes_back_as_a_new_intent_without_old_facts(ledger, clock):
    make(ledger, depends_on=["role/r"], arn="a:1")
    ledger.gone("bucket", "one")
    clock.now += DAY_NS
    with pytest.raises(ZeroDivisionError), ledger.resource("bucket", "one", "new id", []):
        _ = 1 / 0
    line = ledger.line("bucket", "one")
    assert (line.status, line.intended_ns) == ("intended", clock.now)
    assert (line.resource.resources_id, line.resource.depends_on) == ("new id", ())
    assert not hasattr(line.resource, "arn")


def test_what_is_gone_for_a_month_is_dropped_with_a_later_removal(ledger, state, clock):
    for name in ("old", "young", "there"):
        make(ledger, name)
    ledger.gone("bucket", "old")
    clock.now += 20 * DAY_NS
    ledger.gone("bucket", "young")
    clock.now += 10 * DAY_NS + 1
    make(ledger, "another")
    assert statuses(ledger) == {
        "bucket/old": "gone", "bucket/young": "gone", "bucket/there": "exists", "bucket/another": "exists",
    }  # fmt: skip
    ledger.gone("bucket", "another")
    assert statuses(ledger) == {"bucket/young": "gone", "bucket/there": "exists", "bucket/another": "gone"}
    clock.now += 100 * DAY_NS
    ledger.gone("bucket", "there")
    assert statuses(ledger) == {"bucket/there": "gone"}


def test_a_clock_that_is_set_back_does_no_harm(ledger, clock):
    make(ledger, "exists")
    make(ledger, "removed")
    begun = clock.now
    clock.now -= 500 * DAY_NS
    make(ledger, "exists", arn="a:1")
    ledger.gone("bucket", "removed")
    make(ledger, "new")
    ledger.gone("bucket", "new")
    assert statuses(ledger) == {"bucket/exists": "exists", "bucket/new": "gone", "bucket/removed": "gone"}
    assert ledger.find("bucket", "exists").arn == "a:1"
    assert ledger.line("bucket", "exists").intended_ns == begun
    make(ledger, "removed")
    assert status(ledger, "removed") == "exists"


# --- configuration --------------------------------------------------------------------------------------------------------


def test_values_are_kept_merged_and_forgotten_by_key_path(ledger, state):
    assert ledger.value("registry", "host") is None
    assert ledger.value() == {}
    ledger.keep_value("registry", "host", value="localhost")
    ledger.keep_value("registry", value={"port": 5000, "auth": {"kind": "none"}})
    ledger.keep_value("registry", "auth", value={"user": "me"})
    again = State(state.folder).ledger("double", "mine")
    assert again.value() == {
        "registry": {"host": "localhost", "port": 5000, "auth": {"kind": "none", "user": "me"}},
    }
    assert again.value("registry", "auth", "user") == "me"
    assert again.value("registry", "auth", "user", "deeper") is None
    for _ in range(2):
        again.forget_value("registry", "auth")
    again.forget_value("unknown", "path")
    assert ledger.value() == {"registry": {"host": "localhost", "port": 5000}}
    ledger.keep_value("registry", value="none")
    assert ledger.value() == {"registry": "none"}
    ledger.forget_value()
    assert ledger.value() == {}


def test_processes_that_configure_at_once_lose_nothing(ledger):
    at_once(8, lambda n: ledger.keep_value("all", str(n), value=n))
    assert ledger.value() == {"all": {str(n): n for n in range(8)}}


def test_a_resources_id_is_kept_per_prefix(ledger, state):
    assert ledger.resources_id("") is None
    ledger.keep_resources_id("", "aaaa")
    ledger.keep_resources_id("team", "team-bbbb")
    again = State(state.folder).ledger("double", "mine")
    assert [again.resources_id(prefix) for prefix in ("", "team", "tea")] == ["aaaa", "team-bbbb", None]
    ledger.keep_resources_id("", "cccc")
    assert again.resources_id("") == "cccc"


# --- secrets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", ["fact", "nested fact", "name of a fact", "name", "kind", "depends_on", "value", "key of a value"]
)
def test_secrets_are_refused_everywhere_and_not_told(folder, where):
    confidential = Confidential()
    confidential.add("the setting password", SECRET)
    ledger = State(folder, confidential).ledger("double", "mine")
    ledger.keep_value("x", value=1)
    attempts = {
        "fact": lambda: make(ledger, url=f"https://user:{SECRET}@host"),
        "nested fact": lambda: make(ledger, deep=[{"x": SECRET}]),
        "name of a fact": lambda: make(ledger, **{SECRET: 1}),
        "name": lambda: make(ledger, f"bucket-{SECRET}"),
        "kind": lambda: make(ledger, kind=SECRET),
        "depends_on": lambda: make(ledger, depends_on=[f"role/{SECRET}"]),
        "value": lambda: ledger.keep_value("password", value=SECRET),
        "key of a value": lambda: ledger.keep_value("passwords", SECRET, value=1),
    }
    with pytest.raises(PluginError, match="would hold the setting password") as refused:
        attempts[where]()
    assert SECRET not in str(refused.value)
    assert all(b"hunter2" not in path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert status(ledger) == ("intended" if "fact" in where else None)
    assert ledger.value() == {"x": 1}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_key_is_made_once_and_for_the_user_alone(state, folder):
    assert not folder.exists()
    made = state.key()
    assert len(made) == 32
    assert state.key() == State(folder).key() == made
    assert mode(folder) == 0o700
    assert mode(folder / "key") == 0o600
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["key"]
    shutil.rmtree(folder)
    assert state.key() != made


@pytest.mark.parametrize("first", ["writing", "locking"])
def test_the_folder_is_the_users_alone_whatever_makes_it(state, folder, ledger, first):
    before = os.umask(0)
    try:
        make(ledger) if first == "writing" else state.locks.held("x", "d", pytest.fail).__enter__()
        state.key()
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert mode(folder / "key") == 0o600


def test_eight_processes_that_ask_at_once_get_one_key(tmp_path):
    for attempt in range(3):
        answers = at_once(8, lambda _, folder=tmp_path / f"state-{attempt}": State(folder).key())
        assert len(set(answers)) == 1
        assert (tmp_path / f"state-{attempt}" / "key").read_bytes() == answers[0]


def no_space(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fault", ["os.write", "os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_no_half_key(state, folder, monkeypatch, fault):
    monkeypatch.setattr(fault, no_space)
    with pytest.raises(CacheError, match=rf"{folder}.*No space left on device.*SEBS_STATE_DIR"):
        state.key()
    monkeypatch.undo()
    assert not (folder / "key").exists()
    assert len(state.key()) == 32


# --- the folder -----------------------------------------------------------------------------------------------------------


def test_reading_creates_nothing(ledger, folder):
    assert ledger.lines() == []
    assert ledger.find("bucket", "one") is ledger.value("x") is ledger.resources_id("") is None
    ledger.gone("bucket", "one")
    assert not folder.exists()


def test_a_deleted_folder_begins_anew(ledger, folder):
    make(ledger)
    shutil.rmtree(folder)
    assert ledger.lines() == []
    make(ledger, "two")
    assert statuses(ledger) == {"bucket/two": "exists"}


def accesses(state):
    ledger = state.ledger("double", "mine")
    return {
        "find": lambda: ledger.find("bucket", "one"),
        "lines": ledger.lines,
        "value": lambda: ledger.value("x"),
        "make": lambda: make(ledger),
        "keep": lambda: ledger.keep_value("x", value=1),
        "identify": lambda: ledger.keep_resources_id("", "x"),
        "key": state.key,
        "lock": lambda: state.locks.held("x", "working", pytest.fail).__enter__(),
    }


def refused(access):
    try:
        access()
    except CacheError as error:
        return str(error)
    return "it was not refused"


@pytest.mark.parametrize("protected", ["its parent", "the folder"])
def test_a_folder_that_cannot_be_written_is_an_error_that_says_which_variable_to_set(
    state, folder, in_powerless_child, protected
):
    if protected == "the folder":
        make(state.ledger("double", "mine"))
    locked = folder if protected == "the folder" else folder.parent
    locked.chmod(0o555)
    told = in_powerless_child(lambda: {name: refused(access) for name, access in accesses(state).items()})
    locked.chmod(0o755)
    readers = ("find", "lines", "value")
    for name, text in told.items():
        if name in readers:
            assert text == "it was not refused"
        else:
            assert str(folder) in text
            assert "SEBS_STATE_DIR" in text


def test_a_folder_that_cannot_be_read_is_an_error_that_says_which_variable_to_set(state, folder, in_powerless_child):
    make(state.ledger("double", "mine"))
    state.key()
    folder.chmod(0)
    told = in_powerless_child(lambda: {name: refused(access) for name, access in accesses(state).items()})
    folder.chmod(0o700)
    for text in told.values():
        assert str(folder) in text
        assert "SEBS_STATE_DIR" in text


def test_a_damaged_file_is_an_error_that_names_it_and_the_way_out(state, folder):
    make(state.ledger("double", "mine"))
    (folder / "state.sqlite").write_bytes(b"garbage" * 1000)
    for name, access in accesses(state).items():
        if name not in ("key", "lock"):
            assert refused(access) == (
                f"{folder / 'state.sqlite'} is damaged (file is not a database). Move it away, or choose another folder "
                "(SEBS_STATE_DIR); without it only what platforms list by themselves is known."
            )


def test_a_file_of_a_newer_version_is_refused_and_untouched(state, folder):
    make(state.ledger("double", "mine"))
    with state.writing() as connection:
        connection.execute("PRAGMA user_version=99")
    before = (folder / "state.sqlite").read_bytes()
    for name, access in accesses(state).items():
        if name not in ("key", "lock"):
            assert f"{folder / 'state.sqlite'} was written by a newer version of sebs" in refused(access)
    assert (folder / "state.sqlite").read_bytes() == before


def test_a_full_disk_is_an_error_and_the_line_of_before_stays(ledger, folder):
    make(ledger, arn="a:1")
    limit = (folder / "state.sqlite").stat().st_size

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return refused(lambda: ledger.record("bucket", "one", {"large": "x" * 100_000})), ledger.find("bucket", "one").arn

    told, found = in_child(work)
    assert "Free some space on that disk, or choose another folder (SEBS_STATE_DIR)" in told
    assert found == ledger.find("bucket", "one").arn == "a:1"


def test_a_line_that_cannot_be_read_is_named_and_hides_no_other(ledger, state, folder, caplog):
    make(ledger)
    with ledger.resource("bucket", "two", "id", ()):
        pass
    with state.writing() as connection:
        connection.execute("UPDATE resource SET record=? WHERE name='one'", (json.dumps({"name": "one"}),))
    (bare,) = [ledger.find("bucket", "one")]
    assert (bare.key, bare.model_extra) == ("bucket/one", {})
    named = f'a line of {folder / "state.sqlite"} cannot be read: {{"name": "one"}}'
    assert named in caplog.text
    assert [line.resource.name for line in ledger.lines()] == ["two"]
    with ledger.removal("bucket", "one"):
        pass
    assert ledger.line("bucket", "one").status == "gone", "what is damaged can be removed, and is mended by that"


def test_all_that_is_written_down_is_counted_by_platform_account_and_id(state):
    for platform, account, name, one in [
        ("p", "a", "1", "x"),
        ("p", "a", "2", "x"),
        ("p", "b", "1", "x"),
        ("q", "a", "1", "y"),
    ]:
        with state.ledger(platform, account).resource("bucket", name, one, ()):
            pass
    with state.ledger("p", "a").resource("bucket", "3", "x", ()):
        pass
    with state.ledger("p", "a").removal("bucket", "3"):
        pass
    assert state.counts() == [("p", "a", "x", 2), ("p", "b", "x", 1), ("q", "a", "y", 1)]


def test_a_configuration_that_cannot_be_read_is_named(ledger, state, folder):
    ledger.keep_value("a", value=1)
    with state.writing() as connection:
        connection.execute("UPDATE configuration SET \"values\"='{'")
    assert f"in {folder / 'state.sqlite'} cannot be read" in refused(lambda: ledger.value("a"))


def test_the_state_folder_is_the_given_one_else_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("SEBS_STATE_DIR", str(tmp_path / "given"))
    assert default_state_folder() == tmp_path / "given"
    monkeypatch.delenv("SEBS_STATE_DIR")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert default_state_folder() == tmp_path / "xdg" / "sebs"
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_folder() == tmp_path / ".local" / "state" / "sebs"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_state_folder() == tmp_path / "Library" / "Application Support" / "sebs"
