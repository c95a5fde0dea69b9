"""The conformance kit: checks that every platform plugin must pass. For plugin authors; needs pytest.

::

    from sebs_core.testing import PlatformConformance

    class TestSkylark(PlatformConformance):
        platform = "skylark"
        sdk_modules = ("httpx",)

        def settings_for(self, endpoint):
            return {"endpoint": endpoint, "token": "for-tests"}

        @pytest.fixture(scope="class")
        @classmethod
        def upstream(cls):
            with Emulator() as emulator:
                yield emulator.url

Each check's docstring says what it catches and how to mend it. A check can be replaced only by marking it
``@pytest.mark.xfail(reason=…)``: anything else is refused when the class is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sebs_core.testing.deploying import DeployingChecks
from sebs_core.testing.discovery import DiscoveryChecks
from sebs_core.testing.faults import FaultChecks
from sebs_core.testing.fixtures import KitFixtures
from sebs_core.testing.invoking import InvokingChecks
from sebs_core.testing.resources import ResourceChecks

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PlatformConformance"]


class PlatformConformance(FaultChecks, ResourceChecks, InvokingChecks, DeployingChecks, DiscoveryChecks, KitFixtures):
    """Subclass it as ``Test…``, say which `platform`, and where its provider is (`settings_for`, `upstream`)."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in _checks_of(PlatformConformance):
            own = getattr(cls, name)
            marks = getattr(own, "pytestmark", [])
            if own is not getattr(PlatformConformance, name) and not any(
                mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks
            ):
                raise TypeError(
                    f"{cls.__name__}.{name} replaces a check of the conformance kit. If the platform cannot pass it, mark "
                    "yours with @pytest.mark.xfail(reason='…'), so that whoever reads the report sees why."
                )


def _checks_of(kit: type) -> Iterable[str]:
    return [name for name in dir(kit) if name.startswith("test_")]
