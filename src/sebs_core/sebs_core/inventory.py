"""What of ours is on a platform: the union of what it lists and what the ledger knows; and its removal, in order."""

from __future__ import annotations

import contextlib
import graphlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sebs_core.errors import CacheError, ConfigError, PluginError, SebsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sebs_core.models import Resource
    from sebs_core.session import Session
    from sebs_core.state import Line

__all__ = ["Holding", "Inventory", "Removal"]


@dataclass(frozen=True)
class Holding:
    """Something of ours."""

    resource: Resource
    status: Literal["exists", "intended", "unlisted", "unrecorded"]
    """``exists``: listed by the platform and in the ledger. ``intended``: making it was begun, perhaps it is not there.
    ``unlisted``: in the ledger only; the platform cannot list it, or somebody removed it. ``unrecorded``: the platform lists
    it, and no ledger of this machine knows it."""


@dataclass(frozen=True)
class Removal:
    """What became of one resource in a clean-up."""

    resource: Resource
    removed: bool
    """False in a dry run, for what was gone already, and when it failed."""
    error: str | None = None


class Inventory:
    """The resources of one session's id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def holdings(self) -> list[Holding]:
        """Everything of the session's resources id, and of no other. Read-only."""
        session, own = self._session, self._session.resources_id
        listed = {resource.key: resource for resource in session.listed() if resource.resources_id in ("", own)}
        lines = {line.resource.key: line for line in session.ledger.lines()} if session.lasting else {}
        found = [_holding(listed.get(key), lines.get(key)) for key in sorted({*listed, *lines})]
        return [holding for holding in found if holding and holding.resource.resources_id in ("", own)]

    def remove(self, keys: Collection[str], *, dry_run: bool) -> list[Removal]:
        """Remove these (``kind/name``), dependents before what they use; `ConfigError` when one is unknown or still used."""
        holdings = {holding.resource.key: holding.resource for holding in self.holdings()}
        unknown = sorted(set(keys) - set(holdings))
        if unknown:
            known = ", ".join(holdings) or "none"
            raise ConfigError(f"there is no resource {', '.join(unknown)} of {self._session.resources_id}. There are: {known}.")
        for resource in holdings.values():
            used = set(resource.depends_on) & set(keys)
            if used and resource.key not in keys:
                raise ConfigError(f"{resource.key} uses {', '.join(sorted(used))}: remove it too, or first")
        return self._remove_all({key: holdings[key] for key in keys}, dry_run=dry_run)

    def cleanup(self, kinds: Collection[str], *, dry_run: bool) -> list[Removal]:
        """Remove everything of the id, or everything of these kinds. One failure does not stop the rest."""
        resources = [holding.resource for holding in self.holdings()]
        return self._remove_all({r.key: r for r in resources if not kinds or r.kind in kinds}, dry_run=dry_run)

    def making(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """Let nobody remove anything in this account while something is made: what is made may need it."""
        session = self._session
        return session.state.locks.shared(self._lock, doing, session.tell) if session.lasting else contextlib.nullcontext()

    def _removing(self, doing: str) -> contextlib.AbstractContextManager[None]:
        session = self._session
        return session.state.locks.held(self._lock, doing, session.tell) if session.lasting else contextlib.nullcontext()

    @property
    def _lock(self) -> str:
        return f"account {self._session.platform} {self._session.account}"

    def _remove_all(self, resources: Mapping[str, Resource], *, dry_run: bool) -> list[Removal]:
        ordered = _in_order(resources.values(), self._session.platform)
        if dry_run:
            return [Removal(resource, removed=False) for resource in ordered]
        if self._session.functions.measuring:
            raise ConfigError("this session is measuring: what it measures is not removed meanwhile")
        # All functions of the id, not only those that are removed: what else goes may be what one of them uses.
        names = {holding.resource.name for holding in self.holdings() if holding.resource.kind == "function"}
        names |= {name for r in ordered for kind, _, name in (key.partition("/") for key in r.depends_on) if kind == "function"}
        with self._session.interrupts.watched(), self._session.functions.held(names, "removing what belongs to"):
            return [self._remove(resource) for resource in ordered]

    def _remove(self, resource: Resource) -> Removal:
        session = self._session
        session.interrupts.check()
        ledger = session.ledger if session.lasting else None
        with self._removing(f"removing {resource.key}"):
            self._forget(resource)
            try:
                if ledger and resource.kind != "function":
                    with contextlib.suppress(CacheError):
                        session.packages.forget_published()
                with ledger.removal(resource.kind, resource.name) if ledger else contextlib.nullcontext():
                    removed = bool(session.stages.call("sebs_remove", resource=resource))
            except Exception as error:  # an SDK may raise anything: the rest must go all the same
                return Removal(resource, removed=False, error=str(error) if isinstance(error, SebsError) else repr(error))
        return Removal(resource, removed)

    def _forget(self, resource: Resource) -> None:
        """What was known with the help of a resource is not known any more, already before it goes."""
        session = self._session
        try:
            for key in (resource.key, *resource.depends_on):
                kind, _, name = key.partition("/")
                if kind == "function":
                    session.functions.forget(name)
        except CacheError as error:
            # The ledger says that it is gone, and is believed before the cache: what costs money must go all the same.
            session.notice(f"{resource.key} is removed although the cache cannot be changed: {error}")


def _holding(listed: Resource | None, line: Line | None) -> Holding | None:
    if line is None or line.status == "gone":
        return Holding(listed, "unrecorded" if line is None else "exists") if listed is not None else None
    if listed is None:
        return Holding(line.resource, "intended" if line.status == "intended" else "unlisted")
    facts = line.resource.model_dump(exclude={"tag", "depends_on"}) | listed.model_dump(exclude_defaults=True)
    depends_on = tuple(dict.fromkeys((*listed.depends_on, *line.resource.depends_on)))
    return Holding(type(listed).model_validate({**facts, "depends_on": depends_on}), "exists")


def _in_order(resources: Iterable[Resource], platform: str) -> list[Resource]:
    by_key = {resource.key: resource for resource in resources}
    needed_by: dict[str, set[str]] = {key: set() for key in by_key}
    for resource in by_key.values():
        for key in resource.depends_on:
            needed_by.setdefault(key, set()).add(resource.key)
    try:
        order = list(graphlib.TopologicalSorter(needed_by).static_order())
    except graphlib.CycleError as error:
        raise PluginError(f"{platform}: resources depend on each other in a circle: {error.args[1]}") from None
    return [by_key[key] for key in order if key in by_key]
