"""A platform whose provider is a directory on disk: processes share it, and one of them can be killed at any step.

`Cloud` is the provider. It is strict as providers are: what exists cannot be created, what does not exist cannot be changed,
nothing may refer to what is not there, and nothing goes while something else depends on it. Each call that writes appends one
line to ``calls.log``, each call that reads one to ``reads.log``. Before and after each effect there is a named step
(``role:before``, ``role:after``, …; all are in `STEPS`): the process kills itself at the one that ``die_at`` names.

The module is a plugin; `installed_in` makes it one for other processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import resource as limits
import secrets as random_secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import SecretStr

import sebs_core
from sebs_core import (
    Capabilities,
    DeployError,
    Function,
    FunctionGoneError,
    Invocation,
    InvokeError,
    LanguageSupport,
    Metrics,
    Package,
    PlatformInfo,
    Resource,
    Runtime,
    SebsError,
    Settings,
    Trigger,
    hookimpl,
)
from sebs_core.cache import Cache
from sebs_core.models import FunctionConfig, Inputs, StoredValues
from sebs_core.packaging.index import artefact_digest
from sebs_core.plugins import Plugins
from sebs_core.state import Ledger, State

HANDLER = Path(sebs_core.__file__).parent / "testing" / "fake_handler.py"
KINDS = ("role", "object", "function", "rule")
DEPLOY_STEPS = tuple(f"{what}:{when}" for what in ("role", "function", "code") for when in ("before", "after"))
STEPS = (
    *("package:before", "package:after", "object:before", "object:after"),
    *DEPLOY_STEPS,
    *("rule:before", "rule:after"),
    *(f"remove-{kind}:{when}" for kind in KINDS for when in ("before", "after")),
)


class CloudError(SebsError):
    """The provider refuses."""


class AlreadyThere(CloudError):
    """What is to be created exists."""


class NotThere(CloudError):
    """What is asked for, changed or referred to does not exist."""


class StillUsed(CloudError):
    """Something else depends on what is to be deleted."""


class Cloud:
    """One account on the provider. Calls take effect one after another and as a whole, whoever dies."""

    def __init__(self, folder: Path, account: str = "main") -> None:
        self.folder = folder / account
        for name in (*KINDS, "bytes", "code"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    # --- what tests look at -----------------------------------------------------------------------------------------------

    @property
    def calls(self) -> list[str]:
        """Every call that wrote, or tried to."""
        return self._lines("calls.log")

    @property
    def builds(self) -> int:
        """How often a package was made for this account."""
        return len(self._lines("builds.log"))

    def _lines(self, log: str) -> list[str]:
        path = self.folder / log
        return path.read_text().splitlines() if path.exists() else []

    @property
    def there(self) -> list[str]:
        """``kind/name`` of everything that exists."""
        return sorted(f"{kind}/{path.name}" for kind in KINDS for path in (self.folder / kind).iterdir())

    def peek(self, kind: str, name: str) -> dict[str, Any]:
        """The record of one thing, without a line in a log."""
        return json.loads((self.folder / kind / name).read_bytes())

    # --- the provider's interface -----------------------------------------------------------------------------------------

    def create(self, kind: str, name: str, **facts: Any) -> None:
        with self._call(f"create {kind}/{name}"):
            if self._exists(kind, name):
                raise AlreadyThere(f"{kind}/{name} exists already")
            self._store(kind, name, facts)

    def update(self, kind: str, name: str, **facts: Any) -> None:
        with self._call(f"update {kind}/{name}"):
            self._store(kind, name, {**self._stored(kind, name), **facts})

    def put_object(self, name: str, content: bytes, **facts: Any) -> None:
        with self._call(f"put object/{name}"):
            _write(self.folder / "bytes" / name, content)
            self._store("object", name, {"sha256": hashlib.sha256(content).hexdigest(), **facts})

    def put_code(self, function: str, object_name: str) -> None:
        """Let a function run the code that lies in an object, from now on."""
        with self._call(f"update code/{function}"):
            known, source = self._stored("function", function), self._stored("object", object_name)
            archive = self.folder / "bytes" / object_name
            if hashlib.sha256(archive.read_bytes()).hexdigest() != source["sha256"]:
                raise CloudError(f"object/{object_name} is damaged")
            folder = self.folder / "code" / function / random_secrets.token_hex(4)
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(folder)
            depends_on = [*(key for key in known["depends_on"] if not key.startswith("object/")), f"object/{object_name}"]
            changed = {"state": "active", "digest": source["digest"], "code": folder.name, "depends_on": depends_on}
            self._store("function", function, {**known, **changed})

    def delete(self, kind: str, name: str) -> bool:
        """False when it is not there."""
        with self._call(f"delete {kind}/{name}"):
            users = [key for key in self.there if f"{kind}/{name}" in self.peek(*key.split("/"))["depends_on"]]
            if users:
                raise StillUsed(f"{kind}/{name} is still used by {', '.join(users)}")
            if not self._exists(kind, name):
                return False
            (self.folder / kind / name).unlink()
            (self.folder / "bytes" / name).unlink(missing_ok=True)
            if kind == "function":
                shutil.rmtree(self.folder / "code" / name, ignore_errors=True)
            return True

    def get(self, kind: str, name: str) -> dict[str, Any]:
        with self._alone():
            self.log("reads.log", f"get {kind}/{name}")
            return self._stored(kind, name)

    def everything(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(kind, name, record) of all."""
        with self._alone():
            self.log("reads.log", "list")
            return [(key.split("/")[0], key.split("/")[1], self.peek(*key.split("/"))) for key in self.there]

    # --- within -----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _call(self, line: str):
        """One call that writes, told in the log also when it is refused."""
        with self._alone(), _a_disk_of_its_own():
            self.log("calls.log", line)
            yield

    @contextlib.contextmanager
    def _alone(self):
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def log(self, log: str, line: str) -> None:
        with _a_disk_of_its_own():
            descriptor = os.open(self.folder / log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(descriptor, f"{line}\n".encode())
            finally:
                os.close(descriptor)

    def _exists(self, kind: str, name: str) -> bool:
        return (self.folder / kind / name).exists()

    def _stored(self, kind: str, name: str) -> dict[str, Any]:
        if not self._exists(kind, name):
            raise NotThere(f"{kind}/{name} does not exist")
        return self.peek(kind, name)

    def _store(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        if not facts["resources_id"] or (kind != "function" and facts["resources_id"] not in name):
            raise CloudError(f"{kind}/{name} does not bear its resources id {facts['resources_id']!r}")
        for key in facts.setdefault("depends_on", []):
            if not self._exists(*key.split("/", 1)):
                raise NotThere(f"{kind}/{name} refers to {key}, which does not exist")
        _write(self.folder / kind / name, json.dumps(facts).encode())


def _write(path: Path, content: bytes) -> None:
    temporary = path.parent.parent / f".{random_secrets.token_hex(8)}"
    temporary.write_bytes(content)
    temporary.replace(path)


@contextlib.contextmanager
def _a_disk_of_its_own():
    """The disk of whoever calls may be full; that of the provider is not."""
    soft, hard = limits.getrlimit(limits.RLIMIT_FSIZE)
    limits.setrlimit(limits.RLIMIT_FSIZE, (hard, hard))
    try:
        yield
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, (soft, hard))


# --- the platform ---------------------------------------------------------------------------------------------------------


class FolderSettings(Settings):
    """Settings of the platform."""

    of_client: ClassVar[frozenset[str]] = frozenset({"cloud", "account", "die_at", "slow_s"})
    """A provider that was moved is the same one; and which account it is, `sebs_account` says."""

    cloud: Path
    account: str = "main"
    die_at: str = ""
    """The step at which the process kills itself; ``SEBS_TEST_DIE_AT`` says the same."""
    slow_s: float = 0
    """How long each writing call takes longer."""
    token: SecretStr | None = None


def at_step(step: str) -> None:
    """Called at every step. Tests put something else here."""


class FolderPlatform:
    """The stages."""

    def __init__(self, settings: FolderSettings, context: Any) -> None:
        assert settings.die_at in ("", *STEPS)
        self.settings, self.context = settings, context
        self.cloud = Cloud(settings.cloud, settings.account)
        self.durations: dict[str, int] = {}

    def _step(self, step: str) -> None:
        assert step in STEPS
        if step in (self.settings.die_at, os.environ.get("SEBS_TEST_DIE_AT")):
            os.kill(os.getpid(), signal.SIGKILL)
        at_step(step)

    @contextlib.contextmanager
    def _steps(self, what: str):
        self._step(f"{what}:before")
        if self.settings.slow_s:
            time.sleep(self.settings.slow_s)
        yield
        self._step(f"{what}:after")

    @hookimpl
    def sebs_account(self):
        return self.settings.account

    @hookimpl
    def sebs_runtime(self):
        return Runtime(files={"handler.py": HANDLER})

    @hookimpl(wrapper=True)
    def sebs_package(self, benchmark):
        self.cloud.log("builds.log", benchmark.name)
        with self._steps("package"):
            return (yield)

    @hookimpl
    def sebs_publish(self, package):
        own = self.context.resources_id
        name = f"{own}-{package.digest[:40]}"
        with self.context.resource("object", name), self._steps("object"):
            self.cloud.put_object(name, package.path.read_bytes(), digest=package.digest, resources_id=own)
        return package.model_copy(update={"uri": f"folder://{self.settings.account}/{name}"})

    @hookimpl
    def sebs_refresh(self, function):
        try:
            there = self.cloud.get("function", function.name)
        except NotThere as error:
            raise FunctionGoneError(str(error)) from error
        if there["state"] != "active":
            raise FunctionGoneError(f"{function.name} has no code yet")
        return function

    @hookimpl
    def sebs_deploy(self, package, config, previous, environment, secrets):
        name = config.function_name
        try:
            role = self._role()
            facts = {
                "config": config.model_dump(mode="json"),
                "environment": {**environment, **secrets},
                "resources_id": self.context.resources_id,
            }
            with self._steps("function"):
                if previous is None:
                    self._create_function(name, {**facts, "depends_on": [f"role/{role}"]})
                else:
                    self.cloud.update("function", name, **facts)
            if previous is None or previous.package_digest != package.digest:
                with self._steps("code"):
                    self.cloud.put_code(name, package.uri.rpartition("/")[2])
        except CloudError as error:
            raise DeployError(f"{name} was not deployed: {error}") from error
        return Function(
            name=name,
            platform="folder",
            benchmark=package.benchmark,
            package_digest=package.digest,
            config=config,
            triggers=previous.triggers if previous else (),
            provider_time_kind="sandbox",
        )

    def _role(self) -> str:
        name = f"sebs-{self.context.resources_id}-role"
        if self.context.find("role", name) is None:
            with self.context.resource("role", name), self._steps("role"), contextlib.suppress(AlreadyThere):
                self.cloud.create("role", name, resources_id=self.context.resources_id)
        return name

    def _create_function(self, name: str, facts: dict[str, Any]) -> None:
        try:
            self.cloud.create("function", name, state="pending", digest="", **facts)
        except AlreadyThere:  # whole or half, of a session that died
            kept = [key for key in self.cloud.get("function", name)["depends_on"] if key.startswith("object/")]
            self.cloud.update("function", name, **{**facts, "depends_on": [*facts["depends_on"], *kept]})

    @hookimpl
    def sebs_create_trigger(self, function, kind, asynchronous):
        own = self.context.resources_id
        name, target = f"sebs-{own}-{kind}-{function.name}", f"function/{function.name}"
        try:
            with self.context.resource("rule", name, [target]), self._steps("rule"), contextlib.suppress(AlreadyThere):
                self.cloud.create("rule", name, resources_id=own, depends_on=[target])
        except CloudError as error:
            raise DeployError(f"{function.name} got no {kind} trigger: {error}") from error
        url = f"http://127.0.0.1:9/{function.name}" if kind == "http" else None  # where nobody listens
        return Trigger(kind=kind, url=url, asynchronous=asynchronous)

    @hookimpl
    def sebs_invoke(self, function, payload):
        try:
            there = self.cloud.get("function", function.name)
        except NotThere as error:
            raise InvokeError(str(error)) from error
        request_id = random_secrets.token_hex(8)
        begun = time.monotonic_ns()
        told = sebs_core.fields_from_envelope(self._run(function, there, payload, request_id))
        self.durations[request_id] = (time.monotonic_ns() - begun) // 1000
        return Invocation(
            index=0,
            function=function.name,
            phase="",
            client_us=None,
            status=200,
            error=told.error,
            error_detail=told.error_detail,
            request_id=told.request_id,
            instance_id=told.instance_id,
            instance_sequence=told.instance_sequence,
            handler_us=told.handler_us,
            import_us=told.import_us,
            init_us=told.init_us,
            measurement=told.measurement,
            output=told.output,
        )

    def _run(self, function: Function, there: dict[str, Any], payload: bytes, request_id: str) -> bytes:
        if there["state"] != "active":
            raise InvokeError("the function has no code yet")
        ended = subprocess.run(
            [sys.executable, "-S", "-B", "handler.py"],
            cwd=self.cloud.folder / "code" / function.name / there["code"],
            env={"PATH": os.environ.get("PATH", ""), **there["environment"]},
            input=json.dumps({"event": payload.decode(), "request_id": request_id}).encode() + b"\n",
            capture_output=True,
            timeout=there["config"]["timeout_s"],
            check=False,
        )
        crash = {"kind": "crash", "type": "Crash", "message": f"the process ended with {ended.returncode}"}
        return ended.stdout or json.dumps({"sebs": 1, "request_id": request_id, "error": crash}).encode()

    @hookimpl
    def sebs_collect_metrics(self, requests):
        self.cloud.log("reads.log", "metrics")
        known = {request: {"duration_us": self.durations[request]} for request in requests if request in self.durations}
        missing = tuple(request for request in requests if request not in known)
        return Metrics(values=known, missing=missing, sources={"duration_us": "measured"})

    @hookimpl
    def sebs_logs(self, request_id):
        return ""

    @hookimpl
    def sebs_resources(self):
        # Of a rule only the ledger knows what it depends on, of a function only the provider.
        return [
            Resource(
                kind=kind,
                name=name,
                platform="folder",
                resources_id=facts["resources_id"],
                depends_on=() if kind == "rule" else facts["depends_on"],
            )
            for kind, name, facts in self.cloud.everything()
        ]

    @hookimpl
    def sebs_remove(self, resource):
        with self._steps(f"remove-{resource.kind}"):
            return self.cloud.delete(resource.kind, resource.name)


INFO = PlatformInfo(
    name="folder",
    summary="a provider that is a directory",
    settings=FolderSettings,
    capabilities=Capabilities(
        languages=[LanguageSupport("python", versions=[f"{sys.version_info[0]}.{sys.version_info[1]}"])],
        triggers=["http", "library"],
        memory_mb=(64, 4096),
        timeout_s=(0.05, 900),
        cold_start=False,
    ),
    create=FolderPlatform,
)


@hookimpl
def sebs_platforms():
    """The platform."""
    return [INFO]


def folder_plugins() -> Plugins:
    """The platform, and nothing else, installed in this process."""
    from double_platform import FakeEntryPoint  # with pytest in its train: not for processes that only want the platform

    return Plugins([FakeEntryPoint("folder", sys.modules[__name__])])


def installed_in(site: Path) -> dict[str, str]:
    """Make the platform an installed plugin; returns the environment variables of processes that shall have it."""
    info = site / "sebs_folder-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sebs-folder\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sebs]\nfolder = folder_platform\n")
    return {"PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parent)])}


# --- what tests of crashes and of many processes share --------------------------------------------------------------------


@dataclass
class Place:
    """A provider, a cache and a state, shared by all who work here."""

    folder: Path
    account: str = "main"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def cloud(self) -> Cloud:
        return Cloud(self.folder / "cloud", self.account)

    @property
    def ledger(self) -> Ledger:
        return State(self.state).ledger("folder", self.account)

    def open(self, **more: Any) -> sebs_core.Session:
        """A session on the provider."""
        given = {
            "cloud": self.folder / "cloud",
            "account": self.account,
            "cache_dir": self.cache,
            "state_dir": self.state,
            "output_dir": self.folder / "runs",
            "plugins": folder_plugins(),
        }
        return sebs_core.connect("folder", **{**given, **more})

    def problems(self) -> list[str]:
        """What must not be, whoever died when; also each lock that is held: ask when nobody works."""
        return [*self._unreadable(), *self._broken_packages(), *self._without_line(), *self._held()]

    def _unreadable(self) -> Iterator[str]:
        for path in (self.cache / "cache.sqlite", self.state / "state.sqlite"):
            if path.exists() and path.stat().st_size:
                with contextlib.closing(sqlite3.connect(path)) as connection:
                    told = connection.execute("PRAGMA integrity_check").fetchone()[0]
                    if told != "ok":
                        yield f"{path.name}: {told}"
        models = {"package": Package, "published": Package, "inputs": Inputs, "function": Function}
        for entry in Cache(self.cache).entries():
            try:
                models.get(entry.kind, StoredValues).model_validate_json(entry.record)
            except ValueError as error:
                yield f"{entry.key} cannot be read: {error}"
        self.ledger.lines()

    def _broken_packages(self) -> Iterator[str]:
        for package in Cache(self.cache).packages("folder"):
            path = self.cache / package.path
            if not path.exists() or artefact_digest(path) != package.artefact:
                yield f"{path} is not what its record says"
        for path in self.cache.glob("packages/*/*"):  # also those without a record: the next build may take them
            if not _is_whole_zip(path):
                yield f"{path} is no whole zip"

    def _without_line(self) -> Iterator[str]:
        lines = {line.resource.key: line.status for line in self.ledger.lines()}
        for key in self.cloud.there:
            if lines.get(key) not in ("intended", "exists", "removing"):
                yield f"{key} exists and its line says {lines.get(key)}"

    def _held(self) -> Iterator[str]:
        for path in (*self.cache.glob("locks/*"), *self.state.glob("locks/*")):
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield f"{path.name} is held: {path.read_text().strip()}"


def _is_whole_zip(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


def in_processes(*works: Callable[[], None], timeout_s: float = 60) -> list[int | None]:
    """Run each in a process of its own, all at once; returns how each ended (0 well, 1 exception, -9 killed).

    Forked, so that they start at once: call it while this process has no session open, whose locks they would inherit.
    """
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, daemon=True) for work in works]
    for process in processes:
        process.start()
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
    endings = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    return endings


