"""Checks with the fault proxy: each call to the provider fails once, in each of four ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sebs_core.errors import SebsError
from sebs_core.testing.proxy import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sebs_core.models import Function
    from sebs_core.session import Session
    from sebs_core.testing.proxy import Fault, FaultProxy

MOST_HELD = 4
"""So many of the calls are held until they time out: each takes `hold_s`."""


class FaultChecks:
    """See `PlatformConformance`."""

    @pytest.mark.parametrize("fault", FAULTS)
    def test_every_call_of_a_deployment_may_fail(
        self, open_session: Callable[..., Session], proxy: FaultProxy, benchmark_folder: Path, fault: Fault
    ) -> None:
        """Catches resources that leak, deployments that cannot be repeated, and failures that pass as success.

        A clean deployment is recorded, then each of its calls fails in turn: before it has an effect, after it had its effect,
        by a time-out, by throttling. Then listing and ledger must agree, another try must go through and answer, and a clean-up
        must leave nothing. Mend: the message names the call. Make everything through ``context.resource``; raise what
        failed as an error of the tree; bear what is there already.
        """
        clean = open_session("clean", endpoint=proxy.url)
        if not clean.lasting:
            pytest.skip("the platform takes everything with it when a session ends")
        proxy.record()
        _deployed(clean, benchmark_folder)
        calls = [f"{call.method} {call.path}" for call in proxy.calls]
        proxy.record()
        clean.cleanup()
        for number in _chosen(len(calls), fault):
            where = f"call {number} of {len(calls)} ({calls[number - 1]}) failing ({fault})"
            session = open_session(f"{fault}-{number}", endpoint=proxy.url)
            _ = session.resources_id  # decided, and not part of the deployment
            proxy.fail(number, fault)
            try:
                function = _deployed(session, benchmark_folder)
                answer = session.invoke(function, {"value": number})
                assert (answer.error, answer.output and answer.output["result"]) == (None, number), (
                    f"{where}: passed as success"
                )
            except SebsError as error:
                assert len(str(error).split()) > 3, f"{where}: {error!r} does not tell what failed"
            except KeyboardInterrupt:
                raise
            except Exception as error:
                raise AssertionError(f"{where}: {error!r} is no SebsError; wrap it, and say what to do") from error
            proxy.record()
            unknown = [h.resource.key for h in session.resources() if h.status == "unrecorded"]
            assert unknown == [], f"{where}: {unknown} exist without a line in the ledger"
            function = _deployed(session, benchmark_folder)
            answer = session.invoke(function, {"value": number})
            assert answer.error is None, f"{where}: the next try is broken: {answer.error} {answer.error_detail}"
            _cleaned(session, where)

    @pytest.mark.parametrize("fault", FAULTS)
    def test_every_call_of_a_clean_up_may_fail(
        self, open_session: Callable[..., Session], proxy: FaultProxy, benchmark_folder: Path, fault: Fault
    ) -> None:
        """Catches removals that are believed although they failed, and clean-ups that cannot be tried again.

        Mend: ``sebs_remove`` raises when the provider refuses, and answers False only for what is gone.
        """
        session = open_session(endpoint=proxy.url)
        if not session.lasting:
            pytest.skip("the platform takes everything with it when a session ends")
        _deployed(session, benchmark_folder)
        proxy.record()
        session.cleanup()
        calls = [f"{call.method} {call.path}" for call in proxy.calls]
        for number in _chosen(len(calls), fault):
            where = f"call {number} of {len(calls)} ({calls[number - 1]}) failing ({fault})"
            proxy.record()
            _deployed(session, benchmark_folder)
            proxy.fail(number, fault)
            try:
                reported = any(removal.error for removal in session.cleanup())
            except SebsError as error:
                reported = True
                assert len(str(error).split()) > 3, f"{where}: {error!r} does not tell what failed"
            proxy.record()
            if not reported:
                assert _left(session) == [], f"{where}: the clean-up says that all is well"
            _cleaned(session, where)


def _chosen(calls: int, fault: Fault) -> list[int]:
    numbers = list(range(1, calls + 1))
    return numbers if fault != "timeout" or calls <= MOST_HELD else numbers[:: -(-calls // MOST_HELD)]


def _deployed(session: Session, folder: Path) -> Function:
    function = session.deploy(session.package(folder))
    kinds = session.plugins.platform(session.platform)[0].capabilities.triggers
    session.trigger(function, "http" if "http" in kinds else kinds[0])
    return function


def _cleaned(session: Session, where: str) -> None:
    failed = [f"{removal.resource.key}: {removal.error}" for removal in session.cleanup() if removal.error]
    assert failed == [], f"{where}: cleaning up afterwards failed: {failed}"
    assert _left(session) == [], f"{where}: left after the clean-up"


def _left(session: Session) -> list[str]:
    return [r.key for r in session.listed() if r.resources_id in ("", session.resources_id)]
