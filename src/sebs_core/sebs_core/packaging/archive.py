"""Digests of folders, and a zip whose bytes depend on nothing but its contents."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from sebs_core.errors import PackagingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import FileIO

__all__ = ["content_digest", "executable", "files_of", "folder_digest", "folder_size", "marked", "marked_digest", "zip_folder"]

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold."""
NOTHING = "(?!)"
"""The pattern that no name matches."""
CHUNK = 1 << 20
"""Bytes of a file that are in memory at once while it is hashed."""
OWNER_MAY_RUN = 0o100


def files_of(folder: Path, ignored: Sequence[str] = ()) -> list[tuple[str, Path]]:
    """(name with slashes, path) of every file below `folder`, in the order of the names.

    Files and folders whose own name matches a pattern of `ignored` count as absent. Raises `PackagingError` for a link that
    leads out of the folder or to a folder, and for what is neither file nor folder.
    """
    is_ignored = re.compile("|".join(map(fnmatch.translate, ignored)) or NOTHING).match
    found, todo = [], [""]
    for inner in todo:  # which grows on the way
        here = folder / inner
        for entry in _entries(here):
            if is_ignored(entry.name):
                continue
            name, path = inner + entry.name, here / entry.name
            if not name.isascii():
                _check_name(name, folder)
            if entry.is_symlink():
                _check_link(path, folder)
            elif entry.is_dir():
                todo.append(f"{name}/")
                continue
            elif not entry.is_file():
                raise _is_neither(path)
            found.append((name, path))
    return sorted(found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise PackagingError(f"{folder} cannot be read: {error.strerror}") from error


def _check_name(name: str, folder: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PackagingError(f"the name of {name!a} in {folder} is not UTF-8: rename it") from None


def _check_link(path: Path, folder: Path) -> None:
    target = Path(os.path.realpath(path))  # Path.resolve fails where links lead in a circle
    if not target.is_relative_to(folder.resolve()):
        raise PackagingError(f"{path} is a link that leads out of {folder}: put the file itself there")
    if target.is_dir():
        raise PackagingError(f"{path} is a link to a folder: put the folder itself there")
    if not target.is_file():
        raise _is_neither(path)


def _is_neither(path: Path) -> PackagingError:
    return PackagingError(f"{path} is neither a file nor a folder and cannot be packaged")


def executable(path: Path) -> bool:
    """Whether its owner may run it: the only permission that a package keeps."""
    return bool(path.stat().st_mode & OWNER_MAY_RUN)


def content_digest(file: FileIO) -> str:
    """SHA-256 of an open file from where it stands, as hex."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def marked_digest(path: Path) -> str:
    """SHA-256 of a file's content, marked if it is executable: all that a package takes of a file."""
    with path.open("rb", buffering=0) as file:
        return marked(content_digest(file), os.fstat(file.fileno()))


def marked(digest: str, stat: os.stat_result) -> str:
    """The digest of the file that has this stat, with the mark."""
    return f"{digest} executable" if stat.st_mode & OWNER_MAY_RUN else digest


def folder_digest(folder: Path) -> str:
    """SHA-256 over names, executable bits and contents, as hex."""
    digest = hashlib.sha256()
    for name, path in files_of(folder):
        with path.open("rb", buffering=0) as file:
            content = content_digest(file)
        digest.update(f"{len(name.encode())} {name} {'x' if executable(path) else '-'} {content}\n".encode())
    return digest.hexdigest()


def folder_size(folder: Path) -> int:
    """Sum of the sizes of all files, in bytes."""
    return sum(path.stat().st_size for _, path in files_of(folder))


def zip_folder(folder: Path, archive: Path) -> None:
    """Write `archive` from `folder`: names sorted, times fixed, modes 0644 or 0755, deflated."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6, strict_timestamps=True) as target:
        for name, path in files_of(folder):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = (0o100755 if executable(path) else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, path.read_bytes())
