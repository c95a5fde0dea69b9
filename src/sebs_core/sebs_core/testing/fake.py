"""A platform for tests that needs no account: its provider lives in this process, and fails, waits and throttles when told to.

For authors of extensions, observers and benchmarks, and for core's own tests::

    with FakeProvider() as provider, connect("fake", plugins=provider.plugins()) as session:
        provider.fail("deploy", DeployError("the quota is used up"))
        provider.delays["cold_start"] = 0.5
        provider.concurrency = 2

Functions really run: an instance is a Python process with the package's code, and its envelope comes from
``sebs_function.measured``. What is scripted is what a provider adds; nothing answers what the caller wants to hear.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets as random_secrets
import shutil
import sys
import tempfile
import threading
import time
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, SecretStr

from sebs_core.errors import ConfigError, DeployError, FunctionGoneError, InvokeError, MetricsError
from sebs_core.exchange import fields_from_envelope
from sebs_core.hookspecs import hookimpl
from sebs_core.models import Function, Invocation, Metrics, Resource, Runtime, Trigger
from sebs_core.offers import Capabilities, LanguageSupport, PlatformInfo
from sebs_core.plugins import ENTRY_POINT_GROUP, Plugins
from sebs_core.settings import Settings
from sebs_core.testing.fake_serving import HANDLER, Deployed, FrontEnd, Served

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sebs_core.context import Context
    from sebs_core.models import FunctionConfig, Package

__all__ = ["FakeFunction", "FakePlatform", "FakeProvider", "FakeSettings"]

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
CAPABILITIES = Capabilities(
    [LanguageSupport("python", [PYTHON])], ["http", "library"], memory_mb=(64, 4096), timeout_s=(0.05, 900), cold_start=True
)


class FakeSettings(Settings):
    """Settings of the fake platform."""

    account: str = Field(default="main", pattern=r"^[a-z0-9-]+$")
    """Each account of a provider has functions and resources of its own."""
    token: SecretStr | None = None
    """Opens nothing; a secret that must be found nowhere."""


class FakeFunction(Function, tag="fake"):
    """A function of the fake platform."""

    serial: int
    """Counts the deployments of its name."""


class FakeProvider(contextlib.AbstractContextManager["FakeProvider"]):
    """What is behind the platform, and outlives its sessions; also the plugin that offers it. To be used from any thread."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """Everything that the platform was asked, in order: ``"open"``, ``"deploy my-function"``, ``"remove role/r"``, …"""
        self.delays: dict[str, float] = {}
        """Stage (``"deploy"``, ``"invoke"``, …) or ``"cold_start"`` → how many seconds it takes longer."""
        self.concurrency: int | None = None
        """More invocations of one function at once are throttled; None: any number is served."""
        self.warm_anyway = 0
        """So many enforced cold starts have no effect, although success is told."""
        self.late_collections, self.late_s = 0, 0.0
        """Metrics of invocations from now on are missing in so many collections, and for so many seconds."""
        self.numbers: dict[str, int | float | str] = {}
        """What metrics tell of each invocation beside its duration: freely invented."""
        self.functions: dict[str, Deployed] = {}
        """``account/name`` → what is deployed there."""
        self.others: dict[str, Resource] = {}
        """``account/kind/name`` → whatever else is there: roles, and what `put` was given."""
        self.removed: list[str] = []
        """``kind/name`` of what was there and was removed, in order."""
        self.served: dict[str, Served] = {}
        """Request id → what is known of it."""
        self.folder = Path(tempfile.mkdtemp(prefix="fake-"))
        self._faults: list[Any] = []
        self._serials: dict[str, int] = {}
        self._lock = threading.RLock()
        self._server: FrontEnd | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    @hookimpl
    def sebs_platforms(self) -> list[PlatformInfo]:
        """The platform ``fake``."""
        return [self.info()]

    def info(self, name: str = "fake", settings: type[FakeSettings] = FakeSettings, **changes: Any) -> PlatformInfo:
        """The platform as a plugin announces it; `changes` are of its `Capabilities`."""
        capabilities = dataclasses.replace(CAPABILITIES, **changes)
        return PlatformInfo(
            name, "a platform for tests", settings, capabilities, lambda made, context: FakePlatform(self, made, context, name)
        )

    def plugins(self) -> Plugins:
        """All plugins that are installed, and this one: for ``connect("fake", plugins=…)``."""
        dist = SimpleNamespace(name="sebs-core", version=metadata.version("sebs-core"))
        own = SimpleNamespace(name="fake", value=__name__, dist=dist, load=lambda: self)
        return Plugins([*metadata.entry_points(group=ENTRY_POINT_GROUP), cast("metadata.EntryPoint", own)])

    def fail(self, what: str, error: BaseException, *, call: int = 1, times: int = 1, after: bool = False) -> None:
        """Let a stage (``"deploy"``), or a stage with one thing (``"remove role/r"``), raise `error`.

        `call` is the first that fails, 1 the next one; `times` says how many fail; `after` lets them have their effect first.
        A failing ``"invoke"`` breaks its connection; over one that was used before, core sends once more.
        """
        with self._lock:
            self._faults.append(SimpleNamespace(what=what, error=error, skip=call - 1, times=times, after=after))

    @contextlib.contextmanager
    def call(self, stage: str, subject: str = "") -> Iterator[None]:
        """One call of the platform: written down, as slow as told, failing as told."""
        line = f"{stage} {subject}".rstrip()
        with self._lock:
            self.calls.append(line)
            fault = self._next_fault(stage, line)
        time.sleep(self.delays.get(stage, 0))
        if fault and not fault.after:
            raise fault.error
        yield
        if fault:
            raise fault.error

    def _next_fault(self, *what: str) -> Any:
        found = None
        for fault in self._faults:
            if fault.what in what and fault.skip:
                fault.skip -= 1
            elif fault.what in what and fault.times and found is None:
                fault.times, found = fault.times - 1, fault
        return found

    def count(self, stage: str) -> int:
        """How often the platform was asked for this stage."""
        return sum(call.split()[0] == stage for call in list(self.calls))

    def put(self, *resources: Resource, account: str = "main") -> None:
        """Let these exist, whoever made them."""
        with self._lock:
            self.others.update({f"{account}/{resource.key}": resource for resource in resources})

    def listed(self, account: str) -> list[Resource]:
        """Everything in an account."""
        with self._lock:
            there = [*((key, function.resource) for key, function in self.functions.items()), *self.others.items()]
            return [resource for key, resource in there if key.startswith(f"{account}/")]

    def remove(self, account: str, resource: Resource) -> bool:
        """False when it is not there. A role of functions stays."""
        with self._lock:
            users = [one.key for one in self.listed(account) if one.kind == "function" and resource.key in one.depends_on]
            if users:
                raise DeployError(f"{resource.key} is still needed by {', '.join(users)}: remove that first")
            function = self.functions.pop(f"{account}/{resource.name}", None) if resource.kind == "function" else None
            if function is None and self.others.pop(f"{account}/{resource.key}", None) is None:
                return False
            self.removed.append(resource.key)
        if function:
            function.close()
        return True

    def deploy(
        self, key: str, package: Package, config: FunctionConfig, environment: dict[str, str], secret: bool, resource: Resource
    ) -> Deployed:
        """Make the function ``account/name``, or replace it; what it answers from now on is of this package."""
        folder = self.folder / random_secrets.token_hex(8)
        if package.path.is_dir():
            shutil.copytree(package.path, folder)
        else:
            with zipfile.ZipFile(package.path) as archive:
                archive.extractall(folder)
        made = Deployed(self, folder, config, package.digest, environment, secret, resource)
        with self._lock:
            made.serial = self._serials[key] = self._serials.get(key, 0) + 1
            previous = self.functions.get(key)
            made.generation = previous.generation if previous else None
            self.functions[key] = made
        if previous is not None:
            previous.close()
        return made

    def invoke(self, key: str, event: bytes) -> tuple[int, bytes]:
        """Status and body of the answer of the function ``account/name`` to a JSON text."""
        with self.call("invoke", key.partition("/")[2]):
            function = self.functions.get(key)
            if function is None:
                return 404, f"there is no function {key}".encode()
            request_id, begun_ns = random_secrets.token_hex(8), time.monotonic_ns()
            status, answer, log = function.invoke(event, request_id)
            duration_us = (time.monotonic_ns() - begun_ns) // 1000
            if status != 429:
                due = time.monotonic() + self.late_s
                self.served[request_id] = Served(key, duration_us, log, self.late_collections, due)
            return status, answer

    def collect(self, key: str, request_id: str) -> dict[str, int | float | str | None] | None:
        """The numbers of one invocation; None while nothing is told."""
        with self._lock:
            known = self.served.get(request_id)
            if known is None or known.function != key:
                return None
            known.late -= 1
            told = known.late < 0 and time.monotonic() >= known.due
            return {"duration_us": known.duration_us, **self.numbers} if told else None

    @property
    def url(self) -> str:
        """Where the front end listens; started on first need."""
        with self._lock:
            if self._server is None:
                self._server = FrontEnd(self)
            return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop everything."""
        with self._lock:
            functions, server, self._server = [*self.functions.values()], self._server, None
        for function in functions:
            function.close()
        if server is not None:
            server.shutdown()
            server.server_close()
        shutil.rmtree(self.folder, ignore_errors=True)


