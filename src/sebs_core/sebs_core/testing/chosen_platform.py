"""Collected by pytest for ``sebs platform check``: the conformance kit for the platform that was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sebs_core.testing import runner
from sebs_core.testing.conformance import PlatformConformance

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestChosenPlatform(PlatformConformance):
    """See `sebs_core.testing.runner`."""

    platform = runner.chosen.platform

    def settings_for(self, endpoint: str | None) -> dict[str, Any]:
        """As given, with the address of the proxy where calls are failed."""
        setting = runner.chosen.endpoint_setting
        return {**runner.chosen.settings, **({setting: endpoint} if setting and endpoint else {})}

    def other_settings_for(self, endpoint: str | None) -> dict[str, Any] | None:
        """The same, but for what differs in another account."""
        other = runner.chosen.other_settings
        return None if other is None else {**self.settings_for(endpoint), **other}

    @pytest.fixture(scope="class")
    @classmethod
    def upstream(cls) -> Iterator[str | None]:
        """What the user gave as the provider's address."""
        setting = runner.chosen.endpoint_setting
        yield runner.chosen.settings.get(setting) if setting else None
