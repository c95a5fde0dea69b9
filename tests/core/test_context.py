"""The channel from a platform to what is kept: a ledger to write to, values, an id, and a folder of its own."""

import tempfile

import pytest

from sebs_core.confidential import Confidential
from sebs_core.context import Context
from sebs_core.errors import PluginError
from sebs_core.state import State


@pytest.fixture
def state(tmp_path):
    confidential = Confidential()
    confidential.add("the secret KEY", "hunter2hunter2")
    return State(tmp_path / "state", confidential)


@pytest.fixture
def context(state):
    return Context("my-id", lambda: state.ledger("double", "mine"))


def test_what_was_made_is_found_with_what_was_recorded_of_it(context):
    with context.resource("bucket", "b") as making:
        making.record(arn="a:1")
        assert context.find("bucket", "b") is None
    with context.resource("function", "f", depends_on=["bucket/b"]) as making:
        making.record(url="https://f")
    found = context.find("function", "f")
    assert (found.url, found.resources_id, found.depends_on) == ("https://f", "my-id", ("bucket/b",))
    assert context.find("bucket", "b").arn == "a:1"
    assert context.find("bucket", "f") is None


def test_what_could_not_be_made_is_not_found_but_written_down(context, state):
    with pytest.raises(ZeroDivisionError), context.resource("bucket", "b") as making:
        making.record(arn="a:1")
        _ = 1 / 0
    assert context.find("bucket", "b") is None
    (line,) = state.ledger("double", "mine").lines()
    assert (line.status, line.resource.arn) == ("intended", "a:1")


def test_values_are_kept_for_later_sessions(context, state):
    assert context.value("registry", "host") is None
    context.keep_value("registry", "host", value="localhost")
    context.keep_value("registry", value={"port": 1})
    later = Context("another-id", lambda: state.ledger("double", "mine"))
    assert later.value("registry") == {"host": "localhost", "port": 1}
    later.forget_value("registry", "host")
    later.forget_value("registry", "host")
    assert context.value() == {"registry": {"port": 1}}


def test_secrets_are_refused(context):
    with pytest.raises(PluginError, match="would hold the secret KEY"), context.resource("bucket", "b") as making:
        making.record(url="https://user:hunter2hunter2@host")
    with pytest.raises(PluginError, match="would hold the secret KEY"):
        context.resource("bucket", "c", depends_on=["role/hunter2hunter2"]).__enter__()
    with pytest.raises(PluginError, match="would hold the secret KEY"):
        context.keep_value("password", value={"is": ["hunter2hunter2"]})
    assert context.value() == {}


def test_the_id_is_looked_for_once_and_only_when_it_is_needed(state):
    asked = []
    context = Context(lambda: asked.append("asked") or "found-id", lambda: state.ledger("double", "mine"))
    context.keep_value("x", value=1)
    assert asked == []
    with context.resource("bucket", "b"):
        pass
    assert context.resources_id == context.find("bucket", "b").resources_id == "found-id"
    assert asked == ["asked"]


def test_the_ledger_is_looked_for_only_when_it_is_needed():
    def account():
        raise ZeroDivisionError

    context = Context("my-id", account)
    assert (context.resources_id, context.lasting) == ("my-id", True)
    with pytest.raises(ZeroDivisionError):
        context.value("x")


@pytest.mark.parametrize(
    "use",
    [
        lambda context: context.resource("bucket", "b"),
        lambda context: context.find("bucket", "b"),
        lambda context: context.value("x"),
        lambda context: context.keep_value("x", value=1),
        lambda context: context.forget_value("x"),
    ],
)
def test_a_context_made_by_hand_keeps_nothing_and_says_so(use):
    with pytest.raises(PluginError, match="made without a ledger, by hand: it keeps nothing"):
        use(Context("my-id"))


def test_the_private_folder_is_made_on_first_use_and_removed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    context = Context("my-id")
    context.close()
    assert list(tmp_path.iterdir()) == []
    folder = context.scratch
    assert context.scratch == folder
    assert folder.stat().st_mode & 0o077 == 0
    (folder / "deep").mkdir()
    (folder / "deep" / "x").write_text("x")
    context.close()
    context.close()
    assert list(tmp_path.iterdir()) == []
