"""Loads: what cannot be sent is refused when it is written."""

import pytest
from pydantic import ValidationError

import sebs_core as sebs
from sebs_core.models import Function, Trigger


def test_a_closed_loop_is_five_sequential_invocations_unless_told_otherwise():
    assert (sebs.Closed().concurrency, sebs.Closed().repetitions) == (1, 5)
    assert sebs.Closed(4, 200) == sebs.Closed(concurrency=4, repetitions=200)


@pytest.mark.parametrize("wrong", [{"repetitions": 0}, {"concurrency": 0}, {"concurrency": 1001}, {"repetitons": 5}])
def test_impossible_loads_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        sebs.Closed(**wrong)


def test_a_plan_is_written_without_payloads_requests_and_records():
    plan = sebs.Plan(
        load=sebs.Closed(), timeout_s=1.0, origin_ns=5, function=Function.model_construct(), trigger=Trigger(kind="http"),
        payloads=(b"secret",), requests=(sebs.Request("POST", "http://x", (("authorization", "secret"),), b"secret"),),
    )  # fmt: skip
    assert "secret" not in plan.model_dump_json()
