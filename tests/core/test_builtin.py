"""Core's own answers: requests, and what HTTP statuses mean."""

import json

import pytest

from sebs_core.builtin import BuiltInStages
from sebs_core.exchange import Response
from sebs_core.models import ERROR_KINDS, Trigger

ENVELOPE = {"sebs": 1, "request_id": "r", "error": None, "result": 1}


@pytest.fixture
def built_in():
    return BuiltInStages(stages=None)


def test_a_trigger_with_a_url_is_a_post_of_the_payload(built_in):
    request = built_in.sebs_request(Trigger(kind="http", url="http://x/y"), b'{"a": 1}')
    assert (request.method, request.url, request.body) == ("POST", "http://x/y", b'{"a": 1}')
    assert ("content-type", "application/json") in request.headers


def test_a_trigger_without_a_url_is_not_answered_for(built_in):
    assert built_in.sebs_request(Trigger(kind="library"), b"{}") is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "bad_response"), (403, "bad_response"), (404, "bad_response"), (413, "too_large"), (429, "throttled"),
     (500, "function_error"), (502, "function_error"), (503, "function_error"), (504, "timeout")],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", b"Service unavailable", b'{"message": "no"}', json.dumps(ENVELOPE).encode()])
def test_a_status_that_says_no_is_an_error_with_status_and_body(built_in, status, kind, body):
    fields = built_in.sebs_response(Response(status, {}, body))
    assert fields.error == kind
    assert f"HTTP status {status}" in fields.error_detail
    assert body[:50].decode() in fields.error_detail
    assert kind in ERROR_KINDS


def test_what_the_shim_says_of_the_failure_goes_before_the_status(built_in):
    error = {"kind": "oom", "type": "MemoryError", "message": "m"}
    fields = built_in.sebs_response(Response(500, {}, json.dumps({**ENVELOPE, "error": error}).encode()))
    assert (fields.error, fields.error_detail, fields.request_id) == ("oom", "MemoryError: m", "r")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]"])
def test_a_good_status_without_an_envelope_is_a_bad_response(built_in, body):
    assert built_in.sebs_response(Response(200, {}, body)).error == "bad_response"


@pytest.mark.parametrize("status", [200, 201, 302])
def test_a_good_status_with_an_envelope_is_well(built_in, status):
    fields = built_in.sebs_response(Response(status, {}, json.dumps(ENVELOPE).encode()))
    assert (fields.error, fields.output) == (None, 1)
