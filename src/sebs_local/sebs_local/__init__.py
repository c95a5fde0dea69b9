"""The platform ``local``: a small, faithful serverless platform on this machine, without Docker, account or root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sebs_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sebs_core.context import Context
    from sebs_core.offers import PlatformInfo
    from sebs_local.models import LocalSettings
    from sebs_local.platform import LocalPlatform


@hookimpl
def sebs_platforms() -> Iterable[PlatformInfo]:
    """Offer ``local``. The gateway's process imports this package too: what costs time is imported only here."""
    from sebs_core.offers import PlatformInfo
    from sebs_local.models import CAPABILITIES, LocalSettings

    yield PlatformInfo(
        name="local",
        summary="this machine: one process per function instance, real cold starts; no Docker, no account",
        settings=LocalSettings,
        capabilities=CAPABILITIES,
        create=_create,
        doctor=_doctor,
    )


def _create(settings: LocalSettings, context: Context) -> LocalPlatform:
    from sebs_local.platform import LocalPlatform

    return LocalPlatform(settings, context)


def _doctor(settings: LocalSettings) -> list[tuple[str, bool, str]]:
    from sebs_local.doctor import checks

    return checks(settings)
