"""What the tests of the documentation share: an environment of their own, and a probe of packaging."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEPENDENCIES = Path(__file__).parents[2] / "benchmarks" / "sebs_benchmarks" / "110.dynamic-html" / "python" / "requirements.txt"


@pytest.fixture(scope="session")
def packaging(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where the dependencies of 110.dynamic-html can be had neither from uv's cache nor from an index."""
    import uv

    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-python-downloads", "--only-binary", ":all:"]
    command += ["--python", sys.executable, "--target", str(tmp_path_factory.mktemp("probe") / "code")]
    command += ["--requirements", str(DEPENDENCIES)]
    environment = {**os.environ, "UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "0"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        done, said = None, ["no answer within 30 s"]
    if done is None or done.returncode:
        pytest.skip(f"packaging needs a package index, or uv's cache, and has neither: {' '.join(said)}")


@pytest.fixture(scope="module")
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables for a user with this interpreter, an empty cache, and none of our settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEBS_")}
    folders = [str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]
    return {**kept, "PATH": os.pathsep.join(folders), "SEBS_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
