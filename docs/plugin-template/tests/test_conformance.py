"""The checks that every platform plugin must pass, each call to the provider failed in turn: ``sebs_core.testing``."""

from collections.abc import Iterator
from typing import Any

import pytest
from sebs_core.testing import PlatformConformance
from skylark_emulator import Emulator


class TestSkylark(PlatformConformance):
    platform = "skylark"
    sdk_modules = ("httpx",)
    hold_s = 0.8

    def settings_for(self, endpoint: str | None) -> dict[str, Any]:
        return {"endpoint": endpoint, "token": "a-token-for-tests", "request_timeout_s": 0.5}

    def other_settings_for(self, endpoint: str | None) -> dict[str, Any]:
        return {**self.settings_for(endpoint), "region": "south"}

    @pytest.fixture(scope="class")
    @classmethod
    def upstream(cls) -> Iterator[str]:
        with Emulator(token="a-token-for-tests") as emulator:
            yield emulator.url
