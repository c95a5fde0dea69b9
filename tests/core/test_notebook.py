"""Progress in a notebook: one line under the cell, and nothing anywhere else."""

import sys
from types import SimpleNamespace

import sebs_core as sebs
from sebs_core.notebook import NotebookProgress, notebook_observer


class Display:
    """Stands in for IPython's display: keeps what is shown and what it is replaced by."""

    def __init__(self):
        self.shown = []

    def display(self, content, *, raw, display_id):
        self.shown.append([content["text/plain"]])
        return SimpleNamespace(update=lambda content, raw: self.shown[-1].append(content["text/plain"]))


def pretend(monkeypatch, *, kernel):
    display = Display()
    shell = SimpleNamespace(kernel=object() if kernel else None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    return display


def test_outside_a_notebook_there_is_no_observer(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert notebook_observer() == []
    pretend(monkeypatch, kernel=False)
    assert notebook_observer() == []


def test_in_a_notebook_the_session_tells_its_progress_in_one_line_that_is_replaced(monkeypatch, open_session, echo):
    display = pretend(monkeypatch, kernel=True)
    result = open_session().run(echo, payload={"value": 1}, load=sebs.Closed(repetitions=3))
    (line,) = display.shown
    assert line[0] == "package echo …"
    assert any(text.startswith("package echo: ") for text in line)
    assert any("3 of 3, 0 failed" in text for text in line)
    assert line[-1] == f"run {result.directory}"


def test_a_notice_stays_and_what_follows_gets_a_line_of_its_own(monkeypatch):
    display = pretend(monkeypatch, kernel=True)
    progress = NotebookProgress()
    progress.sebs_event(sebs.StageStarted("package", "x"))
    progress.sebs_event(sebs.Notice("mind the gap"))
    progress.sebs_event(sebs.StageFinished("package", "x", 1.26, reused=True))
    assert display.shown == [["package x …", "mind the gap"], ["package x: 1.3 s, reused"]]
