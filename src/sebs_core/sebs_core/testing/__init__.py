"""For authors of platform plugins: the conformance kit. Needs the extra: ``pip install "sebs-core[testing]"``."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("deploying", "discovery", "faults", "invoking", "resources"))
)

from sebs_core.testing.conformance import PlatformConformance  # noqa: E402 - after assertions were told to explain themselves
from sebs_core.testing.fake import FakePlatform, FakeProvider, FakeSettings  # noqa: E402
from sebs_core.testing.observer import Observer  # noqa: E402
from sebs_core.testing.proxy import FaultProxy  # noqa: E402

__all__ = ["FakePlatform", "FakeProvider", "FakeSettings", "FaultProxy", "Observer", "PlatformConformance"]
