"""One SQLite file, safe between processes: a connection per access, a transaction per change.

Each change is synced before it counts (``synchronous=FULL``, rollback journal: write-ahead logs do not work on network file
systems). No connection outlives its access, so that a file that was moved, deleted or replaced meanwhile is noticed, and a
fork carries none along. The schema's version is SQLite's ``user_version``; older files are migrated when they are opened.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from sebs_core.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Database"]

PATIENCE_S = 60
"""How long an access waits for others; each of them takes milliseconds."""


class Database:
    """`migrations` are SQL scripts: the one at place N brings a file of version N to N+1. `way_out` ends error messages."""

    def __init__(self, path: Path, migrations: Sequence[str], *, way_out: str) -> None:
        self.path, self._migrations, self._way_out = path, migrations, way_out

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read from; an empty one while there is no file. Creates nothing."""
        with self._explained():
            if not self._has_content():
                with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
                    self._migrate(empty)
                    yield empty
                return
            with closing(self._connect("rw")) as connection:
                if self._version(connection) != len(self._migrations):
                    self._migrate(connection)
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection within one transaction: all of the block is stored when it ends, or nothing."""
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect("rwc")) as connection:
                if self._version(connection) != len(self._migrations):
                    self._migrate(connection)
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("SELECT 1 FROM sqlite_master")  # learns of a migration by another since we connected
                yield connection
                connection.execute("COMMIT")  # without it, closing takes everything back

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy, also from a folder that cannot be written; nothing when there is nothing."""
        with self._explained():
            if self._has_content():
                with closing(self._connect("rw")) as source, closing(sqlite3.connect(path)) as target:
                    self._version(source)  # an older one is migrated when the copy is opened
                    source.backup(target)

    def _has_content(self) -> bool:
        try:
            return self.path.stat().st_size > 0
        except FileNotFoundError:
            return False

    def _connect(self, mode: str) -> sqlite3.Connection:
        address = f"file://{quote(os.fsencode(self.path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=PATIENCE_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(self._migrations):
            raise CacheError(
                f"{self.path} was written by a newer version of sebs (its schema is {version}, this one knows up to "
                f"{len(self._migrations)}). Upgrade sebs-core, or {self._way_out}"
            )
        return version

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for number in range(self._version(connection), len(self._migrations)):
            for statement in self._migrations[number].split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number + 1}")
        connection.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of SQLite and of the file system as one that names the file and the way out."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                raise CacheError(f"{self.path} is no file of sebs ({error}). Move it away, or {self._way_out}") from error
            raise CacheError(f"{self.path} cannot be used: {error}. {_todo(str(error))}{self._way_out}") from error
        except sqlite3.DatabaseError as error:
            raise CacheError(f"{self.path} is damaged ({error}). Move it away, or {self._way_out}") from error
        except OSError as error:
            text = error.strerror or str(error)
            raise CacheError(f"{self.path} cannot be used: {text}. {_todo(text)}{self._way_out}") from error


def _todo(text: str) -> str:
    lower = text.lower()
    if "full" in lower or "no space" in lower or "disk i/o" in lower:
        return "Free some space on that disk, or "
    if "locked" in lower:
        return f"Another process has held it for {PATIENCE_S} s: wait for it, or "
    return "Mend the permissions of its folder, or "
