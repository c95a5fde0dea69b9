"""What can be rebuilt, kept between sessions: built packages by digest, and the functions that were deployed.

One folder of JSON records and built folders; every file is written beside its place and renamed into it, so that a reader
finds all of it or nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from sebs_core.errors import CacheError
from sebs_core.models import Function, Package, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cache", "default_cache_folder", "write_atomically"]

AnyRecord = TypeVar("AnyRecord", bound=Record)


def default_cache_folder() -> Path:
    """``SEBS_CACHE_DIR``, else the user's cache folder as the system has it (XDG base directories, or macOS' own)."""
    given = os.environ.get("SEBS_CACHE_DIR")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sebs"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sebs"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash leaves the old or the new, synced to the disk."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class Cache:
    """The cache folder. Reading never changes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise CacheError(
                f"the cache folder {self.folder} cannot be written: {error.strerror or error}. Free some space, mend its "
                "permissions, or choose another one with --cache-dir (SEBS_CACHE_DIR)."
            ) from error

    def _read(self, path: Path, model: type[AnyRecord]) -> AnyRecord | None:
        try:
            return model.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"{path} cannot be read: {error.strerror}. Mend its permissions, or use --cache-dir.") from error
        except ValidationError as error:
            raise CacheError(
                f"{path} is damaged ({error.error_count()} errors). Remove this file: it will be made again."
            ) from None

    def _write(self, path: Path, record: Record) -> None:
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, record.model_dump_json(indent=1).encode())

    @property
    def resources_id(self) -> str:
        """Eight characters in the names of all that this user makes; made on first need."""
        path = self.folder / "resources_id"
        known = self._text(path)
        if known is not None:
            return known
        with self._writing():
            handle, temporary = tempfile.mkstemp(prefix=".resources_id.", dir=self.folder)
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(secrets.token_hex(4))
                # A link is made at once or not at all: of several first sessions one makes it, the others read it.
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        return self._text(path) or ""

    def _text(self, path: Path) -> str | None:
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"{path} cannot be read: {error.strerror}. Mend the folder, or use --cache-dir.") from error

    @contextmanager
    def building(self) -> Iterator[Path]:
        """A folder to build in, on the cache's file system; what is left in it is removed."""
        with self._writing():
            parent = self.folder / "building"
            parent.mkdir(exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def package(self, platform: str, inputs: str) -> Package | None:
        """The package built from these inputs, or None; one whose files are gone counts as None."""
        package = self._read(self.folder / "inputs" / platform / f"{inputs}.json", Package)
        if package is None:
            return None
        package = package.model_copy(update={"path": self.folder / package.path})
        return package if package.path.exists() else None

    def keep_package(self, platform: str, package: Package) -> Package:
        """Move what was built under its digest and record it; returns the package with its lasting path."""
        place = Path("packages") / package.digest / package.path.name
        target = self.folder / place
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                try:
                    package.path.rename(target)
                except OSError:
                    if not target.exists():  # otherwise another session built the same: equal digests, equal contents
                        raise
        kept = package.model_copy(update={"path": place})
        self._write(self.folder / "inputs" / platform / f"{package.inputs}.json", kept)
        return kept.model_copy(update={"path": target})

    def function(self, platform: str, name: str) -> Function | None:
        """The function of this name as it was deployed last, or None."""
        return self._read(self.folder / "functions" / platform / f"{name}.json", Function)

    def keep_function(self, function: Function) -> None:
        """Remember a deployed function."""
        self._write(self.folder / "functions" / function.platform / f"{function.name}.json", function)

    def forget_function(self, platform: str, name: str) -> None:
        """Forget a function that is gone."""
        with self._writing():
            (self.folder / "functions" / platform / f"{name}.json").unlink(missing_ok=True)
