"""The platform of core's own tests: the fake, called ``double``, with settings, answers and a watcher that only tests need.

`World` is its provider. `plugin_of` makes a plugin module for a world; this module is itself a plugin, with a world of its own.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from sebs_core import PlatformInfo, hookimpl
from sebs_core.testing import FakeProvider, FakeSettings
from sebs_core.testing.fake import CAPABILITIES, PYTHON
from sebs_core.testing.fake_serving import HANDLER, Instance

__all__ = ["HANDLER", "PYTHON", "FakeEntryPoint", "Instance", "World", "capabilities", "info_of", "module_of", "plugin_of"]

capabilities = functools.partial(dataclasses.replace, CAPABILITIES)
"""What the double can do, with changes."""


class DoubleSettings(FakeSettings):
    """Settings that mean nothing."""

    flavour: str = "plain"
    workers: int = 1


class World(FakeProvider):
    """The provider behind the double."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[int, bytes]] = []
        """The next answers (status, body), given without asking the function."""
        self.on_answer: Callable[[], None] | None = None
        """Called when an invocation has its answer."""

    def invoke(self, key: str, event: bytes) -> tuple[int, bytes]:
        answer = self.answers.pop(0) if self.answers else super().invoke(key, event)
        if self.on_answer is not None:
            self.on_answer()
        return answer


def info_of(world: World, name: str = "double", **changes: Any) -> PlatformInfo:
    """The platform as its plugin announces it."""
    offered = world.info(name, DoubleSettings, **changes)
    doctor = lambda settings: [("workers", settings.workers > 0, f"{settings.workers} workers")]  # noqa: E731
    return dataclasses.replace(offered, doctor=doctor)


def module_of(name: str = "double_module", **contents: Any) -> ModuleType:
    """A plugin module with these names in it."""
    module = ModuleType(name)
    for key, value in contents.items():
        setattr(module, key, value)
    return module


def plugin_of(world: World, name: str = "double", **changes: Any) -> ModuleType:
    """A plugin module that offers the double of this world."""

    @hookimpl
    def sebs_platforms():
        return [info_of(world, name, **changes)]

    return module_of(f"{name}_module", sebs_platforms=sebs_platforms)


class FakeEntryPoint:
    """What `importlib.metadata` gives for one line of entry points."""

    group = "sebs"

    def __init__(self, name: str, loads: Any, *, distribution: str | None = None, version: str = "1.0") -> None:
        self.name = name
        self.value = f"{name}_module"
        self.dist = SimpleNamespace(name=distribution or f"sebs-{name}", version=version)
        self._loads = loads

    def load(self) -> Any:
        """Import the plugin; an exception given instead of a module is raised."""
        if isinstance(self._loads, BaseException):
            raise self._loads
        return self._loads


@functools.cache
def _own_world() -> World:
    world = World()
    atexit.register(world.close)
    return world


@hookimpl
def sebs_platforms():
    """The double as an installed plugin, for tests that start another process."""
    return [info_of(_own_world())]
