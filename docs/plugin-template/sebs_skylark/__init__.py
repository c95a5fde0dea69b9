"""The platform ``skylark``. Every ``sebs`` command imports this module: httpx comes only when a session is opened."""

import sebs_core as sebs
from sebs_skylark.models import CAPABILITIES, SkylarkSettings


def create(settings: SkylarkSettings, context: sebs.Context) -> object:
    from sebs_skylark.platform import SkylarkPlatform

    return SkylarkPlatform(settings, context)


@sebs.hookimpl
def sebs_platforms() -> list[sebs.PlatformInfo]:
    return [sebs.PlatformInfo("skylark", "functions behind a small HTTP API", SkylarkSettings, CAPABILITIES, create)]
