"""How long it takes to see that a large benchmark is unchanged: ``python tests/performance/recognise_benchmark.py``, by hand.

1,400 files in nested folders, all known to the index. Interleaved rounds; the median of each, in milliseconds, and its ratio to
the physical limit: listing the folders and asking for each file's stat, with nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

from sebs_core.benchmark import Benchmark
from sebs_core.cache import Cache
from sebs_core.models import FunctionConfig, Runtime
from sebs_core.packaging import Sources
from sebs_core.packaging.index import RACY_NS, FileIndex
from sebs_core.packaging.python import PYTHON

FILES = 1_400
FILES_PER_FOLDER = 20
ROUNDS = 61
CONFIG = FunctionConfig(
    language="python",
    language_version="3.12",
    language_variant="default",
    system_variant="package",
    architecture="x64",
    memory_mb=128,
    timeout_s=3,
)


def make_benchmark(folder: Path) -> Benchmark:
    values = {"timeout": 5, "memory": 128, "languages": ["python"]}
    numbers = random.Random(1)
    (folder / "python").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "input.py").write_text("def generate_input(size):\n    return {}\n")
    (folder / "python" / "function.py").write_text("def handler(event):\n    return event\n")
    for number in range(FILES - 1):
        place = number // FILES_PER_FOLDER
        path = folder / "python" / "assets" / f"group{place % 7}" / f"folder{place}" / f"file{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(numbers.randbytes(numbers.randrange(1_000, 8_000)))
        os.utime(path, (1e9, 1e9))
    return Benchmark.load(folder)


def walk_and_stat(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            os.stat(f"{place}/{name}")  # noqa: PTH116


def hash_all(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            with Path(place, name).open("rb") as file:
                hashlib.sha256(file.read()).hexdigest()


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        benchmark = make_benchmark(Path(temporary, "large"))
        index = FileIndex(Cache(Path(temporary, "cache")).database)
        code, runtime = benchmark.code("python"), Runtime(files={})
        ways = {
            "os.walk and os.stat": lambda: walk_and_stat(code),
            "hashing all files": lambda: hash_all(code),
            "Sources(…).inputs(index).digest, unchanged": lambda: (
                Sources(benchmark, CONFIG, runtime, PYTHON).inputs(index).digest
            ),
            "Sources(…).inputs().digest, without an index": lambda: Sources(benchmark, CONFIG, runtime, PYTHON).inputs().digest,
        }
        time.sleep(RACY_NS / 1e9 + 0.1)  # until the files may be remembered
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):
            for name, way in ways.items():
                begun = time.perf_counter()
                way()
                if number:
                    taken[name].append((time.perf_counter() - begun) * 1000)
    limit = statistics.median(taken["os.walk and os.stat"])
    print(f"| {FILES} files | median ms | x walk and stat |\n|---|---|---|")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"| {name} | {median:.1f} | {median / limit:.2f} |")


if __name__ == "__main__":
    main()
