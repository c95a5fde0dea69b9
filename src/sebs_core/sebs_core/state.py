"""What exists in the world because of us: a ledger of resources, the configuration of platforms, resources ids.

One SQLite file in the user's state folder, apart from the cache: clearing a cache never erases the only line about something
that costs money. A line is *intended* before a resource is made, *exists* once it is there, *gone* after its removal; so that
whatever happens, what may exist has a line. Everything belongs to one platform and one account on it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from sebs_core.confidential import Confidential
from sebs_core.database import Database
from sebs_core.errors import CacheError, PluginError
from sebs_core.keypath import value_at, with_value, without
from sebs_core.locks import Locks
from sebs_core.models import Resource

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

__all__ = ["Ledger", "Line", "Making", "State", "default_state_folder"]

logger = logging.getLogger(__name__)

FILE = "state.sqlite"
MIGRATIONS = (
    """
    CREATE TABLE resource (
      platform TEXT NOT NULL, account TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
      status TEXT NOT NULL, record TEXT NOT NULL, intended_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
      PRIMARY KEY (platform, account, kind, name)
    );
    CREATE TABLE configuration (
      platform TEXT NOT NULL, account TEXT NOT NULL, "values" TEXT NOT NULL,
      PRIMARY KEY (platform, account)
    );
    CREATE TABLE identity (
      platform TEXT NOT NULL, account TEXT NOT NULL, prefix TEXT NOT NULL, resources_id TEXT NOT NULL,
      PRIMARY KEY (platform, account, prefix)
    )
    """,
)
LINE = "record, status, intended_ns, changed_ns"
ONE = "platform=? AND account=? AND kind=? AND name=?"
PUBLICATIONS = "/publications"
"""No prefix can be so called."""
GONE_KEPT_NS = 30 * 24 * 3600 * 1_000_000_000

Status = Literal["intended", "exists", "removing", "gone"]


def default_state_folder() -> Path:
    """``SEBS_STATE_DIR``, else the user's state folder as the system has it (XDG base directories, or macOS' own)."""
    given = os.environ.get("SEBS_STATE_DIR")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "sebs"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "sebs"


@dataclass(frozen=True)
class Line:
    """One line of the ledger."""

    resource: Resource
    status: Status
    intended_ns: int
    """Epoch nanoseconds."""
    changed_ns: int


class State:
    """A state folder."""

    def __init__(self, folder: Path, confidential: Confidential | None = None) -> None:
        self.folder = folder.absolute()
        self._confidential = confidential or Confidential()
        way_out = "choose another folder (SEBS_STATE_DIR); without it only what platforms list by themselves is known."
        self._database = Database(self.folder / FILE, MIGRATIONS, way_out=way_out)

    @property
    def locks(self) -> Locks:
        """Between sessions that change the same function, or look for their identity."""
        self._make_folder()
        return Locks(self.folder / "locks")

    def lines(self) -> list[tuple[str, str, Line]]:
        """All that may exist, of all platforms and accounts: (platform, account, line)."""
        with self.reading() as connection:
            accounts = connection.execute("SELECT DISTINCT platform, account FROM resource ORDER BY 1, 2").fetchall()
        lines = ((*place, line) for place in accounts for line in self.ledger(*place).lines())
        return [(platform, account, line) for platform, account, line in lines if line.status != "gone"]

    def counts(self) -> list[tuple[str, str, str, int]]:
        """Of how many resources, by (platform, account, resources id)."""
        found = Counter((platform, account, line.resource.resources_id) for platform, account, line in self.lines())
        return [(*group, number) for group, number in sorted(found.items())]

    def ledger(self, platform: str, account: str) -> Ledger:
        """The part of one account on one platform."""
        return Ledger(self, platform, account)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """See `Database.reading`."""
        with self._database.reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """See `Database.writing`."""
        self._make_folder()
        with self._database.writing() as connection:
            yield connection

    def text(self, values: Any, where: str) -> str:
        """As JSON; `PluginError` when it is none, or holds a secret."""
        try:
            text = json.dumps(values, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PluginError(f"{where} cannot be written as JSON: {error}. The plugin must record plain values.") from None
        self._confidential.refuse(text, where)
        return text

    def key(self) -> bytes:
        """The key of the hashes of secrets; made on first need, readable by the user alone."""
        path = self.folder / "key"
        try:
            return self._key(path)
        except OSError as error:
            raise CacheError(
                f"the key {path} cannot be read or made: {error.strerror}. Mend its permissions or free some space, or choose "
                "another folder (SEBS_STATE_DIR)."
            ) from error

    def _key(self, path: Path) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes()
        self._make_folder()
        with self.locks.held("key", "making the key of hashes", lambda _: None):
            if not path.exists():
                temporary = path.with_name(f".key-{os.getpid()}")
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                try:
                    os.write(descriptor, secrets.token_bytes(32))
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                temporary.replace(path)
        return path.read_bytes()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"the state folder {self.folder} cannot be made: {error.strerror}. Mend its parent's permissions, or choose "
                "another one (SEBS_STATE_DIR)."
            ) from error


class Ledger:
    """What exists in one account on one platform, what is configured there, and under which ids."""

    def __init__(self, state: State, platform: str, account: str) -> None:
        self.state, self.platform, self.account = state, platform, account

    # --- resources --------------------------------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        """All lines, gone ones too, by kind and name."""
        with self.state.reading() as connection:
            rows = connection.execute(
                f"SELECT {LINE} FROM resource WHERE platform=? AND account=? ORDER BY kind, name",  # noqa: S608
                (self.platform, self.account),
            ).fetchall()
        read = ((self._readable(text), rest) for text, *rest in rows)
        return [Line(resource, *rest) for resource, rest in read if resource is not None]

    def _readable(self, text: str) -> Resource | None:
        try:
            return self._decoded(text)
        except CacheError as error:  # the others must go on being seen
            logger.warning("%s", error)
            return None

    def line(self, kind: str, name: str) -> Line | None:
        """The line of one resource."""
        with self.state.reading() as connection:
            row = self._row(connection, kind, name)
        if row is None:
            return None
        bare = Resource(kind=kind, name=name, platform=self.platform)
        return Line(self._readable(row[0]) or bare, *row[1:])

    def find(self, kind: str, name: str) -> Resource | None:
        """The resource, if it exists as far as we know, with all that was recorded of it."""
        line = self.line(kind, name)
        return line.resource if line and line.status == "exists" else None

    @contextmanager
    def resource(
        self, kind: str, name: str, resources_id: str, depends_on: Sequence[str] = (), **facts: Any
    ) -> Iterator[Making]:
        """Make something: the intent is on the disk before the block, existence after it; an exception leaves the intent.

        What exists already stays so while the block changes it.
        """
        uses = {"depends_on": list(depends_on)} if depends_on else {}
        self._write(kind, name, "intended", {**facts, "resources_id": resources_id, **uses})
        yield Making(self, kind, name)
        self._write(kind, name, "exists", {})

    def record(self, kind: str, name: str, facts: dict[str, Any]) -> None:
        """Add facts to a line, whatever its status."""
        self._write(kind, name, None, facts)

    @contextmanager
    def removal(self, kind: str, name: str) -> Iterator[None]:
        """Remove something: from now on it is not found, and after the block it is gone.

        After an exception, or a crash, it may be there or not. Whoever makes it anew meanwhile is right: it is not gone then.
        """
        if self.line(kind, name) is None:
            yield
            return
        self._write(kind, name, "removing", {})
        yield
        self._write(kind, name, "gone", {}, only_if="removing")

    def gone(self, kind: str, name: str) -> None:
        """Note that something was removed; nothing is noted of what was never known."""
        if self.line(kind, name) is not None:
            self._write(kind, name, "gone", {})

    def _write(
        self, kind: str, name: str, status: Status | None, facts: dict[str, Any], *, only_if: Status | None = None
    ) -> None:
        now = time.time_ns()
        key = (self.platform, self.account, kind, name)
        with self.state.writing() as connection:
            row = self._row(connection, kind, name)
            if only_if is not None and (row is None or row[1] != only_if):
                return
            known = {} if row is None or (status == "intended" and row[1] == "gone") else _facts(row[0])
            before: Status = "intended" if row is None else row[1]
            if status is None or (status == "intended" and before == "exists"):
                status = before
            record = {**known, **facts, "kind": kind, "name": name, "platform": self.platform}
            where = f"the line {kind}/{name} of the ledger"
            text = self.state.text(record, where)
            if facts:  # now the plugin is there to be blamed; later nobody could clean up
                _check(text, where)
            intended = row[2] if known and row else now
            connection.execute(
                "INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*key, status, text, intended, now)
            )
            if status == "gone":
                connection.execute("DELETE FROM resource WHERE status='gone' AND changed_ns<?", (now - GONE_KEPT_NS,))

    def _row(self, connection: sqlite3.Connection, kind: str, name: str) -> Any:
        query = f"SELECT {LINE} FROM resource WHERE {ONE}"  # noqa: S608
        return connection.execute(query, (self.platform, self.account, kind, name)).fetchone()

    def _decoded(self, text: str) -> Resource:
        try:
            return Resource.model_validate_json(text)
        except ValidationError as error:
            raise CacheError(
                f"a line of {self.state.folder / FILE} cannot be read: {text:.200}. Its resource is in no list: look for it on "
                f"{self.platform} itself"
            ) from error

    # --- configuration ----------------------------------------------------------------------------------------------------

    def value(self, *path: str) -> Any:
        """What is configured at a key path, None if nothing is; without a path everything."""
        with self.state.reading() as connection:
            return value_at(self._values(connection), path)

    def keep_value(self, *path: str, value: Any) -> None:
        """Configure something; mappings are merged into what is there."""
        self._change(lambda values: with_value(values, path, value))

    def forget_value(self, *path: str) -> None:
        """Remove what is configured there; no error when nothing is."""
        self._change(lambda values: without(values, path))

    def _values(self, connection: sqlite3.Connection) -> dict[str, Any]:
        key = (self.platform, self.account)
        row = connection.execute('SELECT "values" FROM configuration WHERE platform=? AND account=?', key).fetchone()
        try:
            values: dict[str, Any] = {} if row is None else json.loads(row[0])
        except ValueError as error:
            raise CacheError(
                f"the configuration of {self.platform} in {self.state.folder / FILE} cannot be read ({error}). Move "
                "the file away"
            ) from None
        return values

    def _change(self, change: Any) -> None:
        with self.state.writing() as connection:
            text = self.state.text(change(self._values(connection)), f"the configuration of {self.platform}")
            connection.execute("INSERT OR REPLACE INTO configuration VALUES (?, ?, ?)", (self.platform, self.account, text))

    # --- identity ---------------------------------------------------------------------------------------------------------

    def resources_id(self, prefix: str) -> str | None:
        """The id that was found or made for this prefix before."""
        with self.state.reading() as connection:
            key = (self.platform, self.account, prefix)
            row = connection.execute(
                "SELECT resources_id FROM identity WHERE platform=? AND account=? AND prefix=?", key
            ).fetchone()
        return None if row is None else str(row[0])

    def publications(self) -> str:
        """A marker that changes with every removal: what was published under another one may be gone."""
        return self.resources_id(PUBLICATIONS) or ""

    def renew_publications(self) -> None:
        """Change it."""
        self.keep_resources_id(PUBLICATIONS, secrets.token_hex(8))

    def keep_resources_id(self, prefix: str, resources_id: str) -> None:
        """Remember it."""
        with self.state.writing() as connection:
            key = (self.platform, self.account, prefix)
            connection.execute("INSERT OR REPLACE INTO identity VALUES (?, ?, ?, ?)", (*key, resources_id))


def _check(text: str, where: str) -> None:
    try:
        Resource.model_validate_json(text)
    except ValidationError as error:
        told = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in told["loc"])
        raise PluginError(f"{where} could not be read again: {place}: {told['msg']}. The plugin must mend this.") from None


def _facts(text: str) -> dict[str, Any]:
    """What a line holds; nothing if it is damaged: the next change mends it."""
    with contextlib.suppress(ValueError):
        values = json.loads(text)
        return values if isinstance(values, dict) else {}
    return {}


class Making:
    """Something that is being made; what is recorded is on the disk at once."""

    def __init__(self, ledger: Ledger, kind: str, name: str) -> None:
        self._ledger, self._kind, self._name = ledger, kind, name

    def record(self, **facts: Any) -> None:
        """Keep facts about the resource (an ARN, a URL: no secrets), to be found by `Context.find` and when it is removed."""
        self._ledger.record(self._kind, self._name, facts)
