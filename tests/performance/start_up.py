"""How long sebs takes to start, as ratios: run by hand, ``python tests/performance/start_up.py``.

Interleaved rounds of fresh processes; the median of each command, in milliseconds, and its ratio to ``from pydantic import
BaseModel``. The working folder is a temporary one, and the benchmark is packaged before the first round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "from pydantic import BaseModel": ["-c", "from pydantic import BaseModel"],
    "import sebs_core": ["-c", "import sebs_core"],
    "import sebs_core; sebs_core.connect": ["-c", "import sebs_core; sebs_core.connect"],
    "sebs --help": ["-m", "sebs_core", "--help"],
    "sebs benchmark list": ["-m", "sebs_core", "benchmark", "list"],
    "imports of sebs benchmark invoke": [
        "-c", "import sebs_core.cli.benchmark, sebs_core.run, sebs_core.engine.closed, sebs_local.platform"
    ],
    "sebs benchmark invoke 110.dynamic-html test": ["-m", "sebs_core", "benchmark", "invoke", "110.dynamic-html", "test"],
}  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SEBS_CACHE_DIR": f"{folder}/cache"}
        taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for number in range(ROUNDS + 1):
            for name, arguments in COMMANDS.items():
                begun = time.perf_counter()
                subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
                if number:
                    taken[name].append((time.perf_counter() - begun) * 1000)
    reference = statistics.median(taken["from pydantic import BaseModel"])
    print("| command | median ms | x pydantic |\n|---|---|---|")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"| `{name}` | {median:.0f} | {median / reference:.2f} |")


if __name__ == "__main__":
    main()
