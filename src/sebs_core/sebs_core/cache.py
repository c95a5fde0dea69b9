"""What can be rebuilt, kept between sessions: packages by digest, publications, functions, data of benchmarks.

::

    cache.sqlite        records by key, and the digests of source files
    packages/DIGEST/    built folders and zips; never changed once there
    building/           packages being built, one folder per build that is going on
    locks/              who builds, who uses a package

The folder can be moved, shared between processes and versions, deleted at any time, and read where it cannot be written: then
what is made in a session is forgotten with it. Nothing here says what exists in the world: that is `sebs_core.state`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError

from sebs_core.confidential import Confidential
from sebs_core.database import Database
from sebs_core.errors import CacheError
from sebs_core.keypath import merged
from sebs_core.locks import Locks
from sebs_core.models import Function, Inputs, Package, Record, StoredValues

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = ["Cache", "Entry", "default_cache_folder"]

logger = logging.getLogger(__name__)

AnyRecord = TypeVar("AnyRecord", bound=Record)
Data = Literal["storage", "nosql"]

FILE = "cache.sqlite"
MIGRATIONS = (
    """
    CREATE TABLE entry (
      kind TEXT NOT NULL, platform TEXT NOT NULL, account TEXT NOT NULL, name TEXT NOT NULL, benchmark TEXT NOT NULL,
      record TEXT NOT NULL, created_ns INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
      PRIMARY KEY (kind, platform, account, name)
    );
    CREATE TABLE file (
      folder TEXT NOT NULL, name TEXT NOT NULL, stat TEXT NOT NULL, digest TEXT NOT NULL,
      PRIMARY KEY (folder, name)
    ) WITHOUT ROWID
    """,
)
PUT = """
    INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (kind, platform, account, name) DO UPDATE
    SET benchmark=excluded.benchmark, record=excluded.record, modified_ns=excluded.modified_ns
"""
ONE = "kind=? AND platform=? AND account=? AND name=?"


def default_cache_folder() -> Path:
    """``SEBS_CACHE_DIR``, else the user's cache folder as the system has it (XDG base directories, or macOS' own)."""
    given = os.environ.get("SEBS_CACHE_DIR")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sebs"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sebs"


@dataclass(frozen=True)
class Entry:
    """One record of the cache, as it is listed."""

    kind: str
    """``package``, ``inputs`` (of the latest build of a variant), ``published``, ``function``, ``storage`` or ``nosql``."""
    platform: str
    account: str
    """Empty for what belongs to no account."""
    name: str
    benchmark: str
    record: str
    """As JSON."""
    created_ns: int
    """Epoch nanoseconds."""
    modified_ns: int
    size_bytes: int
    """Of the record, and of the package's files."""

    @property
    def key(self) -> str:
        """``kind/platform/account/name``, as ``sebs cache show`` takes it."""
        return "/".join(part for part in (self.kind, self.platform, self.account, self.name) if part)


