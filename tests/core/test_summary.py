"""The figures of a run: which rows count, and that unknown is null."""

import math

import pytest
from example_records import a_manifest

from sebs_core.exchange import Exchange, Fields
from sebs_core.rows import joined_table, row_of, rows_table
from sebs_core.stats import Quantiles
from sebs_core.summary import summarize

CONTRACT = {
    "run", "platform", "benchmark", "size", "language", "count", "failures", "cold_count", "outputs_ok", "client_us",
    "response_us", "handler_us", "init_us", "provider_us", "achieved_per_s", "send_lag_us", "client_saturated",
    "host_contended", "cost_usd", "errors",
}  # fmt: skip
FIGURES = ["client_us", "response_us", "handler_us", "init_us", "provider_us"]


def a_row(index, client_us=100, *, cold=False, error=None, phase="measured", begun_us=None, lag_us=2, **fields):
    begun = (begun_us if begun_us is not None else index * 1000) * 1000
    exchange = Exchange(
        index, begun - lag_us * 1000, begun, finished_ns=None if client_us is None else begun + client_us * 1000, error=error
    )
    told = {"request_id": f"r{index}", "instance_id": fields.pop("instance", "i"), "instance_sequence": 0 if cold else 1}
    if cold is None:
        told["instance_sequence"] = None
    output_ok = fields.pop("output_ok", None)
    row = row_of(exchange, Fields(**{**told, **fields}), phase, "f", None)
    row["output_ok"] = output_ok
    return row


def summary(*rows, metrics=None, **manifest):
    return summarize(joined_table(rows_table(rows), metrics or {}), a_manifest(**manifest), "the-directory")


# --- the contract ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_every_key_of_the_contract_is_there_whatever_is_unknown(rows):
    told = summary(*(a_row(index) for index in range(rows))).model_dump(mode="json")
    assert set(told) >= CONTRACT
    assert told["count"] == rows
    for name in FIGURES:
        assert told[name] is None or set(told[name]) >= {"all", "cold", "warm"}
    if rows:
        assert set(told["client_us"]["all"]) >= {"p50", "p95", "p99", "mean", "min", "max"}
        assert set(told["send_lag_us"]) >= {"p50", "p99", "max"}


def test_of_an_empty_run_everything_is_unknown_and_nothing_fails():
    told = summary()
    assert (told.count, told.failures, told.cold_count, told.errors, told.instances) == (0, 0, 0, {}, 0)
    for name in [*FIGURES, "outputs_ok", "achieved_per_s", "send_lag_us", "cost_usd", "failure_share", "memory_mb"]:
        assert getattr(told, name) is None, name
    assert str(told)


def test_the_manifest_tells_the_rest():
    told = summary(a_row(0), size=None, state="interrupted", notes=("a note",), metrics_missing=2, client_saturated=True)
    assert (told.run, told.platform, told.benchmark) == ("the-directory", "double", "b")
    assert (told.size, told.language) == (None, "python")
    assert (told.state, told.client_saturated, told.host_contended) == ("interrupted", True, None)
    assert told.notes[0] == "a note"
    assert "2 invocations" in told.notes[1]


# --- which rows count -----------------------------------------------------------------------------------------------------


def test_only_measured_rows_count_and_the_others_are_counted_apart():
    told = summary(
        a_row(0, 10), a_row(1, 20), a_row(2, 9999, phase="warmup", error="crash"),
        a_row(3, 8888, phase="rejected", cold=True),
    )  # fmt: skip
    assert (told.count, told.failures, told.cold_count, told.rejected, told.warmups, told.errors) == (2, 0, 0, 1, 1, {})
    assert told.client_us.all.max == 20


def test_cold_and_warm_stand_apart_and_all_holds_both():
    rows = [a_row(index, 1000 + index, cold=True) for index in range(3)] + [a_row(index, 10 + index) for index in range(3, 8)]
    told = summary(*rows)
    assert told.cold_count == 3
    assert told.client_us.cold == Quantiles.of([1000, 1001, 1002])
    assert told.client_us.warm == Quantiles.of([13, 14, 15, 16, 17])
    assert told.client_us.all == Quantiles.of([1000, 1001, 1002, 13, 14, 15, 16, 17])
    assert told.response_us.warm == Quantiles.of([15, 16, 17, 18, 19])


