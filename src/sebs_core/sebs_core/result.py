"""A result: the run directory of one run, read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sebs_core.errors import MetricsError, StorageError
from sebs_core.rundir import RunDirectory

if TYPE_CHECKING:
    import os

    from arro3.core import Table

    from sebs_core.models import Metrics, RunManifest
    from sebs_core.session import Session
    from sebs_core.summary import Summary

__all__ = ["Result"]


class Result:
    """Manifest and rows of one run. Everything is on disk already; nothing is lost when this object goes away."""

    def __init__(self, directory: Path, session: Session | None = None) -> None:
        self._run = RunDirectory.open(Path(directory))
        self._session = session
        self.manifest: RunManifest = self._run.manifest()
        self._table: Table | None = None

    @staticmethod
    def load(directory: str | os.PathLike[str]) -> Result:
        """Open a run directory, also one whose run was interrupted. Needs no plugin."""
        return Result(Path(directory))

    @property
    def directory(self) -> Path:
        """Where the run lies."""
        return self._run.path

    @property
    def invocations(self) -> Table:
        """One row per attempted invocation, as an Arrow table (``__arrow_c_stream__``); columns: docs/measurement.md."""
        if self._table is None:
            self._table = self._run.table()
        return self._table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.invocations.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return int(self.invocations.num_rows)

    def __repr__(self) -> str:
        m = self.manifest
        return f"<Result {m.benchmark} on {m.platform}: {len(self)} rows, {m.state}, in {self.directory}>"

    def summary(self) -> Summary:
        """The figures of the run: what ``--json`` prints."""
        from sebs_core.summary import summarize

        return summarize(self.invocations, self.manifest, str(self.directory))

    def to_pandas(self) -> Any:
        """A pandas DataFrame; ``provider`` and ``measurement`` become columns ``provider.duration_us``, … Needs pandas."""
        import pandas as pd

        kinds = {"Int64": "Int64", "Float64": "Float64", "Boolean": "boolean", "Utf8": "string"}
        columns: dict[str, Any] = {}
        for field in map(self.invocations.field, self.invocations.column_names):
            values = self.invocations[field.name].to_pylist()
            if _kind_of(field) == "Struct":
                inner = field.type.fields
                for part in inner:
                    flat = [None if value is None else value[part.name] for value in values]
                    columns[f"{field.name}.{part.name}"] = pd.array(flat, dtype=kinds[_kind_of(part)])
            else:
                columns[field.name] = pd.array(values, dtype=kinds[_kind_of(field)])
        return pd.DataFrame(columns)

    def to_polars(self) -> Any:
        """A polars DataFrame, structs kept. Needs polars."""
        import polars as pl

        return pl.DataFrame(self.invocations)

    def body(self, index: int) -> Any:
        """The answer to invocation `index`, decoded, or None if it was not kept (``keep_outputs=True`` keeps all)."""
        path = self.directory / "bodies" / f"{index}.json"
        if not path.exists():
            return None
        content = path.read_bytes()
        try:
            return json.loads(content)
        except ValueError:
            return content

    def collect_metrics(self) -> Metrics:
        """Ask the platform (again) for its own numbers of these invocations, and join them.

        Raises `MetricsError` when the platform does not have them any more.
        """
        if self._session is not None and self._session.is_open:
            return self._session.collect_metrics(self)
        from sebs_core.session import connect

        with connect(self.manifest.platform, settings=self.manifest.settings) as session:
            return session.collect_metrics(self)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Copy the whole run to another, new directory; returns it."""
        target = Path(directory)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.directory, target)
        except FileExistsError:
            raise StorageError(f"{target} exists already: choose another name for the copy") from None
        except OSError as error:
            raise StorageError(f"the run could not be copied to {target}: {error.strerror or error}") from error
        return target

    def keep_metrics(self, metrics: Metrics) -> None:
        """Store what a platform told, and join it to the rows. Called by the session."""
        known = {request for request in self.invocations["request_id"].to_pylist() if request}
        foreign = set(metrics.values) - known
        if foreign:
            raise MetricsError(
                f"{self.manifest.platform} told numbers of {len(foreign)} requests that are not of this run: its plugin must "
                "answer for the request ids it was asked for"
            )
        self._run.write_metrics(metrics)
        self.update_manifest(metrics_missing=len(metrics.missing), provider_sources=dict(metrics.sources))
        self.finish()

    def finish(self) -> None:
        """Make ``result.parquet`` anew from all that is there. Called by the session."""
        self._table = self._run.finish()

    def update_manifest(self, **changes: Any) -> None:
        """Replace fields of the manifest, on disk too. Called by the session."""
        self.manifest = self.manifest.model_copy(update=changes)
        self._run.write_manifest(self.manifest)


def _kind_of(field: Any) -> str:
    """Name of an Arrow field's type without its parameters."""
    text = str(field.type).split("<")[-1]
    return text.split("(")[0].split(">")[0].strip()
