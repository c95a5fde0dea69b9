"""The local platform passes the conformance kit."""

from typing import Any

from sebs_core.testing import PlatformConformance


class TestLocal(PlatformConformance):
    platform = "local"
    sdk_modules = ("httptools",)

    def settings_for(self, endpoint: str | None) -> dict[str, Any]:
        return {}
