"""A small platform for tests. The function really runs: each instance is a Python process with the package's code.

`World` is the provider: it outlives sessions, counts what it is asked (`calls`), and holds what goes wrong on purpose
(`faults`). `plugin_of` makes a plugin module for a world; this module is itself a plugin, with a world of its own.

What it must not do is answer what the code wants to hear: envelopes come from `sebs_function.measured` in the instance.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

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
    MetricsError,
    Package,
    PlatformInfo,
    Resource,
    Runtime,
    Settings,
    Trigger,
    hookimpl,
)

HANDLER = Path(__file__).with_name("double_handler.py")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


class DoubleSettings(Settings):
    """Settings of the double's platform."""

    flavour: str = "plain"
    workers: int = 1
    token: SecretStr | None = None


class DoubleFunction(Function, tag="double"):
    """A function of the double, with a field that only its plugin knows."""

    serial: int = 0


class DoubleTrigger(Trigger, tag="double"):
    """A trigger of the double, with a field that only its plugin knows."""

    made_by: str = "double"


@dataclass
class Faults:
    """What goes wrong on purpose."""

    deploy: str = ""
    """Deploying fails with this message."""
    gone: str = ""
    """Refreshing says that the function is gone, for this reason."""
    warm_despite_enforcing: int = 0
    """So many enforced cold starts have no effect."""
    metrics: str = ""
    """``missing``: of every second request nothing is told; ``foreign``: another's are told; ``error``: refused."""
    remove: dict[str, Exception] = field(default_factory=dict)
    """Removing ``kind/name`` raises this."""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """Next HTTP answers (status, body), given by the front end without asking the function."""
    unreachable: bool = False
    """``sebs_invoke`` raises `InvokeError`."""
    interrupt_after: int = 0
    """The session is interrupted when so many requests have been answered."""


