"""From a benchmark and a platform's runtime to a package: what goes in, the built folder, and its record."""

from __future__ import annotations

import datetime
import hashlib
import re
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sebs_core.errors import ConfigError, PackagingError
from sebs_core.models import FunctionConfig, Inputs, Package, Runtime
from sebs_core.packaging.archive import executable, files_of, folder_digest, folder_size, marked_digest, zip_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sebs_core.benchmark import Benchmark
    from sebs_core.offers import Language
    from sebs_core.packaging.index import FileIndex

__all__ = ["Sources", "package_of", "stage", "unpinned", "zip_package"]

LAYOUT = 1
"""Changes when the same sources are arranged differently in a package: older cached packages are then rebuilt."""
FUNCTION_SIDE = Path(__file__).parent.parent / "function_side"
CONSTRAINTS = "constraints.txt"
"""How the names of those texts of a benchmark begin that constrain versions; all others are requirements."""
REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\s*(?:\[[^\]]*\])?\s*"
    r"(?:@\s*(?:https://|git\+https://\S+@[0-9a-f]{40})\S*(?:\s.*)?|\(?[<>=!~].*|;.*|--hash.*)?$"
)
"""A name, with versions or an address that does not change."""
LEADS_ELSEWHERE = re.compile(r"^-|[/\\]")
ARCHIVE = re.compile(r"^[^@]*\.(whl|zip|tar\.gz)$")
COMMENT = re.compile(r"(^|\s)#.*")


class Sources:
    """Everything that goes into a package, found but not yet copied."""

    def __init__(self, benchmark: Benchmark, config: FunctionConfig, runtime: Runtime, language: Language) -> None:
        self.benchmark, self.config, self.runtime, self.language = benchmark, config, runtime, language
        code = benchmark.code(config.language)
        if not (code / language.code_file).is_file():
            raise ConfigError(f"{benchmark.name} is broken: {code / language.code_file} is missing")
        self.texts = language.requirement_texts(code, config)
        for line in (*self.requirements, *self.constraints):
            if "${" in line or ARCHIVE.search(line) or (LEADS_ELSEWHERE.search(line) and not REQUIREMENT.match(line)):
                raise ConfigError(
                    f"{benchmark.name} requires {line!r}: what lies behind it could change unseen. Requirements are names with "
                    "versions, https addresses, or git+https ones at a commit; other files of requirements are written out."
                )
        shared = FUNCTION_SIDE / config.language
        self.code = dict(files_of(code, language.ignored))
        """The benchmark's own files by their name in its folder."""
        self.files = {
            **(dict(files_of(shared, language.ignored)) if shared.is_dir() else {}),
            **{f"function/{name}": path for name, path in self.code.items()},
            **runtime.files,
        }
        """All files by their name in the package."""

    @property
    def requirements(self) -> list[str]:
        """What the shim and the benchmark require, one per line, without comments."""
        texts = (text for name, text in self.texts.items() if not name.startswith(CONSTRAINTS))
        return [*self.runtime.requirements, *_lines(texts)]

    @property
    def constraints(self) -> list[str]:
        """The versions of what is required, and of what that requires in turn; one per line, without comments."""
        return _lines(text for name, text in self.texts.items() if name.startswith(CONSTRAINTS))

    def inputs(self, index: FileIndex | None = None) -> Inputs:
        """All that goes in, piece by piece; files that the index knows are not read."""
        config, runtime, benchmark = self.config, self.runtime, self.benchmark
        try:
            files = self._digests(index)
            described = benchmark.folder / "config.json"
            about = described.read_bytes() if described.is_file() else benchmark.config.model_dump_json().encode()
        except OSError as error:
            raise PackagingError(f"{error.filename or benchmark.folder} cannot be read: {error.strerror or error}") from error
        parts = {
            **{name: _sha256(text.encode()) for name, text in self.texts.items()},
            "config.json": _sha256(about),
            "shim requirements": "\n".join(runtime.requirements),
            "target": runtime.wheel_platform or sysconfig.get_platform(),
            "base image": runtime.base_image or "",
            "entry point": runtime.entry_point,
            "language": config.language,
            "language version": config.language_version,
            "language variant": config.language_variant,
            "system variant": config.system_variant,
            "architecture": config.architecture,
            "benchmark": benchmark.name,
            "workload version": benchmark.config.workload_version,
            "layout": str(LAYOUT),
        }
        # A platform's file may be called as a part is: it must not hide it.
        return Inputs(parts={**parts, **{f"./{name}" if name in parts else name: value for name, value in files.items()}})

    def _digests(self, index: FileIndex | None) -> dict[str, str]:
        """File → digest, marked if it is executable. The few files that are not the benchmark's are always read."""
        known: dict[str, str] = {}
        if index is not None:
            folder = self.benchmark.code(self.config.language)
            known = {f"function/{name}": digest for name, digest in index.digests(folder, self.code).items()}
        own = self.runtime.files
        return {name: known[name] if name in known and name not in own else marked_digest(path)
                for name, path in self.files.items()}  # fmt: skip


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _lines(texts: Iterable[str]) -> list[str]:
    """Without comments and empty lines; what a backslash continues is one line."""
    said = "\n".join(COMMENT.sub("", line).rstrip() for text in texts for line in text.splitlines())
    return [line.strip() for line in said.replace("\\\n", " ").splitlines() if line.strip()]


def unpinned(requirements: Sequence[str], constraints: Sequence[str] = ()) -> list[str]:
    """Those requirements whose version may be another one tomorrow: neither they nor a constraint for every target say it."""
    sure = {_name(line) for line in constraints if _is_pinned(line) and ";" not in line}
    return [line for line in requirements if not _is_pinned(line) and _name(line) not in sure]


def _is_pinned(requirement: str) -> bool:
    version = re.split(";| --", requirement)[0].strip()
    return "@" in version or re.search(r"===?[^=*]+$", version) is not None


def _name(requirement: str) -> str:
    """Its distribution's name, normalised as PEP 503 has it."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else requirement


def stage(sources: Sources, folder: Path) -> dict[str, str]:
    """Build the package's folder: shim, code and dependencies. Returns the dependencies, distribution → version."""
    folder.mkdir()
    try:
        dependencies = sources.language.install(
            folder, sources.requirements, sources.constraints, sources.runtime, sources.config
        )
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
