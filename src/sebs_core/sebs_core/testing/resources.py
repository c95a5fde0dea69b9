"""Checks: what exists is listed and written down, and goes when it is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sebs_core.models import Function
    from sebs_core.session import Session
    from sebs_core.testing.proxy import FaultProxy


class ResourceChecks:
    """See `PlatformConformance`."""

    def test_what_is_listed_is_what_was_made(self, session: Session, function: Function) -> None:
        """Catches resources that nobody could find again.

        Mend: make everything through ``context.resource``; list everything in ``sebs_resources``, by tag, label or prefix.
        """
        session.invoke(function, {})
        statuses = {h.resource.key: h.status for h in session.resources()}
        assert f"function/{function.name}" in statuses
        if session.lasting:
            assert set(statuses.values()) == {"exists"}, f"listing and ledger do not agree: {statuses}"

    def test_everything_can_be_removed(self, session: Session, function: Function) -> None:
        """Catches what is left after a clean-up, and costs money.

        Mend: ``depends_on`` says what a resource needs; ``sebs_remove`` removes every kind that ``sebs_resources`` lists.
        """
        session.invoke(function, {})
        removals = session.cleanup()
        assert [removal for removal in removals if removal.error] == []
        own = [r for r in session.listed() if r.resources_id in ("", session.resources_id)]
        assert own == [], "still listed after the clean-up"
        assert session.cleanup() == []

    def test_removing_again_is_no_error(self, session: Session, function: Function) -> None:
        """Catches clean-ups that cannot be repeated.

        Mend: ``sebs_remove`` answers False for what is gone already.
        """
        resources = [h.resource for h in session.resources()]
        assert all(removal.error is None for removal in session.cleanup())
        for resource in resources:
            assert session.stages.call("sebs_remove", resource=resource) is False, f"{resource.key} was removed twice"

    def test_a_dry_run_changes_nothing(self, session: Session, function: Function) -> None:
        """Catches a dry run that writes.

        Mend: ``sebs_resources`` only reads. What a clean-up would remove is decided by core.
        """
        before = {h.resource.key for h in session.resources()}
        would = {removal.resource.key for removal in session.cleanup(dry_run=True)}
        assert would == before == {h.resource.key for h in session.resources()}
        assert session.invoke(function, {"value": 1}).error is None

    def test_looking_writes_nothing(
        self, open_session: Callable[..., Session], proxy: FaultProxy, benchmark_folder: Path
    ) -> None:
        """Catches write calls where only reading is promised: in a dry run, in a listing, and in a session that reuses all.

        Mend: ``sebs_open``, ``sebs_account``, ``sebs_refresh`` and ``sebs_resources`` read only.
        """
        session = open_session(endpoint=proxy.url)
        function = session.deploy(session.package(benchmark_folder))
        session.trigger(function, "http" if "http" in _kinds(session) else _kinds(session)[0])
        proxy.record()
        session.cleanup(dry_run=True)
        again = open_session(endpoint=proxy.url)
        if again.lasting:
            again.deploy(again.package(benchmark_folder))
        again.resources()
        written = [f"{call.method} {call.path}" for call in proxy.calls if call.writes]
        assert written == [], f"written while looking: {written}"

    def test_a_clean_up_leaves_others_alone(self, open_session: Callable[..., Session], benchmark_folder: Path) -> None:
        """Catches a clean-up that removes what belongs to somebody else.

        Mend: each listed resource carries the ``resources_id`` with which it was made.
        """
        mine, theirs = open_session("mine"), open_session("theirs")
        if not mine.lasting:
            pytest.skip("the platform takes everything with it when a session ends")
        mine.deploy(mine.package(benchmark_folder))
        function = theirs.deploy(theirs.package(benchmark_folder))
        mine.cleanup()
        assert theirs.invoke(function, {"value": 1}).error is None


def _kinds(session: Session) -> list[str]:
    return list(session.plugins.platform(session.platform)[0].capabilities.triggers)