class World:
    """The provider behind the double."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.faults = Faults()
        self.deployed: dict[str, Deployed] = {}
        self.extra_resources: list[Resource] = []
        self.removed: list[str] = []
        self.requests: dict[str, dict[str, Any]] = {}
        """Request id → what the provider knows of it."""
        self.secrets_seen: list[dict[str, str]] = []
        self.folder = Path(tempfile.mkdtemp(prefix="double-"))
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self.on_answer: Any = None
        """Called after each answered request, in the thread of the server."""

    def count(self, call: str) -> int:
        """How often the platform was asked for this."""
        return self.calls.count(call)

    @property
    def url(self) -> str:
        """Where the front end listens; started on first need."""
        with self._lock:
            if self._server is None:
                self._server = _Server(self)
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def deploy(self, name: str, package: Package, environment: dict[str, str], timeout_s: float) -> Deployed:
        previous = self.deployed.get(name)
        folder = self.folder / f"{name}-{len(self.calls)}"
        with zipfile.ZipFile(package.path) as archive:
            archive.extractall(folder)
        made = Deployed(self, folder, environment, timeout_s, previous.serial + 1 if previous else 1)
        if previous is not None:
            made.generation = previous.generation
            previous.close()
        self.deployed[name] = made
        return made

    def invoke(self, name: str, event: bytes) -> tuple[int, bytes]:
        request_id = secrets.token_hex(8)
        begun = time.monotonic_ns()
        status, answer, log = self.deployed[name].invoke(event, request_id)
        duration_us = (time.monotonic_ns() - begun) // 1000
        self.requests[request_id] = {"duration_us": duration_us, "log": log, "function": name}
        return status, answer

    def answered(self) -> None:
        if self.on_answer is not None:
            self.on_answer()

    def close(self) -> None:
        """Stop everything."""
        for function in self.deployed.values():
            function.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        shutil.rmtree(self.folder, ignore_errors=True)


class Deployed:
    """A function on the provider: its code and its instances."""

    def __init__(self, world: World, folder: Path, environment: dict[str, str], timeout_s: float, serial: int) -> None:
        self.world, self.folder, self.environment, self.timeout_s = world, folder, environment, timeout_s
        self.serial = serial
        self.generation: str | None = None
        self.idle: list[Instance] = []
        self.all: list[Instance] = []
        self._lock = threading.Lock()

    def invoke(self, event: bytes, request_id: str) -> tuple[int, bytes, str]:
        with self._lock:
            instance = self.idle.pop() if self.idle else None
        if instance is None:
            instance = Instance(self)
            with self._lock:
                self.all.append(instance)
        answer = instance.call(event, request_id)
        log = instance.new_log()
        if answer is not None:
            with self._lock:
                if instance in self.all:
                    self.idle.append(instance)
            return 200, answer, log
        kind = "timeout" if instance.timed_out else "crash"
        error = {"kind": kind, "type": kind.capitalize(), "message": f"the instance ended with {instance.process.wait()}"}
        return 502, json.dumps({"sebs": 1, "request_id": request_id, "error": error}).encode(), log

    def renew(self) -> None:
        """A cold start: a new generation, and no instance of the old one."""
        self.close()
        self.generation = secrets.token_hex(4)

    def close(self) -> None:
        with self._lock:
            instances, self.all, self.idle = self.all, [], []
        for instance in instances:
            instance.close()


class Instance:
    """One process that runs the packaged function."""

    def __init__(self, function: Deployed) -> None:
        handle, path = tempfile.mkstemp(dir=function.folder.parent, suffix=".log")
        self._log = Path(path)
        self._log_read = 0
        self._timeout_s = function.timeout_s
        self.timed_out = False
        environment = {
            "PATH": os.environ.get("PATH", ""),
            **function.environment,
            "SEBS_GENERATION": function.generation or "",
            "SEBS_SPAWNED_NS": str(time.monotonic_ns()),
        }
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-B", "handler.py"],
                cwd=function.folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=handle,
            )
        finally:
            os.close(handle)

    def call(self, event: bytes, request_id: str) -> bytes | None:
        """The envelope; None when the process ended instead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(self._timeout_s, self._out_of_time)
        timer.daemon = True
        timer.start()
        try:
            self.process.stdin.write(json.dumps({"event": event.decode(), "request_id": request_id}).encode() + b"\n")
            self.process.stdin.flush()
            return self.process.stdout.readline() or None
        except OSError:
            return None
        finally:
            timer.cancel()

    def _out_of_time(self) -> None:
        self.timed_out = True
        self.process.kill()

    def new_log(self) -> str:
        text = self._log.read_bytes()[self._log_read :]
        self._log_read += len(text)
        return text.decode("utf-8", "replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, world: World) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                event = self.rfile.read(int(self.headers.get("content-length", 0)))
                if world.faults.answers:
                    status, body = world.faults.answers.pop(0)
                else:
                    status, body = world.invoke(self.path.lstrip("/"), event)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
                world.answered()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


class DoublePlatform:
    """The stages."""

    def __init__(self, world: World, settings: DoubleSettings, context: Any, name: str = "double") -> None:
        self.world, self.settings, self.context, self.name = world, settings, context, name

    @hookimpl
    def sebs_open(self):
        self.world.calls.append("open")

    @hookimpl
    def sebs_close(self):
        self.world.calls.append("close")

    @hookimpl
    def sebs_runtime(self):
        self.world.calls.append("runtime")
        return Runtime(files={"handler.py": HANDLER})

    @hookimpl
    def sebs_refresh(self, function):
        self.world.calls.append("refresh")
        there = self.world.deployed.get(function.name)
        if self.world.faults.gone or there is None:
            raise FunctionGoneError(self.world.faults.gone or f"{function.name} is not there any more")
        return function.model_copy(update={"generation": there.generation})

    @hookimpl
    def sebs_deploy(self, package, config, previous, environment, secrets):
        self.world.calls.append("deploy")
        if self.world.faults.deploy:
            raise DeployError(self.world.faults.deploy)
        self.world.secrets_seen.append(dict(secrets))
        made = self.world.deploy(config.function_name, package, {**environment, **secrets}, config.timeout_s)
        return DoubleFunction(
            tag="double",
            name=config.function_name,
            platform=self.name,
            benchmark=package.benchmark,
            package_digest=package.digest,
            config=config,
            triggers=previous.triggers if previous else (),
            generation=made.generation,
            provider_time_kind="sandbox",
            memory_kind="instance_peak",
            limits_enforced={"timeout": True, "memory": False},
            serial=made.serial,
        )

    @hookimpl
    def sebs_create_trigger(self, function, kind, asynchronous):
        self.world.calls.append("create_trigger")
        url = f"{self.world.url}/{function.name}" if kind == "http" else None
        return DoubleTrigger(tag="double", kind=kind, url=url, asynchronous=asynchronous)

    @hookimpl
    def sebs_invoke(self, function, payload):
        if self.world.faults.unreachable:
            raise InvokeError(f"{function.name} cannot be reached")
        _, body = self.world.invoke(function.name, payload)
        self.world.answered()
        told = sebs_core.fields_from_envelope(body)
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
            # Not fields of Invocation, which keeps what it does not know:
            generation=told.generation,
            instance_uptime_us=told.instance_uptime_us,
        )

    @hookimpl
    def sebs_enforce_cold_start(self, functions):
        self.world.calls.append("enforce_cold_start")
        renewed = []
        for function in functions:
            there = self.world.deployed[function.name]
            if self.world.faults.warm_despite_enforcing:
                self.world.faults.warm_despite_enforcing -= 1
                generation = secrets.token_hex(4)  # what is claimed; the instances know nothing of it
            else:
                there.renew()
                generation = there.generation
            renewed.append(function.model_copy(update={"generation": generation}))
        return renewed

    @hookimpl
    def sebs_collect_metrics(self, function, requests):
        self.world.calls.append("collect_metrics")
        fault = self.world.faults.metrics
        if fault == "error":
            raise MetricsError("the double does not keep its numbers that long")
        values, missing = {}, []
        for place, request in enumerate(requests):
            known = self.world.requests.get(request)
            if known is None or (fault == "missing" and place % 2):
                missing.append(request)
                continue
            values[request] = {"duration_us": known["duration_us"], "memory_mb": 20, "zone": "z1", "share": 0.5}
        if fault == "foreign":
            values["somebody-else"] = {"duration_us": 1}
        sources = {"duration_us": "measured", "memory_mb": "derived"}
        return Metrics(values=values, missing=tuple(missing), sources=sources, raw=({"asked": len(requests)},))

    @hookimpl
    def sebs_logs(self, request_id):
        if request_id not in self.world.requests:
            raise MetricsError(f"no log of {request_id}")
        return self.world.requests[request_id]["log"]

    @hookimpl
    def sebs_resources(self):
        self.world.calls.append("resources")
        functions = [Resource(kind="function", name=name, platform=self.name) for name in self.world.deployed]
        return [*functions, *self.world.extra_resources]

    @hookimpl
    def sebs_remove(self, resource):
        self.world.calls.append("remove")
        if resource.key in self.world.faults.remove:
            raise self.world.faults.remove[resource.key]
        self.world.removed.append(resource.key)
        there = self.world.deployed.pop(resource.name, None) if resource.kind == "function" else None
        if there is not None:
            there.close()
        self.world.extra_resources = [other for other in self.world.extra_resources if other.key != resource.key]
        return True


