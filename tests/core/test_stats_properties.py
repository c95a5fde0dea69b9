"""Quantiles, for any values, against a definition that is easy to believe."""

import math

import pytest

from sebs_core.stats import Quantiles, quantile

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the dependency group `checks`")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

VALUES = st.lists(st.integers(0, 10**12) | st.floats(0, 1e12), min_size=1, max_size=40)
SHARES = st.floats(0, 1)


def naive(values, q):
    """Type 7 of Hyndman and Fan: the position (n-1)q in the sorted values, linear in between."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * q
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@settings(deadline=None)
@given(VALUES, SHARES)
def test_a_quantile_is_what_the_naive_definition_gives(values, q):
    assert quantile(sorted(values), q) == pytest.approx(naive(values, q))


@settings(deadline=None)
@given(VALUES, SHARES)
def test_a_quantile_is_what_numpy_gives(values, q):
    numpy = pytest.importorskip("numpy", reason="numpy is a peer for comparison only")
    assert quantile(sorted(values), q) == pytest.approx(float(numpy.quantile(values, q)))


@settings(deadline=None)
@given(VALUES, st.integers(0, 20), SHARES)
def test_failures_count_as_infinite_so_a_quantile_among_them_is_unknown(values, failures, q):
    ordered = sorted([*values, *[math.inf] * failures])
    place = q * (len(ordered) - 1)
    among_them = math.ceil(place) >= len(values)
    got = quantile(ordered, q)
    assert (got is None) == among_them
    if got is not None:
        assert min(values) * (1 - 1e-9) <= got <= max(values) * (1 + 1e-9)


@settings(deadline=None)
@given(VALUES, SHARES, SHARES)
def test_quantiles_grow_with_their_share(values, one, two):
    low, high = sorted((one, two))
    ordered = sorted(values)
    assert quantile(ordered, low) <= quantile(ordered, high) * (1 + 1e-9)


@settings(deadline=None)
@given(VALUES)
def test_all_figures_are_those_of_the_values_in_any_order(values):
    figures = Quantiles.of(reversed(values))
    assert figures == Quantiles.of(sorted(values))
    assert figures.min == min(values)
    assert figures.max == max(values)
    assert figures.mean == pytest.approx(sum(values) / len(values))
    assert figures.p50 == pytest.approx(naive(values, 0.5))
    assert figures.p99 == pytest.approx(naive(values, 0.99))
