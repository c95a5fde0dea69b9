"""Benchmarks: a folder with code, an input generator and an output check, or a Python function.

A benchmark's folder::

    110.dynamic-html/
      config.json      timeout (s), memory (MB), languages, workload_version, description
      input.py         SIZES, generate_input(size) -> payload, check_output(payload, output) -> None or what is wrong
      python/          function.py with handler(event), requirements.txt, whatever else the code reads
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sebs_core.errors import ConfigError
from sebs_core.settings import Settings, validated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

__all__ = ["Benchmark", "BenchmarkConfig", "BrokenBenchmark", "find", "find_all"]


class BenchmarkConfig(Settings):
    """``config.json`` of a benchmark."""

    timeout: float = Field(gt=0)
    """Seconds."""
    memory: int = Field(gt=0)
    """MiB."""
    languages: tuple[str, ...] = Field(min_length=1)
    workload_version: str = "1"
    """Changes whenever the work that is measured changes; results of different versions are not compared."""
    description: str = ""


@dataclass(frozen=True)
class BrokenBenchmark:
    """A folder that should be a benchmark, and what is wrong with it."""

    name: str
    folder: Path
    error: str


@dataclass(frozen=True)
class Benchmark:
    """Something to measure. Made by `find`, `Benchmark.load` or `Benchmark.from_function`."""

    name: str
    folder: Path
    config: BenchmarkConfig
    error: ClassVar[None] = None
    _keep_alive: object = field(default=None, repr=False, compare=False)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Benchmark:
        """Read a benchmark's folder. Raises `ConfigError` naming the file and what is wrong with it."""
        path = Path(folder).resolve()
        config_file = path / "config.json"
        try:
            values = json.loads(config_file.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path} is no benchmark: {config_file.name} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise ConfigError(f"{config_file} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{config_file} must hold one JSON object")
        config = validated(BenchmarkConfig, values, str(config_file))
        for language in config.languages:
            if not (path / language).is_dir():
                raise ConfigError(f"{config_file} names the language {language}, but there is no folder {path / language}")
        if not (path / "input.py").is_file():
            raise ConfigError(f"{path} is no benchmark: input.py, which generates its inputs, is missing")
        return Benchmark(path.name, path, config)

    @staticmethod
    def from_function(
        handler: Callable[[Any], Any],
        requirements: Sequence[str] = (),
        *,
        name: str | None = None,
        timeout_s: float = 60,
        memory_mb: int = 256,
    ) -> Benchmark:
        """A benchmark from a Python function, also one written in a notebook.

        Its source is taken, with the functions, classes, constants and imports of its module that it uses; the function
        runs in a process of its own, perhaps elsewhere, so nothing else of this program is there. `requirements` are
        what pip would be given. Raises `ConfigError` for what cannot travel: lambdas, closures, live objects.
        """
        from sebs_core.packaging.source import standalone_source

        source = standalone_source(handler)
        # The folder lives as long as the benchmark: code is read from it whenever a package is built.
        holder = tempfile.TemporaryDirectory(prefix="sebs-function-")
        folder = Path(holder.name)
        (folder / "python").mkdir()
        (folder / "python" / "function.py").write_text(source, encoding="utf-8")
        (folder / "python" / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
        config = BenchmarkConfig(
            timeout=timeout_s,
            memory=memory_mb,
            languages=("python",),
            workload_version=hashlib.sha256(source.encode()).hexdigest()[:12],
            description=(handler.__doc__ or "").strip().partition("\n")[0],
        )
        return Benchmark(name or handler.__name__.replace("_", "-"), folder, config, holder)

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the input sizes, smallest first; none for a function without a generator."""
        if not (self.folder / "input.py").is_file():
            return ()
        sizes = getattr(self._inputs(), "SIZES", ("test", "small", "large"))
        if not isinstance(sizes, (tuple, list)) or not all(isinstance(size, str) for size in sizes):
            raise ConfigError(f"SIZES in {self.folder / 'input.py'} must be a tuple of names, not {sizes!r:.80}")
        return tuple(sizes)

    def code(self, language: str) -> Path:
        """The folder with the code in this language; `ConfigError` when there is none."""
        if language not in self.config.languages:
            raise ConfigError(f"{self.name} is not written in {language}. It is in: {', '.join(self.config.languages)}.")
        return self.folder / language

    def payload(self, size: str) -> Any:
        """The event for this size, made by the benchmark's own seeded generator: the same each time."""
        if size not in self.sizes:
            known = f"It has: {', '.join(self.sizes)}." if self.sizes else "It has no sizes: give a payload instead."
            raise ConfigError(f"{self.name} has no input size {size!r}. {known}")
        try:
            return self._inputs().generate_input(size)
        except Exception as error:
            raise ConfigError(f"{self.name}: generate_input({size!r}) failed: {type(error).__name__}: {error}") from error

    def checker(self) -> Callable[[Any, Any], str | None] | None:
        """The benchmark's ``check_output(payload, output)``, or None when it has none."""
        if not (self.folder / "input.py").is_file():
            return None
        check: Callable[[Any, Any], str | None] | None = getattr(self._inputs(), "check_output", None)
        return check

    def _inputs(self) -> ModuleType:
        path = self.folder / "input.py"
        spec = importlib.util.spec_from_file_location(f"_sebs_input_{hashlib.sha256(bytes(path)).hexdigest()[:16]}", path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{path} cannot be loaded as a Python module")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: the program is ours, not the benchmark's to end
            raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        if not callable(getattr(module, "generate_input", None)):
            raise ConfigError(f"{path} has no function generate_input(size)")
        return module


def find_all(folders: Iterable[Path]) -> list[Benchmark | BrokenBenchmark]:
    """All benchmarks below these folders, by name; the first of two with the same name wins.

    A folder may be a benchmark itself. Raises `ConfigError` for a folder that does not exist.
    """
    found: dict[str, Benchmark | BrokenBenchmark] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder} with benchmarks")
        candidates = [folder] if (folder / "config.json").is_file() else sorted(folder.iterdir())
        for candidate in candidates:
            looks_like_one = (candidate / "config.json").exists() or (candidate / "input.py").exists()
            if not looks_like_one or candidate.name in found:
                continue
            try:
                found[candidate.name] = Benchmark.load(candidate)
            except ConfigError as error:
                found[candidate.name] = BrokenBenchmark(candidate.name, candidate, str(error))
    return sorted(found.values(), key=lambda benchmark: benchmark.name)


def find(name: str, folders: Iterable[Path]) -> Benchmark:
    """The benchmark of this name; `ConfigError` with the nearest names, or with what is wrong with its folder."""
    known = find_all(folders)
    for benchmark in known:
        if benchmark.name != name:
            continue
        if isinstance(benchmark, BrokenBenchmark):
            raise ConfigError(f"the benchmark {name} is broken: {benchmark.error}")
        return benchmark
    names = [benchmark.name for benchmark in known]
    near = difflib.get_close_matches(name, names, 1, 0.4)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"there is no benchmark {name!r}. {hint}Known: {', '.join(names) or 'none; `pip install sebs-benchmarks` adds some'}."
    )
