"""docs/notebooks/first-run.ipynb, executed in a kernel of its own; and the stop button."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs nbclient (group notebooks)")
pytest.importorskip("ipykernel", reason="needs ipykernel (group notebooks)")
pytest.importorskip("pandas", reason="needs pandas (group notebooks)")

import nbformat  # noqa: E402 - comes with nbclient
from jupyter_client.manager import KernelManager  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "first-run.ipynb"
LOOP_RUNS = "__import__('asyncio').get_running_loop()\n"
"""Raises RuntimeError where no event loop is running."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("packaging")]


@pytest.fixture
def mark() -> str:
    """Stands in the environment or the command line of every process that the kernel starts, and of no other."""
    return f"mark-{uuid.uuid4().hex}"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> Iterator[KernelManager]:
    """A kernel of this interpreter; it and Jupyter write below `tmp_path` only."""
    spec = tmp_path / "jupyter" / "kernels" / "this" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "this", "language": "python"}))
    for name in [name for name in os.environ if name.startswith("SEBS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("SEBS_CACHE_DIR", str(tmp_path / mark))
    monkeypatch.setenv("SEBS_OUTPUT_DIR", str(tmp_path / "runs"))
    manager = KernelManager(kernel_name="this")
    yield manager
    if manager.has_kernel:
        manager.shutdown_kernel(now=True)


class Client(nbclient.NotebookClient):
    """Executes cells, and keeps what the kernel says while it works."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.shown: list[str] = []
        self.on_shown: Any = None

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.shown.append(msg["content"]["data"]["text/plain"])
            if self.on_shown:
                self.on_shown(self.shown[-1])
        return super().process_message(msg, cell, cell_index)


def marked_processes(mark: str, *, but: int) -> dict[int, str]:
    """Process id → command line of all processes with this mark, except the kernel."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in command + environment and int(folder.name) not in (but, os.getpid()):
            found[int(folder.name)] = command.replace(b"\0", b" ").decode()
    return found


def printed(cell: Any) -> str:
    parts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell["outputs"]]
    return "\n".join(parts)


def kernel_pid(kernel: KernelManager) -> int:
    return int(kernel.provisioner.pid)


def test_it_is_stored_without_outputs() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs"), "clear the outputs before you store the notebook"
        assert not cell.get("execution_count")


def test_it_runs_inside_the_event_loop_shows_progress_and_leaves_nothing(
    kernel: KernelManager, mark: str, tmp_path: Path
) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.source = LOOP_RUNS + cell.source
    client = Client(notebook, km=kernel, timeout=60, resources={"metadata": {"path": str(tmp_path)}})
    left = None
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)  # a cell that raises is a CellExecutionError
        if sys.platform == "linux":
            left = marked_processes(mark, but=kernel_pid(kernel))
    names, warm, cold, table = map(printed, cells)
    assert "110.dynamic-html" in names
    assert "200 invocations, 0 cold, 0 failed, 2 instances, 2 at once, outputs right" in warm
    assert "client time       warm" in warm
    assert "10 invocations, 10 cold, 0 failed, 10 instances" in cold
    assert "provider.init_us" in table
    assert "NaN" not in table
    stages = ["package 110.dynamic-html", "deploy ", "load 110.dynamic-html", "] 200 of 200", "metrics ", "run "]
    places = [next((at for at, text in enumerate(client.shown) if stage in text), None) for stage in stages]
    assert None not in places, f"progress showed {client.shown}"
    assert places == sorted(places)
    assert left in (None, {}), "processes are left after the with blocks"


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")
def test_the_stop_button_ends_a_run_and_keeps_what_was_measured(kernel: KernelManager, mark: str, tmp_path: Path) -> None:
    long = """with sebs.connect("local") as local:
    local.run("010.sleep", size="test", load=sebs.Closed(concurrency=2, repetitions=400))"""
    reading = """result = sebs.Result.load(next(Path(os.environ["SEBS_OUTPUT_DIR"]).iterdir()))
print(result.manifest.state, len(result), result.summary().failures, result.summary().client_us.warm.p50)"""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in ("import os\nfrom pathlib import Path\nimport sebs_core as sebs",
                                                                LOOP_RUNS + long, reading)]
    )  # fmt: skip
    client = Client(notebook, km=kernel, timeout=60, resources={"metadata": {"path": str(tmp_path)}})
    during: dict[int, str] = {}
    stopped_at = 0.0

    def stop_when_rows_are_there(text: str) -> None:
        nonlocal stopped_at
        if " of 400" in text and not during:
            during.update(marked_processes(mark, but=kernel_pid(kernel)))
            stopped_at = time.monotonic()
            # In a thread of its own, because this one is inside the client's event loop.
            threading.Thread(target=kernel.interrupt_kernel).start()

    client.on_shown = stop_when_rows_are_there
    with client.setup_kernel():
        client.execute_cell(notebook.cells[0], 0)
        with pytest.raises(nbclient.exceptions.CellExecutionError) as failure:
            client.execute_cell(notebook.cells[1], 1)
        took = time.monotonic() - stopped_at
        left = marked_processes(mark, but=kernel_pid(kernel))
        client.execute_cell(notebook.cells[2], 2)
    assert failure.value.ename == "KeyboardInterrupt"
    assert any("sebs_local" in command for command in during.values()), f"the gateway was not found: {during}"
    assert any("handler.py" in command for command in during.values()), f"no instance was found: {during}"
    assert left == {}, "processes are left after the with block"
    assert took < 5
    state, rows, failures, median = printed(notebook.cells[2]).split()
    assert state == "interrupted"
    assert 10 <= int(rows) < 400
    assert int(failures) == 0
    assert float(median) > 100_000