def test_rows_of_which_it_is_not_known_count_in_all_only():
    told = summary(a_row(0, 10), a_row(1, 20, cold=None), a_row(2, 30, cold=True))
    assert told.client_us.all.max == 30
    assert told.client_us.warm == Quantiles.of([10])
    assert told.client_us.cold == Quantiles.of([30])


def test_cold_starts_of_different_kinds_are_not_pooled_and_a_note_says_so():
    told = summary(
        a_row(0, 100, cold=True, cold_kind="enforced", init_us=5), a_row(1, 200, cold=True, cold_kind="enforced", init_us=7),
        a_row(2, 900, cold=True, cold_kind="scale_out", init_us=9), a_row(3, 10),
    )  # fmt: skip
    assert told.client_us.cold is None
    assert told.init_us.cold is None
    assert set(told.cold_kinds) == {"enforced", "scale_out"}
    assert told.cold_kinds["enforced"].count == 2
    assert told.cold_kinds["enforced"].client_us == Quantiles.of([100, 200])
    assert told.cold_kinds["scale_out"].init_us == Quantiles.of([9])
    assert told.client_us.warm == Quantiles.of([10])
    assert any("not pooled" in note for note in told.notes)


def test_cold_starts_of_one_kind_are_one_figure():
    told = summary(a_row(0, 100, cold=True, cold_kind="enforced"), a_row(1, 200, cold=True, cold_kind="enforced"))
    assert told.client_us.cold == Quantiles.of([100, 200])
    assert not any("not pooled" in note for note in told.notes)


def test_failures_count_as_infinitely_long_with_or_without_an_answer():
    rows = [a_row(index, 10 + index) for index in range(8)]
    rows += [a_row(8, None, error="timeout", cold=None), a_row(9, 1, error="function_error")]
    told = summary(*rows)
    assert (told.count, told.failures, told.failure_share) == (10, 2, 0.2)
    assert told.errors == {"timeout": 1, "function_error": 1}
    figures = told.client_us.all
    assert figures == Quantiles.of([*range(10, 18), math.inf, math.inf])
    assert (figures.min, figures.p50, figures.p95, figures.max, figures.mean) == (10, 14.5, None, None, None)
    assert any("2 of 10 invocations failed" in note for note in told.notes)


@pytest.mark.parametrize(("start", "cold_infinite", "warm_infinite"), [("any", 0, 0), ("cold", 1, 0), ("warm", 0, 1)])
def test_a_failure_that_tells_nothing_of_its_instance_belongs_to_what_was_asked_for(start, cold_infinite, warm_infinite):
    rows = [a_row(0, 10, cold=True), a_row(1, 20), a_row(2, None, error="timeout", cold=None)]
    told = summary(*rows, start=start)
    assert told.client_us.cold == Quantiles.of([10, *[math.inf] * cold_infinite])
    assert told.client_us.warm == Quantiles.of([20, *[math.inf] * warm_infinite])
    assert told.client_us.all == Quantiles.of([10, 20, math.inf])


def test_when_all_failed_the_errors_are_told_and_no_figure():
    told = summary(*(a_row(index, None, error="connect", cold=None) for index in range(3)))
    assert (told.failures, told.errors, told.achieved_per_s) == (3, {"connect": 3}, None)
    assert told.client_us is None or told.client_us.all.p50 is None


# --- single figures -------------------------------------------------------------------------------------------------------


def test_the_start_of_instances_is_told_of_cold_rows_only():
    told = summary(a_row(0, cold=True, init_us=500, import_us=90), a_row(1, init_us=7), a_row(2))
    assert told.init_us.all == Quantiles.of([500]) == told.init_us.cold
    assert told.init_us.warm is None
    assert told.import_us.all == Quantiles.of([90])


def test_the_platforms_numbers_are_told_when_it_told_them():
    rows = [a_row(0, cold=True), a_row(1), a_row(2)]
    metrics = {
        f"r{index}": {"duration_us": 50 + index, "memory_mb": 30 - index, "cost_usd": 0.25, "init_us": 7, "queue_us": index}
        for index in range(3)
    }
    told = summary(*rows, metrics=metrics)
    assert told.provider_us.all == Quantiles.of([50, 51, 52])
    assert told.provider_init_us.all == Quantiles.of([7])
    assert told.queue_us.warm == Quantiles.of([1, 2])
    assert (told.memory_mb, told.cost_usd) == (30, 0.75)
    assert summary(*rows).provider_us is None


