"""The row: its columns are a contract."""

import json

import pytest

from sebs_core.exchange import Exchange, Fields, Response
from sebs_core.models import ERROR_KINDS
from sebs_core.rows import COLUMNS, MEASUREMENT, PROVIDER, joined_table, row_of, rows_table

GOLDEN = """
index Int64 | function Utf8 | phase Utf8 | scheduled_ns Int64 | sent_ns Int64 | connected_ns Int64 | connection Utf8
dns_us Int64 | tcp_us Int64 | tls_us Int64 | first_byte_ns Int64 | finished_ns Int64 | accepted_ns Int64
client_us Int64 | response_us Int64 | attempts Int64 | status Int64 | error Utf8 | error_detail Utf8
request_id Utf8 | instance_id Utf8 | instance_sequence Int64 | instance_uptime_us Int64 | generation Utf8
cold Boolean | cold_kind Utf8 | handler_us Int64 | import_us Int64 | init_us Int64
function_begin_us Int64 | function_end_us Int64 | request_bytes Int64 | response_bytes Int64
workload_version Utf8 | output_ok Boolean | output_problem Utf8 | provider Struct | measurement Struct
"""
GOLDEN_PROVIDER = {
    "duration_us": "Int64", "init_us": "Int64", "queue_us": "Int64", "billed_ms": "Int64", "memory_mb": "Int64",
    "cpu_us": "Int64", "cost_usd": "Float64",
}  # fmt: skip
GOLDEN_MEASUREMENT = dict.fromkeys(["compute_us", "download_us", "download_bytes", "upload_us", "upload_bytes"], "Int64")


def kind(field):
    text = str(field.type)
    for name in ("Struct", "Int64", "Float64", "Boolean", "Utf8"):
        if name in text.split("(")[0]:
            return name
    return text


def schema(table):
    return {name: kind(table.field(name)) for name in table.column_names}


def struct(table, name):
    return {field.name: kind(field) for field in table.field(name).type.fields}


def an_exchange(index=0, **more):
    given = {
        "index": index, "scheduled_ns": 1000, "sent_ns": 3000, "connected_ns": 4000, "connection": "new", "dns_us": 0,
        "tcp_us": 1, "tls_us": 0, "first_byte_ns": 8000, "finished_ns": 10_000, "request_bytes": 2,
        "response": Response(200, {}, b"body"),
    }  # fmt: skip
    return Exchange(**{**given, **more})


def a_row(index=0, phase="measured", generation=None, exchange=None, **fields):
    told = Fields(**{"request_id": f"r{index}", "instance_id": "i", "instance_sequence": 0, **fields})
    return row_of(exchange or an_exchange(index), told, phase, "f", generation)


def joined(*rows, metrics=None):
    return joined_table(rows_table(rows), metrics or {})


def column(table, name):
    return table[name].to_pylist()


# --- schema ---------------------------------------------------------------------------------------------------------------


def test_the_columns_of_the_result_are_the_contract_in_name_order_and_type():
    golden = dict(entry.split() for line in GOLDEN.strip().splitlines() for entry in line.split(" | "))
    table = joined(a_row())
    assert schema(table) == golden
    assert list(table.column_names) == list(golden)
    assert struct(table, "provider") == GOLDEN_PROVIDER
    assert struct(table, "measurement") == GOLDEN_MEASUREMENT


def test_the_schema_is_the_same_without_rows_and_whatever_is_unknown():
    full = schema(joined(a_row()))
    assert schema(joined()) == full
    unknown = row_of(Exchange(0, 0, 0, error="connect"), Fields(), "measured", "f", None)
    assert schema(joined(unknown)) == full
    assert struct(joined(), "provider") == GOLDEN_PROVIDER


def test_the_names_of_the_structs_fields_are_the_contract():
    assert list(PROVIDER) == list(GOLDEN_PROVIDER)
    assert list(MEASUREMENT) == list(GOLDEN_MEASUREMENT)
    assert list(COLUMNS)[:5] == ["index", "function", "phase", "scheduled_ns", "sent_ns"]


def test_the_error_kinds_are_the_closed_list():
    assert set(ERROR_KINDS) == {
        "connect", "tls", "timeout", "reset", "protocol", "throttled", "refused", "function_error", "init_error", "oom",
        "crash", "bad_response", "too_large",
    }  # fmt: skip


# --- a row ----------------------------------------------------------------------------------------------------------------


def test_client_and_response_time_are_counted_from_sending_and_from_the_schedule():
    row = a_row()
    assert (row["client_us"], row["response_us"]) == (7, 9)
    assert (row["status"], row["response_bytes"], row["request_bytes"]) == (200, 4, 2)


def test_what_did_not_finish_has_no_times():
    exchange = an_exchange(finished_ns=None, response=None, error="timeout", error_detail="d")
    row = row_of(exchange, Fields(), "measured", "f", None)
    assert (row["client_us"], row["response_us"], row["status"], row["response_bytes"]) == (None, None, None, None)
    assert (row["error"], row["error_detail"]) == ("timeout", "d")
    assert row["cold"] is None


@pytest.mark.parametrize(
    ("sequence", "echoed", "enforced", "cold"),
    [
        (0, "", None, True), (1, "", None, False), (None, "", None, None),
        (0, "g2", "g2", True), (1, "g2", "g2", False), (0, "g1", "g2", False), (0, None, "g2", False), (None, "g2", "g2", None),
    ],
)  # fmt: skip
def test_cold_is_the_first_call_of_an_instance_of_the_current_generation(sequence, echoed, enforced, cold):
    row = row_of(an_exchange(), Fields(instance_sequence=sequence, generation=echoed), "measured", "f", enforced)
    assert row["cold"] is cold
    assert row["cold_kind"] == ("unknown" if cold else None)


