"""A real gateway, real packages made by hand, real HTTP."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import shutil
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import sebs_core
from sebs_core.context import Context
from sebs_core.exchange import Fields, Response
from sebs_core.models import FunctionConfig, Package
from sebs_local.models import CAPABILITIES, LocalFunction, LocalSettings
from sebs_local.platform import SHIM, LocalPlatform

FUNCTION_SIDE = Path(sebs_core.__file__).parent / "function_side" / "python" / "sebs_function"
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
EPOCH = datetime.datetime.fromtimestamp(0, datetime.timezone.utc)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    fields: Fields
    seconds: float

    @property
    def output(self):
        return self.fields.output


class Local:
    """One session's platform, with short words for what tests do."""

    def __init__(self, folder: Path, **settings) -> None:
        self.folder = folder
        self.platform = LocalPlatform(LocalSettings(**settings), Context(resources_id="test"))
        self.platform.sebs_open()

    def package(self, code: str) -> Package:
        folder = self.folder / f"package-{len(list(self.folder.glob('package-*')))}"
        (folder / "function").mkdir(parents=True)
        (folder / "function" / "function.py").write_text(textwrap.dedent(code))
        shutil.copytree(FUNCTION_SIDE, folder / "sebs_function", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(SHIM, folder / "handler.py")
        return Package(
            benchmark="test",
            workload_version="1",
            digest=folder.name,
            inputs="",
            kind="folder",
            path=folder,
            size_bytes=1,
            memory_mb=256,
            timeout_s=10,
            language="python",
            language_version=OWN,
            language_variant="default",
            system_variant="package",
            architecture=CAPABILITIES.languages[0].architectures[0],
            entry_point="handler.py",
            created=EPOCH,
        )

    def deploy(
        self,
        code: str | Package,
        *,
        name="test",
        timeout_s=10.0,
        version=OWN,
        environment=None,
        secrets=None,
    ) -> LocalFunction:
        package = self.package(code) if isinstance(code, str) else code
        config = FunctionConfig(
            function_name=name,
            language="python",
            language_version=version,
            language_variant="default",
            system_variant="package",
            architecture=package.architecture,
            memory_mb=256,
            timeout_s=timeout_s,
        )
        function = self.platform.sebs_deploy(package, config, {"MARK": str(self.folder), **(environment or {})}, secrets or {})
        triggers = tuple(self.platform.sebs_create_trigger(function, kind, False) for kind in ("http", "library"))
        return function.model_copy(update={"triggers": triggers})

    def call(self, function: LocalFunction, event=None, kind="http") -> Answer:
        url = urlsplit(function.trigger(kind).url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        body = event if isinstance(event, bytes) else json.dumps(event)
        begun = time.monotonic()
        with contextlib.closing(connection):
            connection.request("POST", url.path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        seconds = time.monotonic() - begun
        headers = {name.lower(): value for name, value in answer.getheaders()}
        fields = self.platform.sebs_response(Response(answer.status, headers, body))
        return Answer(answer.status, headers, body, fields, seconds)

    def start(self, function: LocalFunction, event=None, kind="http"):
        """Begin a call; returns a function that waits for its answer."""
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.call(function, event, kind)))
        thread.start()

        def finish() -> Answer:
            thread.join(30)
            return answers[0]

        return finish

    def together(self, function: LocalFunction, events) -> list[Answer]:
        return [finish() for finish in [self.start(function, event) for event in events]]

    def numbers(self, function: LocalFunction, *answers: Answer):
        ids = [answer.headers["x-sebs-request-id"] for answer in answers]
        metrics = self.platform.sebs_collect_metrics(function, ids, (EPOCH, EPOCH))
        assert metrics.missing == ()
        return [metrics.values[request] for request in ids]

    def logs(self, function: LocalFunction, answer: Answer) -> str:
        return self.platform.sebs_logs(function, answer.headers["x-sebs-request-id"])

    def instances(self, name="test") -> list[dict]:
        return self.platform.gateway.ask("functions")["functions"][name]["instances"]

    def close(self) -> None:
        self.platform.sebs_close()


def marked(folder: Path) -> list[int]:
    """Processes that were started for functions of this folder, whoever is their parent by now."""
    mark = f"MARK={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def until(condition, seconds=5.0):
    """Wait until it is so; the last value otherwise."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return value


@pytest.fixture
def start(tmp_path):
    """Open platforms with settings; all are closed at the end, and nothing of them may be left."""
    opened = []

    def begin(**settings) -> Local:
        opened.append(Local(tmp_path, **settings))
        return opened[-1]

    yield begin
    for local in opened:
        local.close()
    if Path("/proc/self/status").exists():
        assert until(lambda: not marked(tmp_path))


@pytest.fixture
def local(start) -> Local:
    return start()


@pytest.fixture
def left(tmp_path):
    """Processes of functions that still run."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("looks for processes in /proc, which this system does not have")
    return lambda: marked(tmp_path)


@pytest.fixture
def wait_until():
    return until