class FakePlatform:
    """The stages."""

    def __init__(self, provider: FakeProvider, settings: FakeSettings, context: Context, name: str = "fake") -> None:
        self.provider, self.settings, self.context, self.name = provider, settings, context, name

    @hookimpl
    def sebs_open(self) -> None:
        """Nothing is to be started."""
        with self.provider.call("open"):
            pass

    @hookimpl
    def sebs_close(self) -> None:
        """The provider goes on."""
        with self.provider.call("close"):
            pass

    @hookimpl
    def sebs_account(self) -> str:
        """As the settings say."""
        with self.provider.call("account"):
            return self.settings.account

    @hookimpl
    def sebs_runtime(self) -> Runtime:
        """Our shim."""
        with self.provider.call("runtime"):
            return Runtime(files={"handler.py": HANDLER})

    @hookimpl
    def sebs_refresh(self, function: Function) -> Function:
        """The function as the provider has it, whoever deployed it."""
        with self.provider.call("refresh", function.name):
            there = self._there(function)
            update = {name: getattr(there, name) for name in ("config", "package_digest", "serial", "generation")}
            if there.serial != getattr(function, "serial", None):  # with whose secrets is not known
                update["secrets_hash"] = "of another deployment" if there.secret else None
            return function.model_copy(update=update)

    @hookimpl
    def sebs_deploy(
        self,
        package: Package,
        config: FunctionConfig,
        previous: Function | None,
        environment: dict[str, str],
        secrets: dict[str, str],
    ) -> Function:
        """Make the function and its role, or replace what is there."""
        name, own = config.function_name, self.context.resources_id
        with self.provider.call("deploy", name):
            role = self._role(own)
            resource = Resource(kind="function", name=name, platform=self.name, resources_id=own, depends_on=role)
            given = {**environment, **secrets}
            try:
                made = self.provider.deploy(self._key(name), package, config, given, bool(secrets), resource)
            except (OSError, zipfile.BadZipFile) as error:
                raise DeployError(f"the package of {name} cannot be read: {error}. Package it again.") from error
            return FakeFunction(
                name=name,
                platform=self.name,
                benchmark=package.benchmark,
                package_digest=package.digest,
                config=config,
                triggers=previous.triggers if previous else (),
                generation=made.generation,
                provider_time_kind="sandbox",
                limits_enforced={"timeout": True, "memory": False},
                serial=made.serial,
            )

    @hookimpl
    def sebs_create_trigger(self, function: Function, kind: str, asynchronous: bool) -> Trigger:
        """Each function has both already."""
        with self.provider.call("create_trigger", function.name):
            self._there(function)
            if kind not in CAPABILITIES.triggers or asynchronous:
                raise ConfigError(f"{self.name} has the triggers http and library, both synchronous: no other {kind}")
            return Trigger(kind=kind, url=f"{self.provider.url}/{self._key(function.name)}" if kind == "http" else None)

    @hookimpl
    def sebs_invoke(self, function: Function, payload: bytes) -> Invocation:
        """The trigger ``library``."""
        status, body = self.provider.invoke(self._key(function.name), payload)
        if status == 404:
            raise InvokeError(f"{function.name} cannot be reached: {body.decode()}. Deploy it again.")
        told = fields_from_envelope(body).but(status=status)
        if status == 429:
            told = told.but(error="throttled", error_detail=body.decode())
        return Invocation(index=0, function=function.name, phase="", client_us=None, **vars(told))

    @hookimpl
    def sebs_enforce_cold_start(self, functions: Sequence[Function]) -> list[Function]:
        """No instance of before is used again."""
        with self.provider.call("enforce_cold_start", " ".join(function.name for function in functions)):
            return [function.model_copy(update={"generation": self._renewed(function)}) for function in functions]

    def _renewed(self, function: Function) -> str:
        there = self._there(function)
        if self.provider.warm_anyway <= 0:
            return there.renew()
        self.provider.warm_anyway -= 1
        return random_secrets.token_hex(4)  # what is claimed; the instances know nothing of it

    @hookimpl
    def sebs_collect_metrics(self, function: Function, requests: Sequence[str]) -> Metrics:
        """What the front end measured, when it is told."""
        with self.provider.call("collect_metrics", function.name):
            told = {request: self.provider.collect(self._key(function.name), request) for request in dict.fromkeys(requests)}
            return Metrics(
                values={request: values for request, values in told.items() if values},
                missing=tuple(request for request, values in told.items() if not values),
                sources={"duration_us": "measured", **dict.fromkeys(self.provider.numbers, "derived")},
            )

    @hookimpl
    def sebs_logs(self, request_id: str) -> str:
        """What was printed."""
        with self.provider.call("logs", request_id):
            if request_id not in self.provider.served:
                raise MetricsError(f"there is no log of {request_id}: the provider served no such request")
            return self.provider.served[request_id].log

    @hookimpl
    def sebs_resources(self) -> list[Resource]:
        """All of this account, of whichever resources id."""
        with self.provider.call("resources"):
            return self.provider.listed(self.settings.account)

    @hookimpl
    def sebs_remove(self, resource: Resource) -> bool:
        """Remove it from this account."""
        with self.provider.call("remove", resource.key):
            return self.provider.remove(self.settings.account, resource)

    def _key(self, name: str) -> str:
        return f"{self.settings.account}/{name}"

    def _there(self, function: Function) -> Deployed:
        there = self.provider.functions.get(self._key(function.name))
        if there is None:
            raise FunctionGoneError(f"{function.name} is not there any more")
        return there

    def _role(self, own: str) -> tuple[str, ...]:
        """The role of all functions of our resources id."""
        if not self.context.lasting:  # nothing is written down of what ends with the session
            return ()
        role = Resource(kind="role", name=f"sebs-{own}-role", platform=self.name, resources_id=own)
        with self.context.resource(role.kind, role.name):
            self.provider.put(role, account=self.settings.account)
        return (role.key,)