def test_the_kind_of_a_cold_start_is_the_platforms_word_and_warm_rows_have_none():
    assert a_row(cold_kind="enforced")["cold_kind"] == "enforced"
    assert a_row(cold_kind="enforced", instance_sequence=3)["cold_kind"] is None


def test_the_start_of_an_instance_stands_in_its_first_call_only():
    assert (a_row(import_us=5, init_us=9)["import_us"], a_row(import_us=5, init_us=9)["init_us"]) == (5, 9)
    later = a_row(import_us=5, init_us=9, instance_sequence=1)
    assert (later["import_us"], later["init_us"]) == (None, None)


def test_the_transports_error_goes_before_the_functions():
    row = row_of(an_exchange(error="reset"), Fields(error="function_error", error_detail="x"), "measured", "f", None)
    assert row["error"] == "reset"


# --- the final table ------------------------------------------------------------------------------------------------------


def test_rows_come_in_the_order_of_their_indices_with_all_their_columns():
    rows = [a_row(index, handler_us=index * 10, provider={"duration_us": index}) for index in (3, 0, 2, 1)]
    table = joined(*rows, metrics={"r2": {"queue_us": 7}})
    assert column(table, "index") == [0, 1, 2, 3]
    assert column(table, "handler_us") == [0, 10, 20, 30]
    assert [value["duration_us"] for value in column(table, "provider")] == [0, 1, 2, 3]
    assert [value["queue_us"] for value in column(table, "provider")] == [None, None, 7, None]


def test_metrics_are_joined_by_request_id_and_go_before_what_the_response_said():
    rows = [a_row(0, provider={"duration_us": 1, "memory_mb": 5}), a_row(1), a_row(2, request_id=None)]
    table = joined(*rows, metrics={"r0": {"duration_us": 2}, "r1": {"duration_us": 3}, "elsewhere": {"duration_us": 9}})
    provider = column(table, "provider")
    assert [value["duration_us"] for value in provider] == [2, 3, None]
    assert [value["memory_mb"] for value in provider] == [5, None, None]


def test_metrics_find_their_rows_also_where_answers_came_out_of_order():
    table = joined(*(a_row(index) for index in (3, 0, 2, 1)), metrics={f"r{n}": {"duration_us": n} for n in range(4)})
    assert column(table, "index") == [0, 1, 2, 3]
    assert [value["duration_us"] for value in column(table, "provider")] == [0, 1, 2, 3]


def test_a_measurement_whose_name_is_no_unicode_does_not_lose_the_result():
    (value,) = column(joined(a_row(measurement={"a\udc80": 1})), "measurement")
    assert value["a\\udc80"] == 1


def test_columns_that_a_platform_or_benchmark_adds_have_the_type_that_holds_all_their_values():
    metrics = {
        "r0": {"zone": "z", "share": 1, "flag": True, "mixed": 1, "whole": 1, "nothing": None},
        "r1": {"zone": "y", "share": 0.5, "flag": False, "mixed": "two", "whole": 2},
    }
    table = joined(a_row(0, measurement={"own": [1, 2]}), a_row(1), metrics=metrics)
    assert struct(table, "provider") == {
        **GOLDEN_PROVIDER, "zone": "Utf8", "share": "Float64", "flag": "Boolean", "mixed": "Utf8", "whole": "Int64",
        "nothing": "Utf8",
    }  # fmt: skip
    first, second = column(table, "provider")
    assert (first["zone"], first["share"], first["flag"], first["mixed"], first["whole"]) == ("z", 1.0, True, "1", 1)
    assert (second["share"], second["flag"], second["mixed"]) == (0.5, False, "two")
    assert json.loads(column(table, "measurement")[0]["own"]) == [1, 2]
    assert column(table, "measurement")[1]["own"] is None


def test_a_value_that_a_known_column_cannot_hold_is_null_and_never_a_wrong_number():
    metrics = {"r0": {"duration_us": "long", "memory_mb": True, "cost_usd": 1, "billed_ms": 1.6, "cpu_us": [1]}}
    ((provider),) = column(joined(a_row(0), metrics=metrics), "provider")
    assert (provider["duration_us"], provider["memory_mb"], provider["cpu_us"]) == (None, None, None)
    assert provider["cost_usd"] == 1.0
    assert provider["billed_ms"] == 2


@pytest.mark.parametrize(
    "metrics", [{"duration_us": float("inf")}, {"duration_us": float("nan")}, {"duration_us": 2**70}, {"own": 2**70}], ids=str
)
def test_a_number_beyond_64_bits_does_not_lose_the_result(metrics):
    joined(a_row(0), metrics={"r0": metrics})


@pytest.mark.parametrize("where", ["error_detail", "measurement"])
def test_text_that_is_no_unicode_does_not_lose_the_rows(where):
    bad = json.loads('"\\ud800"')
    row = a_row(0, error="function_error", error_detail=bad) if where == "error_detail" else a_row(0, measurement={"own": bad})
    assert joined(row).num_rows == 1


def test_rows_hold_what_is_unknown_as_null_and_not_as_zero():
    table = joined(row_of(Exchange(0, 5, 6, error="connect"), Fields(), "measured", "f", None))
    for name in ("connected_ns", "dns_us", "finished_ns", "client_us", "handler_us", "cold", "output_ok", "response_bytes"):
        assert column(table, name) == [None], name