# --- many small changes of cache and state --------------------------------------------------------------------------------


def mixed_operations(place: Place, number: int, count: int, done: Callable[[int], None] = lambda _: None) -> None:
    """What process `number` of several does: `count` operations, each write followed by a read of it; `done` is told each.

    Doing it again, or going on where somebody died, is no error.
    """
    cache, ledger = Cache(place.cache), place.ledger
    for step in range(count):
        turn, kind = divmod(step, 12)
        key = f"{number}-{turn}"
        if kind == 0:
            cache.keep_function(place.account, some_function(f"own-{key}"))
        elif kind == 1:
            assert cache.function("folder", place.account, f"own-{key}") == some_function(f"own-{key}")
        elif kind == 2:
            cache.keep_function(place.account, some_function(f"shared-{turn % 5}"))
        elif kind == 3:
            assert cache.function("folder", place.account, f"shared-{turn % 5}") == some_function(f"shared-{turn % 5}")
        elif kind == 4:
            cache.merge_data("storage", "folder", place.account, "a-benchmark", {"buckets": {str(number): {key: turn}}})
        elif kind == 5:
            assert cache.data("storage", "folder", place.account, "a-benchmark")["buckets"][str(number)][key] == turn
        elif kind == 6:
            with ledger.resource("table", key, "an-id", ["role/r"]):
                pass
        elif kind == 7:
            assert ledger.find("table", key).depends_on == ("role/r",)
        elif kind == 8:
            ledger.gone("table", key)
        elif kind == 9:
            assert ledger.line("table", key).status == "gone"
        elif kind == 10:
            ledger.keep_value("registry", str(number), key, value=turn)
        else:
            assert ledger.value("registry", str(number), key) == turn
        done(step)


