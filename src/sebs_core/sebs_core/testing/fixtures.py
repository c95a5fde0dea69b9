"""What the checks of the conformance kit share; the parts that a plugin's author may override."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from sebs_core.plugins import Plugins, installed
from sebs_core.session import Session, connect
from sebs_core.testing.observer import Observer
from sebs_core.testing.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sebs_core.models import Function
    from sebs_core.offers import Capabilities, PlatformInfo

__all__ = ["HELLO", "KitFixtures"]

HELLO = Path(__file__).parent / "hello"


class KitFixtures:
    """Fixtures on the class: override them to point the checks at an emulator, or at another benchmark."""

    platform: ClassVar[str]
    """Name of the platform, as ``sebs_platforms`` offers it."""
    sdk_modules: ClassVar[tuple[str, ...]] = ()
    """Modules that discovering the plugin must not import: the provider's SDK."""
    hold_s: ClassVar[float] = 2.0
    """How long the fault proxy holds a call that times out; more than the plugin's own time limit, if that is short."""

    def settings_for(self, endpoint: str | None) -> dict[str, Any]:
        """Settings of the platform whose provider answers at `endpoint` (None: there is no `upstream`)."""
        return {}

    def other_settings_for(self, endpoint: str | None) -> dict[str, Any] | None:
        """Settings of another account or region of the same provider; None: the emulator has only one."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def upstream(cls) -> Iterator[str | None]:
        """Address of the provider's emulator. None: the platform has none; checks that need one are skipped."""
        yield None

    @pytest.fixture
    def other_settings(self, upstream: str | None) -> dict[str, Any] | None:
        """Settings of the other account, if the class has one."""
        return self.other_settings_for(upstream)

    @pytest.fixture
    def plugins(self) -> Plugins:
        """The plugins among which the platform is looked for: those that are installed."""
        return installed()

    @pytest.fixture
    def info(self, plugins: Plugins) -> PlatformInfo:
        """What the plugin announces."""
        return plugins.platform(self.platform)[0]

    @pytest.fixture
    def capabilities(self, info: PlatformInfo) -> Capabilities:
        """What the platform says that it can."""
        return info.capabilities

    @pytest.fixture
    def benchmark_folder(self, tmp_path: Path) -> Path:
        """A benchmark that does what its event says, to be changed at will."""
        target = tmp_path / "hello"
        shutil.copytree(HELLO, target, ignore=shutil.ignore_patterns("__pycache__"))
        return target

    @pytest.fixture
    def observer(self) -> Observer:
        """Keeps what sessions tell."""
        return Observer()

    @pytest.fixture
    def outlasting(self) -> Iterator[ExitStack]:
        """What must still be there when sessions are cleaned up and closed."""
        with ExitStack() as stack:
            yield stack

    @pytest.fixture
    def open_session(
        self, tmp_path: Path, upstream: str | None, plugins: Plugins, observer: Observer, outlasting: ExitStack
    ) -> Iterator[Callable[..., Session]]:
        """``open_session(home="a", endpoint=…, settings=…)``: sessions of users ``home``, with a cache and state of their own.

        What they made is removed at the end, all of it.
        """
        opened: list[Session] = []

        def open_one(home: str = "home", *, endpoint: str | None = upstream, **more: Any) -> Session:
            given = {"settings": self.settings_for(endpoint), "observers": [observer], "plugins": plugins, **more}
            folder = tmp_path / home
            session = connect(
                self.platform,
                cache_dir=folder / "cache",
                state_dir=folder / "state",
                output_dir=folder / "runs",
                **given,
            )
            opened.append(session)
            return session

        yield open_one
        problems = []
        for session in opened:
            if session.is_open:
                problems += [removal for removal in session.cleanup() if removal.error]
                session.close()
        assert not problems, f"cleaning up after the check failed: {problems}"

    @pytest.fixture
    def session(self, open_session: Callable[..., Session]) -> Session:
        """One session."""
        return open_session()

    @pytest.fixture
    def function(self, session: Session, benchmark_folder: Path) -> Function:
        """The benchmark, deployed."""
        return session.deploy(session.package(benchmark_folder))

    @pytest.fixture
    def proxy(self, upstream: str | None, outlasting: ExitStack) -> FaultProxy:
        """Stands between plugin and provider."""
        if upstream is None:
            pytest.skip(
                "the platform has no provider that is reached over HTTP (fixture `upstream`): its calls cannot be failed"
            )
        return outlasting.enter_context(FaultProxy(upstream, hold_s=self.hold_s))
