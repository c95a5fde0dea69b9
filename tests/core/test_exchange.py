"""The envelope, read: whatever comes, it is told what it is."""

import json

import pytest

from sebs_core.exchange import Fields, fields_from_envelope

ENVELOPE = {
    "sebs": 1, "request_id": "r", "instance_id": "i", "instance_sequence": 0, "instance_uptime_us": 5, "generation": "g",
    "import_us": 1, "init_us": 2, "handler_us": 3, "begin_us": 4, "end_us": 7, "measurement": {"compute_us": 1},
    "error": None, "result": {"a": [1]},
}  # fmt: skip


def test_each_part_of_the_envelope_becomes_its_column():
    assert fields_from_envelope(json.dumps(ENVELOPE).encode()) == Fields(
        request_id="r", instance_id="i", instance_sequence=0, instance_uptime_us=5, generation="g", import_us=1, init_us=2,
        handler_us=3, function_begin_us=4, function_end_us=7, measurement={"compute_us": 1}, output={"a": [1]},
    )  # fmt: skip


def test_an_error_is_told_with_its_kind_type_and_message():
    error = {"kind": "function_error", "type": "ValueError", "message": "no", "trace": "long"}
    fields = fields_from_envelope(json.dumps({**ENVELOPE, "error": error}).encode())
    assert (fields.error, fields.error_detail) == ("function_error", "ValueError: no")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[]", b"5", b"null", b'{"result": 1}', b"{", b'"sebs"'])
def test_what_is_no_envelope_is_a_bad_response_that_shows_its_beginning(body):
    fields = fields_from_envelope(body)
    assert fields.error == "bad_response"
    assert repr(body.decode("utf-8", "replace")) in fields.error_detail


def test_a_long_body_is_shown_by_its_beginning_only():
    assert len(fields_from_envelope(b"x" * 100_000).error_detail) < 300


@pytest.mark.parametrize(
    "wrong",
    [{"error": "x"}, {"error": {"kind": "oom"}}, {"error": ["x"]}, {"measurement": [1]},
     {"instance_sequence": "0"}, {"handler_us": 1.5}, {"handler_us": 2**70}, {"request_id": 7}, {"generation": ["x"]}],
    ids=str,
)  # fmt: skip
def test_an_envelope_of_another_shape_is_a_row_and_not_the_end_of_the_run(wrong):
    from sebs_core.exchange import Exchange
    from sebs_core.rows import joined_table, row_of, rows_table

    fields = fields_from_envelope(json.dumps({**ENVELOPE, **wrong}).encode())
    row = row_of(Exchange(0, 0, 0), fields, "measured", "f", None)
    joined_table(rows_table([row]), {})


def test_some_fields_can_be_replaced():
    assert Fields(request_id="r", handler_us=1).but(handler_us=2) == Fields(request_id="r", handler_us=2)
