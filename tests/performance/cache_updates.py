"""What changes of the cache cost, as ratios: run by hand, ``python tests/performance/cache_updates.py``.

First table: one update of a function in a cache of 100 and in one of 10,000 entries; interleaved, medians.
Second table: 8 processes that each do 500 mixed operations on cache and state, beside the physical limit: a small file that is
synced as often as SQLite syncs for the same transactions, by one process.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "doubles"))

from folder_platform import Place, in_processes, lost_operations, mixed_operations, some_function

from sebs_core.cache import Cache
from sebs_core.database import Database

ROUNDS = 301
SIZES = (100, 10_000)
PROCESSES, OPERATIONS, REPETITIONS = 8, 500, 5
SYNCS_OF_A_TRANSACTION = 4
"""With a rollback journal and ``synchronous=FULL``: the journal, its folder, the journal's header, the file."""


def fill(place: Place, entries: int) -> None:
    """So many records of functions, in one transaction."""
    cache = Cache(place.cache)
    rows = []
    for number in range(entries):
        function = some_function(f"f{number}")
        rows.append(("function", "folder", "main", function.name, function.benchmark, function.model_dump_json(), 1, 1))
    with cache.database.writing() as connection:
        connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def updates(folder: Path) -> dict[str, list[float]]:
    places = {entries: Place(folder / str(entries)) for entries in SIZES}
    for entries, place in places.items():
        fill(place, entries)
    synced = (folder / "synced").open("wb", buffering=0)
    taken: dict[str, list[float]] = {name: [] for name in ("limit", *map(str, SIZES))}
    for number in range(ROUNDS + 1):
        ways = {"limit": lambda: sync(synced.fileno(), SYNCS_OF_A_TRANSACTION)}
        for entries, place in places.items():
            changed = some_function(f"f{number * 37 % entries}").model_copy(update={"generation": str(number)})
            ways[str(entries)] = lambda place=place, changed=changed: Cache(place.cache).keep_function("main", changed)
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if number:
                taken[name].append((time.perf_counter() - begun) * 1000)
    return taken


def sync(descriptor: int, times: int) -> None:
    for _ in range(times):
        os.pwrite(descriptor, b"x" * 400, 0)
        os.fdatasync(descriptor)


def transactions_of_one(folder: Path) -> int:
    """How many transactions one process' operations are."""
    counted, writing = [], Database.writing
    Database.writing = lambda self: (counted.append(1), writing(self))[1]  # type: ignore[method-assign]
    try:
        mixed_operations(Place(folder), 0, OPERATIONS)
    finally:
        Database.writing = writing  # type: ignore[method-assign]
    return len(counted)


def many(folder: Path) -> tuple[int, list[float], list[float]]:
    """(transactions in all, seconds of the 8 processes, seconds of the syncs)."""
    transactions = PROCESSES * transactions_of_one(folder / "counted")
    synced = (folder / "also synced").open("wb", buffering=0)
    taken, limit = [], []
    for number in range(REPETITIONS):
        place = Place(folder / f"many {number}")
        begun = time.perf_counter()
        endings = in_processes(
            *[lambda place=place, one=one: mixed_operations(place, one, OPERATIONS) for one in range(PROCESSES)]
        )
        taken.append(time.perf_counter() - begun)
        assert endings == [0] * PROCESSES
        assert [lost_operations(place, one, OPERATIONS) for one in range(PROCESSES)] == [[]] * PROCESSES
        begun = time.perf_counter()
        sync(synced.fileno(), SYNCS_OF_A_TRANSACTION * transactions)
        limit.append(time.perf_counter() - begun)
    return transactions, taken, limit


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        taken = updates(Path(temporary))
        limit, small, large = (statistics.median(taken[name]) for name in ("limit", *map(str, SIZES)))
        print("| one update | median ms | x limit | x 100 entries |\n|---|---|---|---|")
        print(f"| {SYNCS_OF_A_TRANSACTION} syncs of a small file | {limit:.2f} | 1 | |")
        for entries, median in zip(SIZES, (small, large), strict=True):
            print(f"| in a cache of {entries:,} entries | {median:.2f} | {median / limit:.2f} | {median / small:.2f} |")

        transactions, together, syncs = many(Path(temporary))
        median, limit = statistics.median(together), statistics.median(syncs)
        print(f"\n| {transactions:,} transactions | median s | x limit |\n|---|---|---|")
        print(f"| {SYNCS_OF_A_TRANSACTION} syncs of a small file for each | {limit:.2f} | 1 |")
        print(f"| {PROCESSES} processes x {OPERATIONS} mixed operations | {median:.2f} | {median / limit:.2f} |")


if __name__ == "__main__":
    main()
