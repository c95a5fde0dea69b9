"""Digests of folders, and a zip whose bytes depend on nothing but its contents."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING

from sebs_core.errors import PackagingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["executable", "files_of", "folder_digest", "folder_size", "zip_folder"]

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold."""


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name with slashes, path) of every file below `folder`, in the order of the names.

    Raises `PackagingError` for a link that leads out of the folder, and for what is neither file nor folder.
    """
    root = folder.resolve()
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise PackagingError(f"{path} is a link that leads out of {folder}: put the file itself there")
        if path.is_symlink() and path.is_dir():
            raise PackagingError(f"{path} is a link to a folder: put the folder itself there")
        if path.is_file():
            found.append((path.relative_to(folder).as_posix(), path))
        elif not path.is_dir():
            raise PackagingError(f"{path} is neither a file nor a folder and cannot be packaged")
    return iter(sorted(found))


def executable(path: Path) -> bool:
    """Whether its owner may run it: the only permission that a package keeps."""
    return bool(path.stat().st_mode & 0o100)


def folder_digest(folder: Path) -> str:
    """SHA-256 over names, executable bits and contents, as hex."""
    digest = hashlib.sha256()
    for name, path in files_of(folder):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
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
