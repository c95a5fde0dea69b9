"""Digests of files that did not change, remembered: a benchmark of a thousand files is recognised without reading one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from typing import TYPE_CHECKING

from sebs_core.errors import CacheError
from sebs_core.packaging.archive import content_digest, files_of, marked, marked_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sebs_core.database import Database

__all__ = ["FileIndex", "artefact_digest"]

logger = logging.getLogger(__name__)

RACY_NS = 2_000_000_000
"""A file that changed less than this ago may change again without its times telling: the coarsest clock of a file system."""


class FileIndex:
    """Name → digest (`marked_digest`) of the files of a folder; hashes those whose size, times or inode are new.

    It never takes a changed file for the one before. As git does it, what is hashed within `RACY_NS` of the file's last
    change is not remembered, and neither is a file with a time in the future, by whose clock nothing can be told.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def digests(self, folder: Path, files: Mapping[str, Path]) -> dict[str, str]:
        """The digest of each file by its name. `files` are all of this folder: what is known of others there is forgotten."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT name, stat, digest FROM file WHERE folder=?", (str(folder),))
            known = {name: (stat, digest) for name, stat, digest in rows}
        digests, learnt = {}, []
        for name, path in files.items():
            stat, digest = known.get(name, ("", ""))
            if stat != _told(path.stat()):
                digest, stat = _hashed(path)
                if stat:
                    learnt.append((str(folder), name, stat, digest))
            digests[name] = digest
        gone = [(str(folder), name) for name in known.keys() - files.keys()]
        if learnt or gone:
            self._keep(learnt, gone)
        return digests

    def _keep(self, learnt: list[tuple[str, str, str, str]], gone: list[tuple[str, str]]) -> None:
        try:
            with self._database.writing() as connection:
                connection.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", learnt)
                connection.executemany("DELETE FROM file WHERE folder=? AND name=?", gone)
        except CacheError as error:
            logger.warning("the digests of source files were not stored, so that all are read again next time: %s", error)


def artefact_digest(path: Path, index: FileIndex | None = None) -> str:
    """SHA-256 of a kept package, a file or a folder: names, executable bits, contents. With an index nearly nothing is read."""
    root, files = (path, dict(files_of(path))) if path.is_dir() else (path.parent, {path.name: path})
    digests = index.digests(root, files) if index else {name: marked_digest(file) for name, file in files.items()}
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def _told(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _hashed(path: Path) -> tuple[str, str]:
    """The file's digest, and the stat by which it can be recognised; empty if it cannot."""
    settled = time.time_ns() - RACY_NS
    with path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        digest = marked(content_digest(file), before)
        after = os.fstat(file.fileno())
    recognisable = _told(before) == _told(after) and max(before.st_mtime_ns, before.st_ctime_ns) <= settled
    return digest, _told(before) if recognisable else ""
