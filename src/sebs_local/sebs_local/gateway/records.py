"""What the gateway remembers of calls: their numbers, in files; what they printed, in bounded memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEPT_BYTES", "KEPT_CALLS", "Logs", "Numbers", "Printed"]

KEPT_BYTES = 64 * 1024
"""Of what one call printed, the last so many bytes are kept."""
KEPT_CALLS = 1000
"""Of so many calls, the last ones, it is kept what they printed."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Printed:
    """The end of what one call printed."""

    __slots__ = ("_data", "_size")

    def __init__(self) -> None:
        self._data = bytearray()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Append; what is too old is forgotten."""
        self._size += len(data)
        self._data += data
        if len(self._data) > 2 * KEPT_BYTES:
            del self._data[:-KEPT_BYTES]

    def text(self) -> str:
        """What is kept, with a first line that says how much is not."""
        kept = bytes(self._data[-KEPT_BYTES:])
        dropped = self._size - len(kept)
        head = f"[{dropped} bytes before this were not kept]\n" if dropped else ""
        return head + kept.decode("utf-8", "replace")


class Logs:
    """What the latest calls printed, by request id."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def keep(self, request_id: str, printed: Printed | None) -> None:
        """Remember what this call printed (None: nothing), and forget the oldest call."""
        self._texts[request_id] = printed.text() if printed else ""
        if len(self._texts) > KEPT_CALLS:
            del self._texts[next(iter(self._texts))]

    def text(self, request_id: str) -> str | None:
        """What this call printed; None when it is not known (any more)."""
        return self._texts.get(request_id)


class Numbers:
    """One JSON line per call in a file per function. Buffered: a call costs no system call."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._files: dict[str, TextIO] = {}
        self._failure: OSError | None = None

    def add(self, function: str, numbers: dict[str, Any]) -> None:
        """Write one line. A full disk does not stop the serving: `flush` tells of it."""
        if self._failure is not None:
            return
        try:
            file = self._files.get(function)
            if file is None:
                file = self._files[function] = self._path(function).open("a", encoding="ascii", buffering=1 << 16)
            file.write(_encode(numbers) + "\n")
        except OSError as error:
            self._failure = error

    def flush(self, function: str) -> Path | None:
        """The file, up to date; None when the function was never called. Raises `OSError` when lines were lost."""
        if self._failure is not None:
            raise self._failure
        file = self._files.get(function)
        if file is None:
            return None
        file.flush()
        return self._path(function)

    def _path(self, function: str) -> Path:
        return self._folder / f"{function}.jsonl"