def lost_operations(place: Place, number: int, count: int) -> list[str]:
    """Which of the first `count` operations of process `number` are not to be seen afterwards."""
    cache, ledger = Cache(place.cache), place.ledger
    functions = {function.name: function for function in cache.functions("folder", place.account)}
    buckets = (cache.data("storage", "folder", place.account, "a-benchmark") or {}).get("buckets", {}).get(str(number), {})
    registry = (ledger.value("registry") or {}).get(str(number), {})
    statuses = {line.resource.name: line.status for line in ledger.lines()}
    lost = []
    for step in range(count):
        turn, kind = divmod(step, 12)
        key, shared = f"{number}-{turn}", f"shared-{turn % 5}"
        seen = {
            0: functions.get(f"own-{key}") == some_function(f"own-{key}"),
            2: functions.get(shared) == some_function(shared),
            4: buckets.get(key) == turn,
            6: key in statuses,
            8: statuses.get(key) == "gone",
            10: registry.get(key) == turn,
        }
        if not seen.get(kind, True):
            lost.append(f"operation {step} ({key})")
    return lost


def some_function(name: str) -> Function:
    """A record, of nothing that exists."""
    config = FunctionConfig(
        language="python",
        language_version="3.12",
        language_variant="default",
        system_variant="package",
        architecture="x64",
        memory_mb=128,
        timeout_s=3,
        environment={"NAME": name},
    )
    return Function(name=name, platform="folder", benchmark="a-benchmark", package_digest="d", config=config)