class Cache:
    """A cache folder. Reading never changes it; close the object to let go of the packages that it handed out."""

    def __init__(
        self,
        folder: Path,
        *,
        ignore: Collection[str] = (),
        confidential: Confidential | None = None,
        tell: Callable[[str], None] = logger.info,
    ) -> None:
        """`ignore`: ``functions`` or ``storage``, of which nothing is found then. `tell` is told for whom we wait."""
        self.folder = folder.absolute()
        self.ignore = ignore
        self._tell = tell
        self._confidential = confidential or Confidential()
        self._in_use: dict[str, contextlib.AbstractContextManager[None]] = {}

    def close(self) -> None:
        """Let go of packages; more than once is no error."""
        for lock in self._in_use.values():
            lock.__exit__(None, None, None)
        self._in_use.clear()
        if "_home" in self.__dict__ and self._home != self.folder:
            shutil.rmtree(self._home, ignore_errors=True)
            del self._home

    @functools.cached_property
    def read_only(self) -> bool:
        """Whether the folder is there and cannot be written."""
        places = (self.folder, self.folder / FILE)
        return not all(os.access(place, os.W_OK) for place in places if os.path.exists(place))  # noqa: PTH110 - never raises

    @functools.cached_property
    def _home(self) -> Path:
        """Where is written: the folder, or a copy of its records that ends with this object."""
        if not self.read_only:
            return self.folder
        home = Path(tempfile.mkdtemp(prefix="sebs-cache-"))
        try:
            self._database_in(self.folder).copy_to(home / FILE)
        except BaseException:
            shutil.rmtree(home)
            raise
        return home

    @property
    def database(self) -> Database:
        """Where the records are."""
        return self._database_in(self._home)

    def _database_in(self, folder: Path) -> Database:
        way_out = f"choose another folder (--cache-dir, SEBS_CACHE_DIR): all that {folder} holds can be made again."
        return Database(folder / FILE, MIGRATIONS, way_out=way_out)

    @property
    def _locks(self) -> Locks:
        return Locks(self._home / "locks")

    # --- records ----------------------------------------------------------------------------------------------------------

    def _get(self, model: type[AnyRecord], *key: str) -> AnyRecord | None:
        with self.database.reading() as connection:
            row = connection.execute(f"SELECT record FROM entry WHERE {ONE}", key).fetchone()  # noqa: S608
        return None if row is None else self._decoded(model, row[0], "/".join(key))

    def _all(
        self, model: type[AnyRecord], kind: str, platform: str, account: str | None, benchmark: str | None
    ) -> list[AnyRecord]:
        found = self.entries(kind=kind, platform=platform, account=account, benchmark=benchmark)
        decoded = (self._decoded(model, entry.record, entry.key) for entry in found)
        return [record for record in decoded if record is not None]

    def _decoded(self, model: type[AnyRecord], text: str, key: str) -> AnyRecord | None:
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            logger.warning("the record %s in %s cannot be read and counts as absent: %s", key, self.folder, error)
            return None

    def _row(self, key: tuple[str, str, str, str], benchmark: str, record: Record) -> tuple[Any, ...]:
        text = record.model_dump_json()
        self._confidential.refuse(text, f"the record {'/'.join(key)} of the cache")
        now = time.time_ns()
        return (*key, benchmark, text, now, now)

    def _put(self, key: tuple[str, str, str, str], benchmark: str, record: Record) -> None:
        row = self._row(key, benchmark, record)
        with self.database.writing() as connection:
            connection.execute(PUT, row)

    def entries(
        self, *, kind: str | None = None, platform: str | None = None, account: str | None = None, benchmark: str | None = None
    ) -> list[Entry]:
        """All records of which these are true, by key: all that is known of a benchmark on a platform, for instance."""
        given = {"kind": kind, "platform": platform, "account": account, "benchmark": benchmark}
        wanted = {column: value for column, value in given.items() if value is not None}
        condition = " AND ".join(f"{column}=?" for column in wanted) or "TRUE"
        columns = "kind, platform, account, name, benchmark, record, created_ns, modified_ns"
        with self.database.reading() as connection:
            rows = connection.execute(
                f"SELECT {columns} FROM entry WHERE {condition} ORDER BY kind, platform, account, name",  # noqa: S608
                tuple(wanted.values()),
            ).fetchall()
        return [Entry(**row, size_bytes=len(row["record"].encode()) + self._size_of(row["kind"], row["record"]))
                for row in (dict(zip(columns.split(", "), values, strict=True)) for values in rows)]  # fmt: skip

    def _size_of(self, kind: str, record: str) -> int:
        if kind != "package" or (package := self._decoded(Package, record, "package")) is None:
            return 0
        return _size(self._place_of(package).parent)

    # --- packages ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def building(self, platform: str, inputs: str, doing: str) -> Iterator[Path]:
        """A folder to build the package of these inputs in, alone; what is left in it is removed.

        Who comes second waits: look into the cache again, the package may be there by now.
        """
        name = f"{platform}-{inputs}"
        with self._locks.held(name, doing, self._tell):
            folder = self._home / "building" / name
            with self._writing():
                shutil.rmtree(folder, ignore_errors=True)  # of one that died
                folder.mkdir(parents=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def package(self, platform: str, inputs: str) -> Package | None:
        """The package built from these inputs, or None; one whose files are gone counts as None."""
        package = self._get(Package, "package", platform, "", inputs)
        if package is None:
            return None
        self._use(package.digest)
        path = self._place_of(package)
        return package.model_copy(update={"path": path}) if path.exists() else None

    def packages(self, platform: str, benchmark: str | None = None) -> list[Package]:
        """The packages of a platform, of all languages and variants; paths are relative to the cache folder."""
        return self._all(Package, "package", platform, None, benchmark)

    def keep_package(self, platform: str, package: Package, inputs: Inputs) -> Package:
        """Move what was built under its digest and record it; returns the package with its lasting path.

        What was published of an earlier build of the same inputs is forgotten.
        """
        from sebs_core.packaging.index import artefact_digest

        self._use(package.digest)
        with self._writing():
            package = package.model_copy(update={"artefact": artefact_digest(package.path)})
        kept = package.model_copy(update={"path": Path("packages") / package.digest / package.path.name})
        target = self._home / kept.path
        with self._writing():
            _sync(package.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            there = artefact_digest(target) if target.exists() else package.artefact
            if there != package.artefact and self._is_recorded(there):
                # Another build of the same, by a plugin whose packages differ each time: one of both is enough.
                package, kept = (record.model_copy(update={"artefact": there}) for record in (package, kept))
            elif there != package.artefact:
                # Somebody changed it. Who runs from it keeps its files; they are removed by the next prune.
                target.rename(self._home / "building" / f"removed-{package.digest[:16]}-{secrets.token_hex(4)}")
            if not target.exists():
                try:
                    package.path.rename(target)
                except OSError:
                    if not target.exists():  # otherwise another session built the same: equal digests, equal contents
                        raise
        rows = [
            self._row(("package", platform, "", package.inputs), package.benchmark, kept),
            self._row(("inputs", platform, "", package.variant), package.benchmark, inputs),
        ]
        with self.database.writing() as connection:
            connection.executemany(PUT, rows)
            connection.execute("DELETE FROM entry WHERE kind='published' AND platform=? AND name=?", (platform, package.inputs))
        return kept.model_copy(update={"path": target})

    def keep_inputs(self, platform: str, package: Package, inputs: Inputs) -> None:
        """Note that these are the inputs of a variant now, though they were built before others were."""
        if self.inputs(platform, package.variant) != inputs:
            self._put(("inputs", platform, "", package.variant), package.benchmark, inputs)

    def inputs(self, platform: str, variant: str) -> Inputs | None:
        """What went into the latest build of a variant (`Package.variant`)."""
        return self._get(Inputs, "inputs", platform, "", variant)

    def published(self, platform: str, account: str, package: Package) -> Package | None:
        """This package as it was published in this account, with its address; None when it must be published (again)."""
        known = self._get(Package, "published", platform, account, package.inputs)
        if known is None or known.digest != package.digest:
            return None
        return known.model_copy(update={"path": package.path})

    def keep_published(self, platform: str, account: str, package: Package) -> None:
        """Record where the provider holds a package."""
        self._put(("published", platform, account, package.inputs), package.benchmark, package)

    def forget_published(self, platform: str, account: str) -> None:
        """After a clean-up: what was published is published again when it is next needed; packages stay."""
        self._forget("published", platform, account)

    def _use(self, digest: str) -> None:
        """Keep the package's files from being removed until this object is closed."""
        if self._home == self.folder:
            lock = self._locks.shared(f"package {digest}", "using a package", self._tell)
            lock.__enter__()
            before, self._in_use[digest] = self._in_use.get(digest), lock
            if before is not None:  # perhaps of a folder that was deleted since
                before.__exit__(None, None, None)

    def _place_of(self, package: Package) -> Path:
        built_now = self._home / package.path
        return built_now if built_now.exists() else self.folder / package.path

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"the cache folder {self.folder} cannot be written: {error.strerror or error}. Free some space, mend its "
                "permissions, or choose another one with --cache-dir (SEBS_CACHE_DIR)."
            ) from error

    # --- functions --------------------------------------------------------------------------------------------------------

    def function(self, platform: str, account: str, name: str, *, anyway: bool = False) -> Function | None:
        """The function of this name as it was deployed last, or None; `anyway`: also when functions are ignored."""
        ignored = "functions" in self.ignore and not anyway
        return None if ignored else self._get(Function, "function", platform, account, name)

    def functions(self, platform: str, account: str | None = None, benchmark: str | None = None) -> list[Function]:
        """The functions of a platform, of one account or benchmark if given."""
        return [] if "functions" in self.ignore else self._all(Function, "function", platform, account, benchmark)

    def keep_function(self, account: str, function: Function) -> None:
        """Remember a deployed function, or what it is by now."""
        self._put(("function", function.platform, account, function.name), function.benchmark, function)

    def forget_function(self, platform: str, account: str, name: str) -> None:
        """Forget a function that is gone; no error when it is not known."""
        self._forget("function", platform, account, name)

    # --- storage and NoSQL of benchmarks ----------------------------------------------------------------------------------

    def data(self, kind: Data, platform: str, account: str, benchmark: str) -> dict[str, Any] | None:
        """What is known of a benchmark's buckets (``storage``) or tables (``nosql``); None when nothing is."""
        if "storage" in self.ignore:
            return None
        known = self._get(StoredValues, kind, platform, account, benchmark)
        return None if known is None else known.values

    def all_data(self, kind: Data, platform: str, account: str) -> dict[str, dict[str, Any]]:
        """The same of all benchmarks, by name."""
        if "storage" in self.ignore:
            return {}
        found = self.entries(kind=kind, platform=platform, account=account)
        decoded = {entry.name: self._decoded(StoredValues, entry.record, entry.key) for entry in found}
        return {name: record.values for name, record in decoded.items() if record is not None}

    def merge_data(self, kind: Data, platform: str, account: str, benchmark: str, values: dict[str, Any]) -> None:
        """Add to what is known, mapping by mapping. Needs no package of the benchmark."""
        key = (kind, platform, account, benchmark)
        with self.database.writing() as connection:
            row = connection.execute(f"SELECT record FROM entry WHERE {ONE}", key).fetchone()  # noqa: S608
            known = None if row is None else self._decoded(StoredValues, row[0], "/".join(key))
            values = merged(known.values, values) if known else values
            connection.execute(PUT, self._row(key, benchmark, StoredValues(values=values)))

    def forget_data(self, kind: Data, platform: str, account: str, benchmark: str | None = None) -> None:
        """Forget it, of one benchmark or of all."""
        self._forget(kind, platform, account, benchmark)

    def _forget(self, kind: str, platform: str, account: str, name: str | None = None) -> None:
        condition = "kind=? AND platform=? AND account=?" if name is None else ONE
        key = [kind, platform, account, *([] if name is None else [name])]
        with self.database.reading() as connection:
            if connection.execute(f"SELECT 1 FROM entry WHERE {condition}", key).fetchone() is None:  # noqa: S608
                return
        with self.database.writing() as connection:
            connection.execute(f"DELETE FROM entry WHERE {condition}", key)  # noqa: S608

    # --- the whole --------------------------------------------------------------------------------------------------------

    def clear(self, platform: str | None = None) -> Sweep:
        """Remove everything, or everything of one platform; packages that a session uses right now stay."""
        self._refuse_read_only()
        with self.database.writing() as connection:
            if platform is None:
                connection.execute("DELETE FROM file")
                removed = connection.execute("DELETE FROM entry").rowcount
            else:
                removed = connection.execute("DELETE FROM entry WHERE platform=?", (platform,)).rowcount
        return self._sweep(removed)

    def prune(self) -> Sweep:
        """Remove what nothing needs: packages that a newer build replaced and no function uses, left-overs of crashes."""
        self._refuse_read_only()
        packages = self.entries(kind="package")  # first: what is built from now on is not looked at
        newest = {(entry.platform, inputs.digest) for entry in self.entries(kind="inputs")
                  if (inputs := self._decoded(Inputs, entry.record, entry.key))}  # fmt: skip
        deployed = {function.package_digest for entry in self.entries(kind="function")
                    if (function := self._decoded(Function, entry.record, entry.key))}  # fmt: skip
        removed = 0
        for entry in packages:
            package = self._decoded(Package, entry.record, entry.key)
            needed = package and ((entry.platform, entry.name) in newest or package.digest in deployed)
            if needed and package and self._place_of(package).exists():
                continue
            with self.database.writing() as connection:
                where = "kind IN ('package', 'published') AND platform=? AND name=?"
                removed += connection.execute(f"DELETE FROM entry WHERE {where}", (entry.platform, entry.name)).rowcount  # noqa: S608
        with self.database.writing() as connection:
            for (folder,) in connection.execute("SELECT DISTINCT folder FROM file").fetchall():
                if not os.path.isdir(folder):  # noqa: PTH112 - one that we may not look at is no error
                    connection.execute("DELETE FROM file WHERE folder=?", (folder,))
        return self._sweep(removed)

    def _refuse_read_only(self) -> None:
        if self.read_only:
            raise CacheError(
                f"the cache folder {self.folder} is read-only: mend its permissions, or choose another (--cache-dir)"
            )

    def _sweep(self, removed: int) -> Sweep:
        """Remove the folders of packages without a record, and of builds that died."""
        freed, used = 0, []
        with self._locks.held("sweep", "removing packages", self._tell):
            for folder in _folders(self.folder / "packages"):
                with self._locks.if_free(f"package {folder.name}") as free:
                    # Under the lock: who builds the same again holds it from before the record is written.
                    if free and not self._is_recorded(folder.name):
                        freed += self._remove(folder)
                    elif not free:
                        used.append(folder.name)
            for folder in _folders(self.folder / "building"):
                with self._locks.if_free(folder.name) as free:
                    freed += self._remove(folder) if free and folder.is_dir() else 0  # or the build has ended
        return Sweep(removed, freed, tuple(used))

    def _is_recorded(self, digest: str) -> bool:
        with self.database.reading() as connection:
            condition = "kind='package' AND instr(record, ?)"
            return connection.execute(f"SELECT 1 FROM entry WHERE {condition}", (f'"{digest}"',)).fetchone() is not None  # noqa: S608

    def _remove(self, folder: Path) -> int:
        size = _size(folder)
        with self._writing():
            # At once out of sight: nobody may meet half a package.
            (self.folder / "building").mkdir(exist_ok=True)
            out_of_sight = Path(tempfile.mkdtemp(prefix="removed-", dir=self.folder / "building"))
            folder.rename(out_of_sight)
            shutil.rmtree(out_of_sight)
        return size


@dataclass(frozen=True)
class Sweep:
    """What a `Cache.clear` or `Cache.prune` did."""

    records: int
    freed_bytes: int
    in_use: tuple[str, ...]
    """Digests of packages that stay because a session uses them."""


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _size(path: Path) -> int:
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process removes it
                size += Path(folder, name).stat().st_size
    return size


def _sync(path: Path) -> None:
    """Bring a built package to the disk before a record says that it is there; from now on nobody is to change it."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o555)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
