"""The only channel from a platform to what is kept."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sebs_core.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from sebs_core.models import Resource
    from sebs_core.state import Ledger, Making

__all__ = ["Context"]


class Context:
    """Given to a platform's ``create``; lives as long as the session."""

    def __init__(self, resources_id: str | Callable[[], str], ledger: Callable[[], Ledger] | None = None) -> None:
        self._resources_id, self._ledger_of = resources_id, ledger
        self.lasting = True
        """Whether what the platform makes outlives the session. One that takes all with it sets this to False in its
        ``create``: then nothing is remembered."""

    @functools.cached_property
    def resources_id(self) -> str:
        """Stands in the name of everything we make, so that it can be found again.

        Found or made on first use, when the session is open; ``sebs_resources`` must not need it (see there).
        """
        return self._resources_id if isinstance(self._resources_id, str) else self._resources_id()

    @functools.cached_property
    def scratch(self) -> Path:
        """A private folder of this session, made on first use and removed when the session closes."""
        return Path(tempfile.mkdtemp(prefix="sebs-"))

    def resource(self, kind: str, name: str, depends_on: Sequence[str] = ()) -> AbstractContextManager[Making]:
        """Make something on the platform: ``with context.resource("role", name) as r: r.record(arn=create(name))``.

        The intent is on the disk before the block and existence after it; an exception, or a crash, leaves the intent, so
        that clean-up tries to remove what may be there. `depends_on` are ``kind/name`` of what must be removed later than
        this. Use it also to change what exists.
        """
        return self._ledger.resource(kind, name, self.resources_id, depends_on)

    def find(self, kind: str, name: str) -> Resource | None:
        """What we made in this account and did not remove, with what was recorded of it (``found.arn``); or None.

        What was only intended is not found: it may be there or not, so make it in a way that bears both.
        """
        return self._ledger.find(kind, name)

    def value(self, *path: str) -> Any:
        """What was kept at a key path (``"registry", "host"``) for this platform and account; None if nothing was."""
        return self._ledger.value(*path)

    def keep_value(self, *path: str, value: Any) -> None:
        """Keep something JSON for later sessions; mappings are merged. No secrets: they are refused."""
        self._ledger.keep_value(*path, value=value)

    def forget_value(self, *path: str) -> None:
        """Forget it; no error when there is nothing."""
        self._ledger.forget_value(*path)

    @property
    def _ledger(self) -> Ledger:
        if self._ledger_of is None:
            raise PluginError("this context was made without a ledger, by hand: it keeps nothing")
        return self._ledger_of()

    def close(self) -> None:
        """Remove what was made."""
        if "scratch" in self.__dict__:
            shutil.rmtree(self.scratch, ignore_errors=True)
