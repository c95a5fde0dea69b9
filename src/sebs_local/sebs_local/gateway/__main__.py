"""Start of the gateway's process."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from sebs_local.gateway.reaper import Reaper

SOCKET_PATH_LIMIT = 100
"""macOS takes 104 bytes for the path of a Unix socket."""


def main() -> int:
    """Folder and reaper first, so that whatever begins after them is cleaned up; then the rest."""
    settings = json.loads(sys.argv[1])
    folder = _private_folder()
    reaper = Reaper(folder)
    try:
        from sebs_local.gateway.service import serve

        return serve(settings, folder, reaper)
    finally:
        reaper.close()


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sebs-local-"))
    if len(str(folder / "control")) > SOCKET_PATH_LIMIT:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="sebs-local-", dir="/tmp"))
    return folder


if __name__ == "__main__":
    sys.exit(main())
