"""The run directory: all that is known of one run, complete on disk at any moment.

::

    run.json            the manifest, replaced atomically
    rows/NNNNNN.arrow   rows as they were taken, one file per flush, never rewritten
    bodies/N.json       answers of invocation N: of failures, of the first few, or of all if asked
    metrics/NNNNNN.json what the platform told, one file per collection
    result.parquet      made from all of these by `finish`, as often as one likes
"""

from __future__ import annotations

import errno
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arro3.core import Table
from arro3.io import read_ipc, write_ipc, write_parquet
from pydantic import ValidationError

from sebs_core.confidential import hidden_bytes, hidden_values
from sebs_core.errors import StorageError
from sebs_core.exchange import Fields
from sebs_core.models import Metrics, RunManifest
from sebs_core.rows import joined_table, row_of, rows_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from sebs_core.exchange import Exchange
    from sebs_core.interrupts import Interrupts
    from sebs_core.models import Function, Trigger
    from sebs_core.plugins import Stages

__all__ = ["RowSink", "RunDirectory"]

FLUSH_SECONDS = 0.9
LONGEST_FLUSH_SECONDS = 30
"""A crash loses the rows since the last flush: of a second, and up to this where several clients call a slow function."""
PAUSE_RATIO = 20
FIRST_BODIES = 5
MOST_ROWS_HELD = 20_000
MOST_BYTES_HELD = 64 * 1024 * 1024


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash leaves the old or the new, synced to the disk."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class RunDirectory:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(parent: Path, name: str) -> RunDirectory:
        """Make a new directory ``parent/name``, or ``name-2``, … where that exists."""
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for number in range(1, 10_000):
                path = parent / (name if number == 1 else f"{name}-{number}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                for part in ("rows", "bodies", "metrics"):
                    (path / part).mkdir()
                return RunDirectory(path)
        except OSError as error:
            raise _cannot_write(parent, error) from error
        raise StorageError(f"{parent} has too many runs named {name}: choose another --output-dir")

    @staticmethod
    def open(path: Path) -> RunDirectory:
        """An existing run directory; `StorageError` when this is none."""
        if not (path / "run.json").is_file():
            raise StorageError(
                f"{path} is no run directory: it has no run.json. Runs are folders that sebs wrote (--output-dir)."
            )
        return RunDirectory(path)

    def manifest(self) -> RunManifest:
        """The manifest as it stands."""
        try:
            return RunManifest.model_validate_json((self.path / "run.json").read_bytes())
        except OSError as error:
            raise StorageError(f"{self.path / 'run.json'} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise StorageError(f"{self.path / 'run.json'} is damaged at {where or 'its beginning'}: {problem['msg']}") from None

    def write_manifest(self, manifest: RunManifest) -> None:
        """Replace ``run.json``."""
        told = {"failure": hidden_values(manifest.failure), "notes": hidden_values(manifest.notes)}
        self._put("run.json", manifest.model_copy(update=told).model_dump_json(indent=1).encode())

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Write one more file of rows."""
        written = io.BytesIO()  # through memory: arro3 does not tell what was wrong with a file
        write_ipc(rows_table([_without_secrets(row) for row in rows]), written)
        self._put(f"rows/{self._next('rows', '.arrow'):06}.arrow", written.getvalue())

    def write_body(self, index: int, body: bytes) -> None:
        """Keep one answer as it came."""
        try:
            (self.path / "bodies" / f"{index}.json").write_bytes(hidden_bytes(body))
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def write_metrics(self, metrics: Metrics) -> None:
        """Keep what the platform told."""
        metrics = metrics.model_copy(update={"raw": hidden_values(metrics.raw)})
        self._put(f"metrics/{self._next('metrics', '.json'):06}.json", metrics.model_dump_json().encode())

    def rows(self) -> Table:
        """All rows written so far."""
        files = sorted((self.path / "rows").glob("*.arrow"))
        if not files:
            return rows_table([])
        try:
            return Table.from_batches([batch for file in files for batch in read_ipc(file)])
        except Exception as error:
            raise StorageError(f"the rows in {self.path / 'rows'} cannot be read: {error}") from error

    def table(self) -> Table:
        """Rows joined with metrics. Pure: the same files give the same table; nothing is written."""
        told: dict[str, dict[str, Any]] = {}
        for file in sorted((self.path / "metrics").glob("*.json")):
            for request, values in _metrics(file).values.items():
                told.setdefault(request, {}).update({name: value for name, value in values.items() if value is not None})
        return joined_table(self.rows(), told)

    def finish(self) -> Table:
        """Make ``result.parquet`` from rows and metrics, as often as one likes, and return its table."""
        table = self.table()
        written = io.BytesIO()
        write_parquet(table, written, compression="zstd(3)")
        self._put("result.parquet", written.getvalue())
        return table

    def _next(self, folder: str, suffix: str) -> int:
        return sum(1 for _ in (self.path / folder).glob(f"*{suffix}"))

    def _put(self, place: str, content: bytes) -> None:
        try:
            write_atomically(self.path / place, content)
        except OSError as error:
            raise _cannot_write(self.path, error) from error


def _without_secrets(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, **{name: hidden_values(row.get(name)) for name in ("error_detail", "output_problem")}}


def _metrics(file: Path) -> Metrics:
    try:
        return Metrics.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(f"{file} cannot be read: {error}. Remove it, and collect the metrics again.") from error


def _cannot_write(path: Path, error: OSError) -> StorageError:
    remedy = "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Mend its permissions"
    return StorageError(
        f"the run cannot be written to {path}: {error.strerror or error}. What was written before is kept. {remedy}, or "
        "choose another --output-dir (SEBS_OUTPUT_DIR)."
    )


class RowSink:
    """Takes exchanges from an engine; between timed sections it decodes, checks and writes them."""

    def __init__(
        self,
        directory: RunDirectory | None,
        stages: Stages,
        *,
        function: Function,
        trigger: Trigger,
        workload_version: str,
        check: Callable[[Any], str | None] | None,
        keep_outputs: bool,
        written: Callable[[], None],
        interrupts: Interrupts,
    ) -> None:
        self._directory, self._stages = directory, stages
        self._function, self._trigger = function, trigger
        self._workload_version = workload_version
        self._check, self._keep_outputs, self._written = check, keep_outputs, written
        self._interrupts = interrupts
        self._held: list[Exchange] = []
        self._held_bytes = 0
        self._last_flush = time.monotonic()
        self.phase = "measured"
        self.generation: str | None = None
        """Of the last enforced cold start."""
        self.only_cold = False
        """Warm rows are ``rejected``: this is a cold run."""
        self.observe: Callable[[dict[str, Any]], None] | None = None
        """Sees each row of the current load after it was decoded."""
        self.overlapping = False
        """Several clients: a flush waits for the calls in flight, and makes their clients pause."""
        self._longest_ns = 0
        self.measured = self.failures = self.abandoned = 0

    @property
    def due(self) -> bool:
        """Whether it is time to write: a second has passed (more where pauses would be long), or much is held."""
        self._interrupts.check()
        if not self._held:
            return False
        patience = FLUSH_SECONDS
        if self.overlapping:  # the pause lasts as long as a call: it may take a twentieth of the time
            patience = max(patience, min(PAUSE_RATIO * self._longest_ns / 1e9, LONGEST_FLUSH_SECONDS))
        late = time.monotonic() - self._last_flush > patience
        return late or len(self._held) > MOST_ROWS_HELD or self._held_bytes > MOST_BYTES_HELD

    def renew(self, function: Function) -> None:
        """The function changed (a cold start was enforced)."""
        self._function = function

    def add(self, exchange: Exchange) -> None:
        """Hold an exchange until the next flush."""
        self._held.append(exchange)
        if exchange.finished_ns is not None:
            self._longest_ns = max(self._longest_ns, exchange.finished_ns - exchange.sent_ns)
        if exchange.response is not None:
            self._held_bytes += len(exchange.response.body)

    def abandon(self, sends: int) -> None:
        """Count sends that are no rows, because nobody waited for their end."""
        self.abandoned += sends

    def flush(self) -> None:
        """Decode and check what is held, and write it to disk."""
        held, self._held, self._held_bytes, self._longest_ns = self._held, [], 0, 0
        rows = [self._decoded(exchange) for exchange in held]
        if rows and self._directory is not None:
            self._directory.write_rows(rows)
        self._last_flush = time.monotonic()
        self._written()

    def _decoded(self, exchange: Exchange) -> dict[str, Any]:
        fields = exchange.fields or Fields()
        if exchange.response is not None:
            fields = self._stages.call(
                "sebs_response", function=self._function, trigger=self._trigger, response=exchange.response
            )
        row = row_of(exchange, fields, self.phase, self._function.name, self.generation)
        row["workload_version"] = self._workload_version
        if row["error"] is None:
            row["output_ok"], row["output_problem"] = self._checked(fields.output)
        if self.only_cold and row["cold"] is False:
            row["phase"] = "rejected"
        if row["phase"] == "measured":
            self.measured += 1
            self.failures += row["error"] is not None or row["output_ok"] is False
        self._keep_body(row, exchange, fields)
        if self.observe is not None:
            self.observe({**row, "output": fields.output})
        return row

    def _checked(self, output: Any) -> tuple[bool | None, str | None]:
        if self._check is None:
            return None, None
        try:
            problem = self._check(output)
        except Exception as error:
            problem = f"the output check itself failed on this output: {type(error).__name__}: {error}"
        return problem is None, problem

    def _keep_body(self, row: dict[str, Any], exchange: Exchange, fields: Fields) -> None:
        wanted = self._keep_outputs or row["error"] or row["output_ok"] is False or row["index"] < FIRST_BODIES
        if self._directory is None or not wanted:
            return
        if exchange.response is not None:
            self._directory.write_body(row["index"], exchange.response.body)
        elif exchange.fields is not None:
            self._directory.write_body(row["index"], json.dumps(fields.output).encode())
