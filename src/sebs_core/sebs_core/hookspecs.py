"""The hooks: all that a plugin can implement, and the only way in which core calls a plugin.

Two kinds. **Discovery** hooks are collected from every installed plugin (entry-point group ``sebs``) and must not import an
SDK. **Stages** are methods of the one object that a platform's ``create(settings, context)`` returns; they are registered,
beside core's own answers, in a plugin manager of that session. At module level a plugin may only *wrap* a stage
(``@hookimpl(wrapper=True)``); to replace one, it offers an `Extension`, which the user chooses.

Every implementation carries ``@sebs_core.hookimpl`` and takes those of the arguments that it needs, without defaults. A stage
never answers ``None``: in these hooks ``None`` means *not mine*, and the next implementation is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sebs_core.benchmark import Benchmark
    from sebs_core.events import Event
    from sebs_core.exchange import Fields, Request, Response, Sink
    from sebs_core.load import Plan
    from sebs_core.models import (
        EngineReport,
        Function,
        FunctionConfig,
        Invocation,
        Metrics,
        Package,
        Resource,
        Runtime,
        Trigger,
    )
    from sebs_core.offers import Extension, Language, PlatformInfo

__all__ = ["DiscoveryHooks", "StageHooks", "hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("sebs")
hookimpl = pluggy.HookimplMarker("sebs")
"""Marks an implementation of a hook; a ``sebs_*`` callable without it is refused when it is registered."""


class DiscoveryHooks(Protocol):
    """What is there. Collected from every plugin; a plugin answers what it offers."""

    @hookspec
    def sebs_platforms(self) -> Iterable[PlatformInfo]:
        """Platforms that this plugin brings. Asked whenever a platform is looked for; imports no SDK.

        Example::

            @hookimpl
            def sebs_platforms():
                yield PlatformInfo(name="mine", summary="…", settings=MySettings, capabilities=…, create=create)
        """
        ...

    @hookspec
    def sebs_benchmarks(self) -> Iterable[Path]:
        """Folders whose subfolders are benchmarks (docs/writing-a-benchmark.md). Asked when a session opens, and for lists.

        Example::

            @hookimpl
            def sebs_benchmarks():
                yield Path(__file__).parent
        """
        ...

    @hookspec
    def sebs_languages(self) -> Iterable[Language]:
        """Languages that this plugin can build packages for. Asked when a package is wanted. Built in: Python.

        Two plugins that offer the same name are an error: installing one must not change how packages are built.
        """
        ...

    @hookspec
    def sebs_extensions(self) -> Iterable[Extension]:
        """Replacements of stages, active only when the user names them. Asked when a session opens.

        Example::

            @hookimpl
            def sebs_extensions():
                yield Extension(name="mine", summary="…", create=MyStages)
        """
        ...

    @hookspec
    def sebs_commands(self, cli: Any) -> None:
        """Add commands to the command line; `cli` is the root ``click.Group``. Asked once, at each start of ``sebs``: be quick.

        A plugin that raises is left out with a warning.

        Example::

            @hookimpl
            def sebs_commands(cli):
                cli.add_command(my_command)
        """

    @hookspec
    def sebs_event(self, event: Event) -> None:
        """Observe what a session does. Called after each step, from the thread that called the session.

        Between timed sections only; an observer that raises is reported once and not asked again in that session. Pass over
        kinds of events that you do not know: there will be more.

        Example::

            @hookimpl
            def sebs_event(event):
                if isinstance(event, StageFinished):
                    print(event.stage, event.subject, event.seconds)
        """


class StageHooks(Protocol):
    """How one platform does its work, in the order in which the stages are called."""

    @hookspec
    def sebs_open(self) -> None:
        """Get ready: start what must run, check the identity. Called once, before any other stage; all are called.

        Raises `CredentialsError` when the provider refuses the identity, `DeployError` when the platform cannot be reached.
        """

    @hookspec
    def sebs_close(self) -> None:
        """Release what `sebs_open` and the stages took. Called once, also after errors and interrupts; all are called."""

    @hookspec(firstresult=True)
    def sebs_account(self) -> str:
        """In which account, and in which region of it, this session works: ``"123456789012/eu-central-1"``. Read-only.

        What is remembered of one is never applied to another, so the text must differ wherever names may mean different
        things. It is stored; it is no secret. Asked once per session, when it is first needed. Raises `CredentialsError`.

        Needed of every platform whose resources outlive the session (`Context.lasting`).
        """
        ...

    @hookspec(firstresult=True)
    def sebs_runtime(self, benchmark: Benchmark, config: FunctionConfig) -> Runtime:
        """Shim files, the shim's requirements, target and entry point for this benchmark. Enters the inputs digest.

        Asked for every package that is wanted, also for one that is then reused: quick, and the same each time.
        Raises `ConfigError` when this machine or account cannot run the language version.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_package(self, benchmark: Benchmark, config: FunctionConfig, folder: Path) -> Package:
        """Make the package from the built `folder`. Pure: the same input gives the same digest.

        Called only when something must be built. What is made lies beside the folder, or is the folder: of it only the
        package's ``path`` is kept. ``sebs_core.packaging.package_of`` makes the record. Raises `PackagingError`.

        Built in: a deterministic zip beside the folder.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_publish(self, package: Package) -> Package:
        """Bring to the provider what must be there before a function can be made; returns the package with its ``uri``.

        Called again whenever it is not known that the package is published: publishing what is there must be no error.
        What was returned with a ``uri`` is remembered, and not published again until resources were cleaned up.
        Raises `DeployError`.

        Built in: the package as it is.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_refresh(self, function: Function) -> Function:
        """The function as it is now on the platform. Read-only. Called before a function that is known is used or updated.

        Raises `FunctionGoneError`, with the reason, when it cannot be used any more.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_deploy(
        self,
        package: Package,
        config: FunctionConfig,
        previous: Function | None,
        environment: dict[str, str],
        secrets: dict[str, str],
    ) -> Function:
        """Create the function, or update what differs from `previous`; returns when it can be invoked.

        Without `previous` nothing is known of a function of this name, and yet it may be there, whole or half: from a session
        that was interrupted, or whose cache was cleared. It is then made what is asked for in every respect. Whatever is
        made goes through ``context.resource``; of the function itself core does that.

        `environment` and `secrets` both become environment variables of the function; secrets are never stored.
        Raises `DeployError`.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_create_trigger(self, function: Function, kind: str, asynchronous: bool) -> Trigger:
        """A way to reach the function: ``"http"`` or ``"library"`` (the provider's own invocation interface).

        Called when no trigger of this kind is known. What is there already is taken, or made anew: that must be no error.
        Raises `ConfigError` for a kind that the platform does not have, `DeployError` when it could not be made.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_request(self, function: Function, trigger: Trigger, payload: bytes) -> Request:
        """The HTTP request, signed if need be, that invokes the function with this JSON text.

        Called once per load, before it; the same request is sent again and again. A signature must hold that long, and
        says how long in ``valid_until``.

        Built in: a POST to the trigger's url. A trigger without url that nobody answers for is invoked by `sebs_invoke`.

        Example::

            @hookimpl
            def sebs_request(self, trigger, payload):
                headers = (("content-type", "application/json"), ("authorization", self.signature(payload)))
                return Request("POST", trigger.url, headers, payload)
        """
        ...

    @hookspec(firstresult=True)
    def sebs_response(self, function: Function, trigger: Trigger, response: Response) -> Fields:
        """What the response tells. Called for each one, between timed sections. Never raises: what is wrong stands in `Fields`.

        Built in: SeBS' envelope, and the meaning of HTTP statuses.

        Example::

            @hookimpl
            def sebs_response(self, response):
                fields = fields_from_envelope(response.body)
                return fields.but(request_id=response.headers.get("x-request-id"))
        """
        ...

    @hookspec(firstresult=True)
    def sebs_invoke(self, function: Function, trigger: Trigger, payload: bytes) -> Invocation:
        """Invoke where no HTTP request can. Called from threads, and timed. A failing function is a record, never an exception.

        Core fills ``index``, ``phase`` and the client's times itself; raise `InvokeError` when the function cannot be reached.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_run_load(self, plan: Plan, sink: Sink) -> EngineReport:
        """Send a whole load; one `Exchange` goes to the sink for every send that ended, well or not.

        On an interrupt: stop sending, tell the sink how many sends nobody waits for (``abandon``), flush it, and let
        ``KeyboardInterrupt`` rise. Built in: the engine.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_enforce_cold_start(self, functions: Sequence[Function]) -> list[Function]:
        """Make the next invocation of each function start a new instance; its shim echoes a new generation.

        Called before each batch of a cold run, if the platform's capabilities have ``cold_start``. Returns when it is so, the
        functions as they are now, in the same order. Raises `DeployError`.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_collect_metrics(
        self, function: Function, requests: Sequence[str], window: tuple[datetime.datetime, datetime.datetime]
    ) -> Metrics:
        """The platform's own numbers about these request ids, sent within this window (UTC). Read-only, repeatable.

        Called after a load, or later from another session. Columns have their units in their names (``duration_us``,
        ``memory_mb``: docs/measurement.md). A request of which nothing is known is listed as ``missing``: that is no error.
        Raises `MetricsError` when nothing can be had.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_logs(self, function: Function, request_id: str) -> str:
        """What the function printed during this invocation; an empty text when it printed nothing.

        Called by ``session.logs``, and by the command line when an invocation failed.
        Raises `MetricsError` when the platform does not have it (any more).
        """
        ...

    @hookspec
    def sebs_resources(self) -> Iterable[Resource]:
        """Everything that sebs made in this account, found there by tag, label or prefix. Read-only; all are asked.

        Each with the ``resources_id`` it belongs to, also those of others: the ids that exist are found so, and a session
        touches only its own. Therefore this stage cannot need ``context.resources_id`` itself.
        """
        ...

    @hookspec(firstresult=True)
    def sebs_remove(self, resource: Resource) -> bool:
        """Remove one resource; True if it was there. Removing what is gone is no error.

        Called by clean-up, dependents first; returns when it is gone. Raises when it could not be removed, whatever the SDK
        raises: the others are removed all the same, and this one is tried again by the next clean-up.
        """
        ...
