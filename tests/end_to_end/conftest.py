"""The command line as a user has it: a process of its own, its own cache, and a count of what it leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SEBS = [sys.executable, "-m", "sebs_core"]


@dataclass
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs ``sebs`` in a folder of its own and knows every process that came of it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.mark = uuid.uuid4().hex
        # Short, because the path of a Unix socket is.
        self.temporary = Path(tempfile.mkdtemp(prefix="st-"))
        self.environment = {
            **os.environ,
            "SEBS_CACHE_DIR": str(cache),
            "SEBS_STATE_DIR": str(folder / "state"),
            "SEBS_TEST_MARK": self.mark,
            "TMPDIR": str(self.temporary),
        }

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SEBS, *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: object, timeout: float = 60, **environment: str) -> Done:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=timeout)
        return Done(process.returncode, out, err)

    def benchmark(self, source: str, name: str = "900.mine", requirements: str = "", **config: Any) -> Path:
        """A benchmark's folder with this code."""
        folder = self.folder / name
        (folder / "python").mkdir(parents=True)
        values = {"timeout": 30, "memory": 128, "languages": ["python"], **config}
        (folder / "config.json").write_text(json.dumps(values))
        (folder / "input.py").write_text("SIZES = ('test',)\ndef generate_input(size):\n    return {'n': 1}\n")
        (folder / "python" / "function.py").write_text(source)
        (folder / "python" / "requirements.txt").write_text(requirements)
        return folder

    def left_behind(self, patience_s: float = 5) -> list[str]:
        """Command lines of processes that still live, and temporary files, after they had a moment to end."""
        deadline = time.monotonic() + patience_s
        while (left := [*self._processes(), *map(str, self.temporary.iterdir())]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _processes(self) -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and (self.mark.encode() in environment or str(self.cache) in line):
                found.append(f"{entry.name} {line}")
        return found


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def sebs(tmp_path, shared_cache):
    """The command line; afterwards nothing it started may be left."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("counts processes by /proc, which this system does not have")
    command = CommandLine(tmp_path, shared_cache)
    yield command
    left = command.left_behind()
    for line in left:
        if line[0].isdigit():
            os.kill(int(line.split()[0]), signal.SIGKILL)
    shutil.rmtree(command.temporary, ignore_errors=True)
    assert not left


@pytest.fixture(scope="session")
def packaged(shared_cache, tmp_path_factory):
    """110.dynamic-html is in the shared cache; skips where its dependencies cannot be had."""
    command = CommandLine(tmp_path_factory.mktemp("packaged"), shared_cache)
    done = command("benchmark", "package", "110.dynamic-html")
    if "index could not be reached" in done.err:
        pytest.skip("the dependencies of 110.dynamic-html need the package index, which cannot be reached")
    assert done.status == 0, done.err