def test_the_cost_is_unknown_when_that_of_one_row_is():
    assert summary(a_row(0), a_row(1), metrics={"r0": {"cost_usd": 1.0}}).cost_usd is None


def test_the_rate_is_answers_per_second_from_the_first_send_to_the_last_answer():
    rows = [a_row(index, 100_000, begun_us=index * 100_000) for index in range(10)]
    assert summary(*rows).achieved_per_s == pytest.approx(10.0)
    assert summary(*rows, start="cold").achieved_per_s is None
    assert summary(rows[0]).achieved_per_s is None


def test_overlap_and_instances_are_counted():
    rows = [a_row(index, 100, begun_us=start, instance=name) for index, start, name in
            [(0, 0, "a"), (1, 50, "b"), (2, 99, "c"), (3, 100, "a"), (4, 500, "b")]]  # fmt: skip
    told = summary(*rows)
    assert (told.most_in_flight, told.instances) == (3, 3)


def test_the_lag_of_sends_is_told():
    told = summary(*(a_row(index, lag_us=lag) for index, lag in enumerate([0, 10, 20])))
    assert (told.send_lag_us.p50, told.send_lag_us.max) == (10, 20)
    assert summary(a_row(0, lag_us=0)).send_lag_us.p50 == 0


@pytest.mark.parametrize(
    ("checks", "ok", "wrong"),
    [([None, None], None, 0), ([True, None], True, 0), ([True, False], False, 1), ([False] * 3, False, 3)],
)
def test_outputs_are_right_when_all_that_were_checked_are(checks, ok, wrong):
    told = summary(*(a_row(index, output_ok=check) for index, check in enumerate(checks)))
    assert (told.outputs_ok, told.outputs_wrong) == (ok, wrong)


def test_the_text_says_what_a_person_wants_to_know():
    rows = [a_row(0, 1500, cold=True, output_ok=True), a_row(1, 250, output_ok=False)]
    rows.append(a_row(2, None, error="timeout", cold=None))
    text = str(summary(*rows, notes=("mind the gap",)))
    for part in ("b test on double, python 3.12", "3 invocations", "1 cold", "1 failed", "1 outputs WRONG", "1.500", "0.250",
                 "timeout: 1", "mind the gap", "the-directory"):  # fmt: skip
        assert part in text


# --- against a naive definition -------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_naive_definition_for_any_rows():
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the dependency group `checks`")
    st = hypothesis.strategies
    one = st.tuples(
        st.integers(0, 10**6), st.sampled_from([True, False, None]), st.sampled_from([None, None, None, "timeout"]),
        st.sampled_from(["measured", "measured", "warmup", "rejected"]),
    )  # fmt: skip

    @hypothesis.settings(max_examples=60, deadline=None)
    @hypothesis.given(st.lists(one, max_size=20))
    def holds(cases):
        told = summary(
            *(
                a_row(index, client_us, cold=cold, error=error, phase=phase, cold_kind="enforced" if cold else None)
                for index, (client_us, cold, error, phase) in enumerate(cases)
            )
        )
        taken = [(math.inf if error else float(us), cold) for us, cold, error, phase in cases if phase == "measured"]
        assert told.count == len(taken)
        assert told.cold_count == sum(cold is True for _, cold in taken)
        assert told.failures == sum(math.isinf(us) for us, _ in taken)
        if not taken:
            assert told.client_us is None
            return
        assert told.client_us.all == Quantiles.of(us for us, _ in taken)
        assert told.client_us.cold == Quantiles.of(us for us, cold in taken if cold is True)
        assert told.client_us.warm == Quantiles.of(us for us, cold in taken if cold is False)

    holds()


def test_a_failure_that_told_no_kind_counts_in_the_only_kind_there_is():
    rows = [a_row(0, 100, cold=True, cold_kind="enforced"), a_row(1, None, cold=None, error="crash")]
    kind = summary(*rows, start="cold").cold_kinds["enforced"]
    assert (kind.count, kind.client_us.min, kind.client_us.max) == (2, 100, None)


def test_a_failure_that_told_no_kind_leaves_nothing_known_of_several_kinds():
    rows = [a_row(0, 100, cold=True, cold_kind="enforced"), a_row(1, 100, cold=True, cold_kind="scale_out")]
    rows.append(a_row(2, None, cold=None, error="crash"))
    assert {kind.client_us for kind in summary(*rows, start="cold").cold_kinds.values()} == {None}
