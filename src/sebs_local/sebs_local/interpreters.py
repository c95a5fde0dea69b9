"""Finding the interpreter for a version of Python on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sebs_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["interpreter"]

QUESTION = (
    "import json, sys; print(json.dumps([sys.implementation.name, *sys.version_info[:2], sys.base_prefix, sys.executable]))"
)
PATIENCE_S = 20.0


def interpreter(version: str) -> Path:
    """The real interpreter (no virtual environment, no shim) of CPython `version`, e.g. ``"3.12"``.

    Ours, if it is the one; else the first that runs, of: ``python3.X`` on the PATH, those that pyenv has built, those that
    uv has installed. Raises `ConfigError`, which lists them, when none does.
    """
    if version == f"{sys.version_info.major}.{sys.version_info.minor}" and sys.implementation.name == "cpython":
        return _outside(Path(sys.base_prefix), version) or Path(getattr(sys, "_base_executable", sys.executable))
    tried = []
    for candidate in _candidates(version):
        found, failure = _verified(candidate, version)
        if found is not None:
            return found
        tried.append(f"{candidate} ({failure})")
    searched = "; ".join(tried) or f"no python{version} on the PATH, none of pyenv's or uv's"
    raise ConfigError(
        f"no interpreter for Python {version} was found on this machine: {searched}. Install one (`uv python install "
        f"{version}`), put it on the PATH, or choose another version (--language-version)."
    )


def _candidates(version: str) -> Iterator[Path]:
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder or ".") / f"python{version}"
        if os.access(path, os.X_OK):
            yield path
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    managed = _managed_by_uv(version)
    if managed is not None:
        yield managed


def _managed_by_uv(version: str) -> Path | None:
    import uv

    # Only uv's own ones: asked for any, uv gives up at the first python on the PATH that does not run.
    command = [uv.find_uv_bin(), "python", "find", "--managed-python", "--no-python-downloads", "--no-project", "--no-config"]
    try:
        done = subprocess.run([*command, version], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def _verified(path: Path, version: str) -> tuple[Path | None, str]:
    """The real interpreter behind `path`; or None and why it is of no use. Version managers put shims there that fail."""
    try:
        done = subprocess.run([path, "-I", "-c", QUESTION], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"cannot be run: {error}"
    if done.returncode != 0:
        return None, f"cannot be run: {(done.stderr.strip() or 'no reason given').splitlines()[0]}"
    try:
        name, major, minor, prefix, executable = json.loads(done.stdout)
    except ValueError:
        return None, "does not behave like Python"
    if name != "cpython" or f"{major}.{minor}" != version:
        return None, f"is {name} {major}.{minor}"
    return _outside(Path(prefix), version) or Path(executable), ""


def _outside(prefix: Path, version: str) -> Path | None:
    """The interpreter of an installation, from within one of its virtual environments too."""
    path = prefix / "bin" / f"python{version}"
    return path if path.exists() else None
