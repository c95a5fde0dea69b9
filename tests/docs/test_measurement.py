"""docs/measurement.md names what the code has: columns with their types, fields of the summary, kinds, the envelope."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import sebs_core
from sebs_core.models import ERROR_KINDS, ColdKind
from sebs_core.rows import COLUMNS, MEASUREMENT, PROVIDER

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "measurement.md").read_text()
TYPES = {"Int64": "int64", "Float64": "float64", "Utf8": "string", "Boolean": "bool"}


def rows_of(heading: str) -> dict[str, list[str]]:
    """The first table below a heading: each name in its first column → the other cells."""
    part = re.split(rf"^#+ {re.escape(heading)}$", PAGE, maxsplit=1, flags=re.MULTILINE)[1]
    table = re.search(r"^\|.*?(?=^[^|]|\Z)", part, flags=re.MULTILINE | re.DOTALL)
    assert table, f"no table below {heading}"
    found = {}
    for line in table[0].strip().splitlines()[2:]:
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), others)
    return found


def type_name(kind: object) -> str:
    text = str(kind)
    return next(name for arrow, name in TYPES.items() if arrow in text)


def test_the_table_of_columns_is_that_of_the_code() -> None:
    documented = rows_of("A row")
    assert list(documented) == [*COLUMNS, "provider", "measurement"]
    for name, kind in COLUMNS.items():
        assert documented[name][0] == type_name(kind), name
        unit = {"ns": "ns", "us": "µs", "bytes": "bytes"}.get(name.rpartition("_")[2], "")
        assert documented[name][1].startswith(unit), name


def test_provider_and_measurement_have_these_fields() -> None:
    documented = rows_of("The platform's own numbers")
    assert list(documented) == list(PROVIDER)
    assert [documented[name][0] for name in PROVIDER] == [type_name(kind) for kind in PROVIDER.values()]
    sentence = PAGE.partition("`measurement` has five fields always: ")[2].partition(" (")[0]
    assert re.findall(r"`(\w+)`", sentence) == list(MEASUREMENT)


def test_every_field_of_the_summary_is_documented() -> None:
    assert sorted(rows_of("The summary")) == sorted(set(sebs_core.Summary.model_fields) - {"schema_version"})


def test_every_kind_is_documented() -> None:
    assert list(rows_of("Errors")) == list(ERROR_KINDS)
    assert list(rows_of("Cold and warm")) == list(get_args(ColdKind))


def test_the_envelope_has_these_keys(tmp_path: Path) -> None:
    code = tmp_path / "function"
    code.mkdir()
    (code / "function.py").write_text("def handler(event):\n    return event\n")
    shared = Path(sebs_core.__file__).parent / "function_side" / "python"
    program = "from sebs_function.measured import Measured; print(Measured().call(b'{}', 'id').decode())"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(shared)])},
        capture_output=True,
        text=True,
        check=True,
    )
    envelope = json.loads(done.stdout)
    assert envelope["error"] is None
    assert sorted(rows_of("Inside the function")) == sorted(envelope)


def test_what_the_local_platform_tells_is_documented(tmp_path: Path) -> None:
    pytest.importorskip("sebs_local", reason="needs the platform local (sebs-local)")
    benchmark = sebs_core.Benchmark.from_function(echo)
    with sebs_core.connect("local", cache_dir=tmp_path / "cache", output_dir=tmp_path / "runs") as local:
        result = local.run(benchmark, payload={}, load=sebs_core.Closed(repetitions=2))
    told = {name for row in result.invocations["provider"].to_pylist() for name, value in row.items() if value is not None}
    documented = set(rows_of("The local platform"))
    assert told <= documented
    assert documented - told <= {"billed_ms", "cost_usd", "cpu_us", "memory_mb"}


def echo(event: object) -> object:
    return event


def test_workload_versions_are_those_of_the_benchmarks() -> None:
    for config in (ROOT / "benchmarks" / "sebs_benchmarks").glob("*/config.json"):
        version = re.search(r'"workload_version": "([^"]+)"', config.read_text())
        assert version
        table = PAGE.partition(f"**{config.parent.name}**")[2].partition("\n|---")[0]
        assert f"| {version[1]} |" in table, f"{config.parent.name} {version[1]} has no table of differences"
