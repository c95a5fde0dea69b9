"""The row of a result: its columns, as docs/measurement.md defines them, and how they become Arrow.

Arrow comes from arro3, which holds the whole format in a few megabytes. Tables leave this package as objects with
``__arrow_c_stream__``, which pandas, polars, pyarrow and DuckDB all read.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from arro3.core import Array, DataType, Field, Table, struct_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sebs_core.exchange import Exchange, Fields

__all__ = ["COLUMNS", "MEASUREMENT", "PROVIDER", "joined_table", "row_of", "rows_table"]

INT, FLOAT, TEXT, BOOL = DataType.int64(), DataType.float64(), DataType.string(), DataType.bool()

COLUMNS: dict[str, DataType] = {
    "index": INT, "function": TEXT, "phase": TEXT,
    "scheduled_ns": INT, "sent_ns": INT,
    "connected_ns": INT, "connection": TEXT, "dns_us": INT, "tcp_us": INT, "tls_us": INT,
    "first_byte_ns": INT, "finished_ns": INT, "accepted_ns": INT,
    "client_us": INT, "response_us": INT, "attempts": INT,
    "status": INT, "error": TEXT, "error_detail": TEXT,
    "request_id": TEXT, "instance_id": TEXT, "instance_sequence": INT, "instance_uptime_us": INT, "generation": TEXT,
    "cold": BOOL, "cold_kind": TEXT,
    "handler_us": INT, "import_us": INT, "init_us": INT,
    "function_begin_us": INT, "function_end_us": INT,
    "request_bytes": INT, "response_bytes": INT,
    "workload_version": TEXT, "output_ok": BOOL, "output_problem": TEXT,
}  # fmt: skip
"""Every plain column. ``provider`` and ``measurement`` are JSON text in ``rows/``, structs in ``result.parquet``."""

PROVIDER: dict[str, DataType] = {
    "duration_us": INT, "init_us": INT, "queue_us": INT, "billed_ms": INT, "memory_mb": INT, "cpu_us": INT, "cost_usd": FLOAT,
}  # fmt: skip
"""Always there; a platform may add more."""

MEASUREMENT: dict[str, DataType] = {
    "compute_us": INT, "download_us": INT, "download_bytes": INT, "upload_us": INT, "upload_bytes": INT,
}  # fmt: skip
"""Always there; a benchmark may add its own."""


def row_of(exchange: Exchange, fields: Fields, phase: str, function: str, generation: str | None) -> dict[str, Any]:
    """One row. `generation` is the marker of the last enforced cold start, None where none was enforced."""
    finished = exchange.finished_ns
    cold = None
    if fields.instance_sequence is not None:
        cold = fields.instance_sequence == 0 and generation in (None, fields.generation)
    row: dict[str, Any] = {name: getattr(fields, name) for name in COLUMNS if name in fields.__dataclass_fields__}
    row |= {name: getattr(exchange, name) for name in COLUMNS if name in exchange.__dataclass_fields__}
    if fields.instance_sequence != 0:
        row["import_us"] = row["init_us"] = None  # an instance starts once: its first call carries its start
    row |= {
        "function": function,
        "phase": phase,
        "client_us": None if finished is None else (finished - exchange.sent_ns) // 1000,
        "response_us": None if finished is None else (finished - exchange.scheduled_ns) // 1000,
        "error": exchange.error or fields.error,
        "error_detail": exchange.error_detail or fields.error_detail,
        "status": fields.status if exchange.response is None else exchange.response.status,
        "cold": cold,
        "cold_kind": (fields.cold_kind or "unknown") if cold else None,
        "response_bytes": None if exchange.response is None else len(exchange.response.body),
        "provider": None if fields.provider is None else dict(fields.provider),
        "measurement": None if fields.measurement is None else dict(fields.measurement),
    }
    return row


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows as they are written to ``rows/``."""
    columns: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        columns[name] = Array([_fitting(row.get(name), kind) for row in rows], kind)
    for name in ("provider", "measurement"):
        texts = [_json(row.get(name)) for row in rows]
        columns[name] = Array(texts, TEXT)
    return Table.from_pydict(columns)


def joined_table(rows: Table, metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """The final table: `rows` in the order of their indices, with the platform's `metrics` by request id."""
    indices = rows["index"].to_pylist()
    order = sorted(range(len(indices)), key=indices.__getitem__)
    ids = rows["request_id"].to_pylist()
    told = [json.loads(text) if text else {} for text in rows["provider"].to_pylist()]
    measured = [json.loads(text) if text else {} for text in rows["measurement"].to_pylist()]
    provider = [{**told[place], **metrics.get(ids[place] or "", {})} for place in order]
    columns: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        values = rows[name].to_pylist()
        columns[name] = Array([values[place] for place in order], kind)
    columns["provider"] = _struct(provider, PROVIDER)
    columns["measurement"] = _struct([measured[place] for place in order], MEASUREMENT)
    return Table.from_pydict(columns)


def _struct(values: Sequence[Mapping[str, Any]], known: Mapping[str, DataType]) -> Any:
    """One struct column: the known fields first, then those that these values bring, each with the type that holds all."""
    values = [{_unicode(name): item for name, item in value.items()} for value in values]
    extra = dict.fromkeys(name for value in values for name in value if name not in known)
    kinds = dict(known) | {name: _kind([value.get(name) for value in values]) for name in extra}
    arrays, fields = [], []
    for name, kind in kinds.items():
        column = [value.get(name) for value in values]
        arrays.append(Array([_fitting(item, kind) for item in column], kind))
        fields.append(Field(name, kind, nullable=True))
    return struct_array(arrays, fields=fields)


def _json(value: Any) -> str | None:
    try:
        return None if value is None else json.dumps(value)
    except RecursionError:
        return None  # nested too deeply to be a measurement


def _unicode(text: str) -> str:
    """JSON allows halves of surrogate pairs, which are no text."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _kind(values: Sequence[Any]) -> DataType:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in present):
        return BOOL
    if present and all(_is_int64(value) for value in present):
        return INT
    numbers = all(_is_int64(value) or isinstance(value, float) for value in present)
    return FLOAT if present and numbers else TEXT


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _fitting(value: Any, kind: DataType) -> Any:
    """`value` as this type holds it; what does not fit a number is null, never a wrong number."""
    if value is None:
        return None
    if kind == TEXT:
        text = value if isinstance(value, str) else json.dumps(value)
        return _unicode(text)
    if kind == BOOL:
        return value if isinstance(value, bool) else None
    if kind == FLOAT:
        return float(value) if _is_int64(value) or isinstance(value, float) else None
    if isinstance(value, float) and math.isfinite(value):
        value = round(value)
    return value if _is_int64(value) else None
