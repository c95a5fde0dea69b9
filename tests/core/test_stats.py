"""Quantiles: failures count as infinite, and what is unknown is None."""

import math

import pytest

from sebs_core.stats import Quantiles, quantile


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([1], 0.5, 1), ([1, 2], 0.5, 1.5), ([1, 2, 3, 4, 5], 0.5, 3), ([0, 10], 0.95, 9.5), ([1, 2, 3], 0, 1), ([1, 2, 3], 1, 3)],
)
def test_a_quantile_lies_between_its_neighbours_in_proportion(values, q, expected):
    assert quantile(values, q) == pytest.approx(expected)


def test_of_nothing_there_are_no_figures():
    assert Quantiles.of([]) is None


def test_one_failure_makes_mean_and_maximum_unknown_and_leaves_what_does_not_depend_on_it():
    figures = Quantiles.of([*range(1, 100), math.inf])
    assert (figures.mean, figures.max) == (None, None)
    assert (figures.min, figures.p50) == (1, 50.5)
    assert figures.p95 == pytest.approx(95.05)
    assert figures.p99 is None


def test_when_all_failed_nothing_is_known():
    assert set(Quantiles.of([math.inf, math.inf]).model_dump(exclude={"schema_version"}).values()) == {None}
