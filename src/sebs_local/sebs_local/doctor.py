"""``sebs platform doctor local``: what this machine can do, and how to mend what it cannot."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sebs_core.errors import ConfigError
from sebs_local.interpreters import interpreter
from sebs_local.models import CAPABILITIES, PYTHON_VERSIONS

if TYPE_CHECKING:
    from sebs_local.models import LocalSettings

__all__ = ["checks"]

ENOUGH_BYTES = 1 << 30


def checks(settings: LocalSettings) -> list[tuple[str, bool, str]]:
    """Rows of (what, whether it is well, what was found or how to mend it)."""
    rows = [_python(version) for version in PYTHON_VERSIONS]
    return [*rows, _port(settings.port), _folder(), _process()]


def _python(version: str) -> tuple[str, bool, str]:
    try:
        return f"Python {version}", True, str(interpreter(version))
    except ConfigError as error:
        needed = version == CAPABILITIES.languages[0].versions[0]
        return (
            f"Python {version}",
            not needed,
            str(error) if needed else f"not here; needed for --language-version {version} only",
        )


def _port(port: int) -> tuple[str, bool, str]:
    what = f"port {port} on 127.0.0.1" if port else "a port on 127.0.0.1"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return what, False, f"{error.strerror}: choose another one (--set port=NUMBER), or 0 for any free one"
        return what, True, "free"


def _folder() -> tuple[str, bool, str]:
    folder = Path(tempfile.gettempdir())
    what = f"working folders in {folder}"
    try:
        with tempfile.TemporaryDirectory(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return what, False, f"{error.strerror}: let TMPDIR name a folder that you may write to"
    if free < ENOUGH_BYTES:
        return what, False, f"only {free >> 20} MiB are free: free some space, or let TMPDIR name another folder"
    return what, True, f"{free >> 20} MiB free"


def _process() -> tuple[str, bool, str]:
    what = "a process of its own session"
    begun = time.monotonic()
    try:
        subprocess.run([sys.executable, "-S", "-c", "pass"], check=True, timeout=20, start_new_session=True)
    except (OSError, subprocess.SubprocessError) as error:
        return what, False, f"cannot be started ({error}): look at the limit of processes (ulimit -u)"
    return what, True, f"started and ended in {(time.monotonic() - begun) * 1000:.0f} ms"
