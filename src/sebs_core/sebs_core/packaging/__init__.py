"""From a benchmark and a platform's runtime to a package: what goes in, the built folder, and its record."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
import sysconfig
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sebs_core.errors import ConfigError, PackagingError
from sebs_core.models import FunctionConfig, Package, Runtime
from sebs_core.packaging.archive import executable, files_of, folder_digest, folder_size, zip_folder

if TYPE_CHECKING:
    from sebs_core.benchmark import Benchmark
    from sebs_core.offers import Language

__all__ = ["Sources", "package_of", "stage", "unpinned", "zip_package"]

LAYOUT = 1
"""Changes when the same sources are arranged differently in a package: older cached packages are then rebuilt."""
FUNCTION_SIDE = Path(__file__).parent.parent / "function_side"


class Sources:
    """Everything that goes into a package, found but not yet copied."""

    def __init__(self, benchmark: Benchmark, config: FunctionConfig, runtime: Runtime, language: Language) -> None:
        self.benchmark, self.config, self.runtime, self.language = benchmark, config, runtime, language
        code = benchmark.code(config.language)
        if not (code / language.code_file).is_file():
            raise ConfigError(f"{benchmark.name} is broken: {code / language.code_file} is missing")
        self.texts = language.requirement_texts(code, config)
        shared = FUNCTION_SIDE / config.language
        self.files: dict[str, Path] = {}
        for prefix, folder in (("", shared), ("function/", code)):
            if folder.is_dir():
                self.files |= {prefix + name: path for name, path in files_of(folder) if not self._ignored(name)}
        self.files |= runtime.files

    def _ignored(self, name: str) -> bool:
        return any(fnmatch(part, pattern) for part in name.split("/") for pattern in self.language.ignored)

    @property
    def requirements(self) -> list[str]:
        """What the shim and the benchmark require, one per line, without comments."""
        lines = [line.split(" #")[0].strip() for text in self.texts.values() for line in text.splitlines()]
        return [*self.runtime.requirements, *(line for line in lines if line and not line.startswith("#"))]

    def digest(self) -> str:
        """SHA-256 of all that goes in: the key under which a package is kept."""
        config, runtime = self.config, self.runtime
        parts: dict[str, Any] = {
            "layout": LAYOUT,
            "files": {
                name: [hashlib.sha256(path.read_bytes()).hexdigest(), executable(path)]
                for name, path in sorted(self.files.items())
            },
            "texts": self.texts,
            "requirements": runtime.requirements,
            "target": runtime.wheel_platform or sysconfig.get_platform(),
            "base_image": runtime.base_image,
            "entry_point": runtime.entry_point,
            "language": [config.language, config.language_version, config.language_variant],
            "variant": [config.system_variant, config.architecture],
            "workload_version": self.benchmark.config.workload_version,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def unpinned(requirements: list[str]) -> list[str]:
    """Those requirements whose version may be another one tomorrow."""
    versions = ((line, line.split(";")[0].split(" --")[0].strip()) for line in requirements)
    return [line for line, version in versions if "@" not in version and not re.search(r"===?[^=*]+$", version)]


def stage(sources: Sources, folder: Path) -> dict[str, str]:
    """Build the package's folder: shim, code and dependencies. Returns the dependencies, distribution → version."""
    folder.mkdir()
    try:
        dependencies = sources.language.install(folder, sources.requirements, sources.runtime, sources.config)
        for name, path in sources.files.items():
            target = folder / name
            if target.exists():
                raise PackagingError(f"a dependency of {sources.benchmark.name} brings a file {name}, which is SeBS' own name")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o755 if executable(path) else 0o644)
    except OSError as error:
        raise PackagingError(
            f"the package of {sources.benchmark.name} could not be written to {folder}: {error.strerror or error}. "
            "Free some space, or choose another cache folder (--cache-dir)."
        ) from error
    return dependencies


def package_of(
    benchmark: Benchmark,
    config: FunctionConfig,
    folder: Path,
    *,
    kind: Literal["folder", "zip", "container"],
    path: Path,
    entry_point: str = "handler.handler",
    **more: Any,
) -> Package:
    """The record of a package made from the built `folder` and lying at `path`. For platforms' ``sebs_package``."""
    return Package(
        benchmark=benchmark.name,
        workload_version=benchmark.config.workload_version,
        digest=folder_digest(folder),
        inputs="",
        kind=kind,
        path=path,
        size_bytes=folder_size(path) if path.is_dir() else path.stat().st_size,
        language=config.language,
        language_version=config.language_version,
        language_variant=config.language_variant,
        system_variant=config.system_variant,
        architecture=config.architecture,
        memory_mb=benchmark.config.memory,
        timeout_s=benchmark.config.timeout,
        entry_point=entry_point,
        created=datetime.datetime.now(datetime.timezone.utc),
        **more,
    )


def zip_package(benchmark: Benchmark, config: FunctionConfig, folder: Path) -> Package:
    """The built-in package: a deterministic zip beside the folder."""
    archive = folder.with_suffix(".zip")
    zip_folder(folder, archive)
    return package_of(benchmark, config, folder, kind="zip", path=archive)
