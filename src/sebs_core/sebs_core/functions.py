"""The function of a package: reused as it is, brought up to date, or made; with the reason.

The order of writing keeps the cache from ever saying more than is true: what is known of a function is forgotten before it is
changed, and known again once the change is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets as random_secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sebs_core.confidential import keyed_hash
from sebs_core.errors import ConfigError, FunctionGoneError
from sebs_core.models import Function, FunctionConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sebs_core.models import Package, Trigger
    from sebs_core.session import Session
    from sebs_core.state import Line

__all__ = ["Functions"]

LONGEST_NAME = 63
"""Of a function: what the strictest providers take."""


class Functions:
    """The functions of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: dict[str, Function] = {}
        """Of a platform that takes all with it when the session ends."""
        self._held: set[str] = set()
        """Functions that this session has alone right now."""
        self._own_key = random_secrets.token_bytes(32)
        self._made: set[str] = set()
        """What this session deployed: it knows that also where cached functions are ignored."""

    def default_name(self, package: Package) -> str:
        """Made of resources id, benchmark and variants, so that neither two users nor two variants meet."""
        parts = ["sebs", self._session.resources_id, package.benchmark, package.workload_version]
        parts += [package.language, package.language_version]
        variants = (package.language_variant, package.system_variant, package.architecture)
        parts += [variant for variant in variants if variant != "default"]
        name = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(parts))
        if len(name) > LONGEST_NAME or not package.benchmark.isascii():
            name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"
        return name

    def deploy(self, package: Package, config: FunctionConfig, secrets: Mapping[str, str], *, rebuild: bool) -> Function:
        """The function, as it is if nothing differs. Of several sessions that want the same one deploys, the others wait."""
        session, name = self._session, config.function_name
        for key, value in secrets.items():
            session.confidential.add(f"the secret {key}", value)
        with session.stage("deploy", name) as note:
            hash_key = session.state.key() if secrets and session.lasting else self._own_key
            wanted = Wanted(
                package=package,
                config=config,
                secrets_hash=keyed_hash(hash_key, name, secrets),
                settings=session.function_settings(),
                deployed_by=session.stages.involved("sebs_deploy"),
                rebuild=rebuild,
            )
            note.reused = True
            with self._shared(name):
                function, note.reason = self._known(wanted)
            if function is None or note.reason:
                with self._alone(name, f"deploying {name}"):
                    function, note.reason = self._known(wanted)
                    if function is None or note.reason:
                        note.reused = False
                        function = self._deploy(wanted, function, secrets)
        session.generations[name] = function.generation
        return function

    @contextmanager
    def deployed(
        self, package: Package, config: FunctionConfig, secrets: Mapping[str, str], *, rebuild: bool
    ) -> Iterator[Function]:
        """The same, and until the block ends no other session changes it or measures it: both would disturb the numbers."""
        with self.held([config.function_name], "measuring"):
            yield self.deploy(package, config, secrets, rebuild=rebuild)

    @contextmanager
    def held(self, names: Iterable[str], doing: str) -> Iterator[None]:
        """Have functions alone; within the block this session takes their locks for granted."""
        new = sorted(set(names) - self._held)
        with contextlib.ExitStack() as stack:
            for name in new:
                stack.enter_context(self._alone(name, f"{doing} {name}"))
                self._held.add(name)
                stack.callback(self._held.discard, name)
            yield

    def trigger(self, function: Function, kind: str) -> Trigger:
        """The function's trigger of this kind, made if need be."""
        known = function.trigger(kind) or self._kept_trigger(function, kind)
        if known is not None:
            return known
        name = function.name
        with self._shared(name), self._alone(name, f"making a trigger of {name}", lock="trigger"):
            known = self._kept_trigger(function, kind)
            if known is not None:
                return known
            with self._session.inventory.making(f"making a trigger of {name}"):
                made: Trigger = self._session.stages.call(
                    "sebs_create_trigger", function=function, kind=kind, asynchronous=False
                )
                kept = self._get(name)
                if kept is not None and kept.deployment == function.deployment:
                    self._keep(kept.model_copy(update={"triggers": (*kept.triggers, made)}))
        return made

    @property
    def measuring(self) -> bool:
        """Whether this session holds functions right now."""
        return bool(self._held)

    def forget(self, name: str) -> None:
        """Know nothing of a function any more."""
        self._own.pop(name, None)
        if self._session.lasting:
            self._session.cache.forget_function(self._session.platform, self._session.account, name)

    # --- within -----------------------------------------------------------------------------------------------------------

    def _known(self, wanted: Wanted) -> tuple[Function | None, str]:
        """The function as it is on the platform, if it is known and there; and why it must be deployed (again), if it must."""
        name = wanted.config.function_name
        known = self._get(name)
        if known is None and not self._session.lasting:
            return None, ""  # as in every session
        if known is None:
            ignored = "functions" in self._session.cache.ignore
            return None, "cached functions are ignored" if ignored else "it is not known to be deployed"
        if not self._is_current(known):
            return None, "another session, or one with another cache, has changed it since"
        try:
            known = self._session.stages.call("sebs_refresh", function=known)
        except FunctionGoneError as error:
            return None, str(error)
        return known, wanted.difference(known)

    def _is_current(self, function: Function) -> bool:
        """Whether nobody has changed the function since this record of it: the ledger knows, whoever's cache it is in."""
        if not self._session.lasting:
            return True
        line = self._line(function.name)
        return line is not None and line.status == "exists" and getattr(line.resource, "deployment", "") == function.deployment

    def _line(self, name: str) -> Line | None:
        line = self._session.ledger.line("function", name)
        own = self._session.resources_id
        if line is not None and line.status != "gone" and line.resource.resources_id not in ("", own):
            raise ConfigError(
                f"the function {name} belongs to the resources id {line.resource.resources_id}, this session is of {own}: "
                "choose another --function-name, or that --resources-id"
            )
        return line

    def _deploy(self, wanted: Wanted, previous: Function | None, secrets: Mapping[str, str]) -> Function:
        session, config, name = self._session, wanted.config, wanted.config.function_name
        deployment = random_secrets.token_hex(8)
        with contextlib.ExitStack() as stack:
            if session.lasting:
                self._line(name)
                stack.enter_context(session.inventory.making(f"deploying {name}"))
                stack.enter_context(session.ledger.resource("function", name, session.resources_id, deployment=deployment))
            self.forget(name)
            function: Function = session.stages.call(
                "sebs_deploy",
                package=session.packages.published(wanted.package),
                config=config,
                previous=previous,
                environment=config.environment,
                secrets=dict(secrets),
            )
            told: dict[str, Any] = {
                "resources_id": session.resources_id,
                "deployment": deployment,
                "deployed_by": wanted.deployed_by,
            }
            told |= {"settings": wanted.settings, "secrets_hash": wanted.secrets_hash}
            function = function.model_copy(update=told)
            self._keep(function)
            self._made.add(name)
        return function

    def _get(self, name: str) -> Function | None:
        session = self._session
        if not session.lasting:
            return self._own.get(name)
        return session.cache.function(session.platform, session.account, name, anyway=name in self._made)

    def _keep(self, function: Function) -> None:
        if self._session.lasting:
            self._session.cache.keep_function(self._session.account, function)
        else:
            self._own[function.name] = function

    def _kept_trigger(self, function: Function, kind: str) -> Trigger | None:
        # Another session may have deployed under this name since: its triggers are not ours.
        kept = self._get(function.name)
        return kept.trigger(kind) if kept is not None and kept.deployment == function.deployment else None

    def _alone(self, name: str, doing: str, lock: str = "function") -> contextlib.AbstractContextManager[None]:
        session = self._session
        if not session.lasting or (lock == "function" and name in self._held):
            return contextlib.nullcontext()
        return session.state.locks.held(f"{lock} {session.platform} {session.account} {name}", doing, session.tell)

    def _shared(self, name: str, doing: str = "") -> contextlib.AbstractContextManager[None]:
        session = self._session
        if not session.lasting or name in self._held:
            return contextlib.nullcontext()
        return session.state.locks.shared(f"function {session.platform} {session.account} {name}", doing, session.tell)


@dataclass(frozen=True)
class Wanted:
    """What a function is to be."""

    package: Package
    config: FunctionConfig
    secrets_hash: str | None
    settings: dict[str, Any]
    deployed_by: tuple[str, ...]
    rebuild: bool

    def difference(self, known: Function) -> str:
        """Why the function must be brought up to date; empty when nothing differs."""
        if self.rebuild:
            return "a rebuild was asked for"
        fields = FunctionConfig.model_fields
        changed = [name for name in fields if getattr(known.config, name) != getattr(self.config, name)]
        if changed:
            return f"its configuration differs: {', '.join(changed)}"
        if known.package_digest != self.package.digest:
            return "its code differs"
        names = sorted({*known.settings, *self.settings})
        changed = [name for name in names if known.settings.get(name) != self.settings.get(name)]
        if changed:
            return f"settings of the platform differ: {', '.join(changed)}"
        if known.deployed_by != self.deployed_by:
            return f"it was deployed by {', '.join(known.deployed_by)}, now that is {', '.join(self.deployed_by)}"
        if known.secrets_hash != self.secrets_hash:
            return "its secrets differ" if self.secrets_hash else "secrets were given before, and none now"
        return ""
