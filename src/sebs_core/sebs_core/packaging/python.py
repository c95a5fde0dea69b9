"""Packages in Python: dependencies by uv, as wheels for the target, never built on the way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sebs_core.errors import ConfigError, PackagingError
from sebs_core.offers import Language

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sebs_core.models import FunctionConfig, Runtime

__all__ = ["PYTHON"]

NO_NETWORK = re.compile(r"dns error|failed to lookup|connection refused|network is unreachable|error sending request|offline|"
                        r"network was disabled|timed out|connect error", re.IGNORECASE)  # fmt: skip


def requirement_texts(code: Path, config: FunctionConfig) -> dict[str, str]:
    """``requirements.txt`` and ``constraints.txt``; of each the one for this version if there is one (``….txt.3.12``)."""
    texts = {}
    for general in ("requirements.txt", "constraints.txt"):
        name = next((name for name in (f"{general}.{config.language_version}", general) if (code / name).is_file()), None)
        if name:
            try:
                texts[name] = (code / name).read_bytes().decode()
            except UnicodeDecodeError as error:
                raise ConfigError(f"{code / name} is not UTF-8 text: {error}") from None
    return texts


def install(
    folder: Path, requirements: Sequence[str], constraints: Sequence[str], runtime: Runtime, config: FunctionConfig
) -> dict[str, str]:
    """Install wheels into `folder` for the target's Python and platform; returns distribution → version.

    `constraints` decide versions, also of what the requirements require in turn, and add nothing.

    Raises `PackagingError` when no wheel fits, a requirement is wrong, or the index cannot be reached.
    """
    if not requirements:
        return {}
    import uv

    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-python-downloads", "--only-binary", ":all:"]
    command += ["--python", sys.executable, "--python-version", config.language_version, "--target", str(folder)]
    command += ["--link-mode", "copy", "--requirements", "-"]
    if runtime.wheel_platform:
        command += ["--python-platform", runtime.wheel_platform]
    if constraints:
        limits = folder.parent / "constraints.txt"
        limits.write_text("\n".join(constraints), encoding="utf-8")
        command += ["--constraints", str(limits)]
    # uv takes settings from the nearest uv.toml or pyproject.toml above: an empty one here keeps a user's project out of it.
    (folder.parent / "uv.toml").touch()
    environment = {
        key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "UV_CONSTRAINT", "UV_OVERRIDE")
    }
    done = subprocess.run(
        command,
        input="\n".join(requirements),
        cwd=folder.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PackagingError(_explained(done.stderr, requirements, constraints, runtime, config))
    _forget_this_machine(folder)
    return {d.metadata["Name"]: d.version for d in metadata.distributions(path=[str(folder)])}


def _explained(
    stderr: str, requirements: Sequence[str], constraints: Sequence[str], runtime: Runtime, config: FunctionConfig
) -> str:
    target = f"Python {config.language_version} on {runtime.wheel_platform or 'this machine'}"
    said = " ".join(stderr.split())
    what = f"installing {', '.join(requirements)} for {target} failed"
    if "no wheels" in said or "no usable wheels" in said or "building from source is disabled" in said.lower():
        todo = "No prebuilt wheel fits the target: choose another version of the requirement or of the language."
    elif "no space left" in said.lower() or "os error 28" in said.lower():
        todo = "The disk is full: free some space, or choose another cache folder (--cache-dir)."
    elif NO_NETWORK.search(said):
        todo = "The package index could not be reached: check the network and proxy settings, or run once while online."
    else:
        todo = f"Check the names and versions in requirements.txt{' and constraints.txt' if constraints else ''}."
    return f"{what}. {todo} uv said: {said}"


def _forget_this_machine(folder: Path) -> None:
    """Remove what would differ on another machine: uv's lock, and scripts that name this machine's interpreter."""
    (folder / ".lock").unlink(missing_ok=True)
    scripts = folder / "bin"
    gone = []
    if scripts.is_dir():
        for script in scripts.iterdir():
            with script.open("rb") as file:
                names_interpreter = file.read(2) == b"#!"
            if names_interpreter:
                gone.append(f"bin/{script.name}")
                script.unlink()
        if not any(scripts.iterdir()):
            scripts.rmdir()
    for record in folder.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not any(name in line.split(",", 1)[0] for name in gone)]
        record.write_text("".join(sorted(kept)), encoding="utf-8")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)


PYTHON = Language(
    name="python",
    code_file="function.py",
    requirement_texts=requirement_texts,
    ignored=("__pycache__", "*.pyc", "requirements.txt*", "constraints.txt*", ".DS_Store", ".ipynb_checkpoints"),
    install=install,
)
