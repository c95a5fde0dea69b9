"""The resources id: in the name of everything that one group of sessions makes, so that it is found again."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from sebs_core.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from sebs_core.session import Session

__all__ = ["Identity"]

ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


class Identity:
    """What was given of it: an id, a prefix, or nothing."""

    def __init__(self, resources_id: str | None, prefix: str | None) -> None:
        for value, pattern, what in ((resources_id, ID, "resources id"), (prefix, PREFIX, "resource prefix")):
            if value is not None and not pattern.fullmatch(value):
                longest = 30 if pattern is ID else 20
                raise ConfigError(
                    f"{value!r} cannot be a {what}: it stands in names of buckets, so it has at most {longest} small letters, "
                    "digits and inner hyphens"
                )
        if resources_id is not None and prefix is not None:
            raise ConfigError("a resources id is used as it is, a prefix begins one: give only one of the two")
        self._given, self._prefix = resources_id, prefix or ""
        self._finding = False

    def resources_id(self, session: Session) -> str:
        """The given one, else the one of before, else one of the platform that begins with the prefix, else a new one.

        Of several first sessions one decides and the others take what it decided.
        """
        if self._given is not None:
            return self._given
        if not session.lasting:  # nothing outlives the session: nothing must be told apart
            return "-".join(part for part in (self._prefix, session.account[:8]) if part)
        ledger = session.ledger
        known = ledger.resources_id(self._prefix)
        if known is not None:
            return known
        if self._finding:
            raise PluginError(
                f"sebs_resources of {session.platform} needs the resources id, which is being looked for with its help: it "
                "must list what belongs to any id, each with its resources_id"
            )
        self._finding = True
        name = f"identity {session.platform} {session.account}"
        with session.state.locks.held(name, "looking for its resources id", session.tell):
            known = ledger.resources_id(self._prefix)
            if known is None:
                known = self._found_or_made(session)
                ledger.keep_resources_id(self._prefix, known)
        return known

    def _found_or_made(self, session: Session) -> str:
        there = sorted({resource.resources_id for resource in session.listed()} - {""})
        # As we make them, not those that merely begin so: exp10 and exp-lab are somebody else's than exp.
        ours = re.compile(rf"{re.escape(self._prefix)}(-[0-9a-f]{{8}})?")
        matching = [one for one in there if self._prefix and ours.fullmatch(one)]
        chosen = matching[0] if matching else "-".join(part for part in (self._prefix, secrets.token_hex(4)) if part)
        others = [one for one in there if one != chosen]
        if others:
            session.notice(
                f"on {session.platform} there are resources of other ids: {', '.join(others)}. This session uses {chosen}; "
                "--resource-prefix (resource_prefix=…) chooses another"
            )
        return chosen