def capabilities(**changes: Any) -> Capabilities:
    """What the double can do, with changes."""
    given = {
        "languages": [LanguageSupport("python", versions=[PYTHON])],
        "triggers": ["http", "library"],
        "memory_mb": (64, 4096),
        "timeout_s": (0.05, 900),
        "cold_start": True,
    }
    return Capabilities(**{**given, **changes})


def info_of(world: World, name: str = "double", **changes: Any) -> PlatformInfo:
    """The platform as its plugin announces it."""
    return PlatformInfo(
        name=name,
        summary="a platform for tests",
        settings=DoubleSettings,
        capabilities=capabilities(**changes),
        create=lambda settings, context: DoublePlatform(world, settings, context, name),
        doctor=lambda settings: [("workers", settings.workers > 0, f"{settings.workers} workers")],
    )


def module_of(name: str = "double_module", **contents: Any) -> ModuleType:
    """A plugin module with these names in it."""
    module = ModuleType(name)
    for key, value in contents.items():
        setattr(module, key, value)
    return module


def plugin_of(world: World, name: str = "double", **changes: Any) -> ModuleType:
    """A plugin module that offers the double of this world."""

    @hookimpl
    def sebs_platforms():
        return [info_of(world, name, **changes)]

    return module_of(f"{name}_module", sebs_platforms=sebs_platforms)


class FakeEntryPoint:
    """What `importlib.metadata` gives for one line of entry points."""

    group = "sebs"

    def __init__(self, name: str, loads: Any, *, distribution: str | None = None, version: str = "1.0") -> None:
        self.name = name
        self.value = f"{name}_module"
        self.dist = SimpleNamespace(name=distribution or f"sebs-{name}", version=version)
        self._loads = loads

    def load(self) -> Any:
        """Import the plugin; an exception given instead of a module is raised."""
        if isinstance(self._loads, BaseException):
            raise self._loads
        return self._loads


@functools.cache
def _own_world() -> World:
    world = World()
    atexit.register(world.close)
    return world


@hookimpl
def sebs_platforms():
    """The double as an installed plugin, for tests that start another process."""
    return [info_of(_own_world())]
