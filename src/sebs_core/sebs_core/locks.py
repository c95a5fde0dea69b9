"""Locks between processes: who comes second waits, is told for whom, and a dead process holds nothing.

One file per lock, locked by ``flock`` and removed by who held it last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sebs_core.errors import CacheError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["Locks"]

LONGEST_TOLD = 4096

_held_by_threads: dict[tuple[int, str], str] = {}
"""(thread, lock) → what it is doing with it: waiting for oneself would never end."""


class Locks:
    """Locks by name, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def held(self, name: str, doing: str, waiting: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold a lock alone. Whoever must wait for us is told who we are and what we are `doing`; we tell `waiting`.

        Waiting ends with the other's work or death, or with Ctrl-C.
        """
        return self._holding(name, fcntl.LOCK_EX, doing, waiting)

    def shared(self, name: str, doing: str, waiting: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold a lock together with others who share it; without `doing`, for a moment, untold."""
        return self._holding(name, fcntl.LOCK_SH, doing, waiting)

    @contextmanager
    def _holding(self, name: str, kind: int, doing: str, waiting: Callable[[str], None]) -> Iterator[None]:
        path = self._path(name)
        mine = (threading.get_ident(), str(path))
        descriptor = self._lock(path, kind, waiting)
        if kind == fcntl.LOCK_EX:
            _held_by_threads[mine] = doing
        try:
            if doing:
                told = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "doing": doing}) + "\n"
                with contextlib.suppress(OSError):  # a full disk: then whoever waits is told less
                    os.pwrite(descriptor, told.encode(), 0)
            yield
        finally:
            if kind == fcntl.LOCK_EX:
                _held_by_threads.pop(mine, None)
            _release(path, descriptor)

    @contextmanager
    def if_free(self, name: str) -> Iterator[bool]:
        """Hold a lock alone if nobody else has it; the block is told which."""
        path = self._path(name)
        descriptor = self._open(path)
        try:
            yield _alone(descriptor) and _is_at(descriptor, path)
        finally:
            _release(path, descriptor)

    def _path(self, name: str) -> Path:
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", name)[:60]
        return self.folder / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.lock"

    def _open(self, path: Path) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except PermissionError:  # another user's: it can be locked, not written
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(path, error) from error

    def _lock(self, path: Path, kind: int, waiting: Callable[[str], None]) -> int:
        told = False
        while True:
            descriptor = self._open(path)
            try:
                try:
                    fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                except BlockingIOError:
                    if doing := _held_by_threads.get((threading.get_ident(), str(path))):
                        raise ConfigError(f"this thread would wait for itself: it is {doing} already") from None
                    if not told:
                        waiting(_holder(descriptor))
                        told = True
                    fcntl.flock(descriptor, kind)
                # Who held it before removed the file: then this lock is of no file, and another may hold the new one's.
                if _is_at(descriptor, path):
                    return descriptor
            except OSError as error:
                os.close(descriptor)
                raise _unusable(path, error) from error
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _release(path: Path, descriptor: int) -> None:
    try:
        if _alone(descriptor) and _is_at(descriptor, path):
            path.unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a process forked meanwhile has it open too
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> CacheError:
    return CacheError(
        f"the lock {path} cannot be made: {error.strerror}. Mend the folder's permissions or free some space, or choose "
        "another folder (SEBS_CACHE_DIR, SEBS_STATE_DIR)."
    )


def _alone(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _holder(descriptor: int) -> str:
    try:
        told = json.loads(os.pread(descriptor, LONGEST_TOLD, 0).partition(b"\n")[0])
        return f"waiting for process {told['pid']} on {told['host']}, which is {told['doing']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "waiting for another process of sebs"
