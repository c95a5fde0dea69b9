"""The template for plugins of one's own passes the conformance kit, every call to its provider failed in turn."""

import importlib
import sys
from pathlib import Path

import pytest
from double_platform import FakeEntryPoint

from sebs_core.plugins import Plugins
from sebs_core.testing import PlatformConformance

pytest.importorskip("httpx", reason="httpx is in the dependency group `checks`")

TEMPLATE = Path(__file__).parents[2] / "docs" / "plugin-template"
TOKEN = "a-token-for-tests"


@pytest.fixture(scope="module", autouse=True)
def _template_on_the_path():
    added = [str(TEMPLATE), str(TEMPLATE / "emulator")]
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)


class TestSkylark(PlatformConformance):
    platform = "skylark"
    hold_s = 0.8

    def settings_for(self, endpoint):
        return {"endpoint": endpoint, "token": TOKEN, "request_timeout_s": 0.5}

    def other_settings_for(self, endpoint):
        return {**self.settings_for(endpoint), "region": "south"}

    @pytest.fixture
    def plugins(self):
        return Plugins([FakeEntryPoint("skylark", importlib.import_module("sebs_skylark"))])

    @pytest.fixture(scope="class")
    @classmethod
    def upstream(cls):
        with importlib.import_module("skylark_emulator").Emulator(token=TOKEN) as emulator:
            yield emulator.url
