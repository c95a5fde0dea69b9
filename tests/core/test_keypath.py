"""Values by key path, for any values: merged like sets, found where they were put, and nothing given is changed."""

import copy

import pytest

from sebs_core.keypath import merged, value_at, with_value, without

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the dependency group `checks`")
from hypothesis import assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
KEYS = st.sampled_from("abcd")
VALUES = st.recursive(st.dictionaries(KEYS, PLAIN, max_size=3), lambda inner: st.dictionaries(KEYS, PLAIN | inner, max_size=4))
PATHS = st.lists(KEYS, min_size=1, max_size=4)
# Small letters have plain values, capital ones mappings: so a key has the same type in all of them.
ALIKE = st.recursive(
    st.dictionaries(st.sampled_from("ab"), PLAIN, max_size=2),
    lambda inner: st.builds(
        lambda plain, nested: {**plain, **nested},
        st.dictionaries(st.sampled_from("ab"), PLAIN, max_size=2),
        st.dictionaries(st.sampled_from("XYZ"), inner, max_size=3),
    ),
)


# --- merged ---------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(VALUES, VALUES)
def test_merging_gives_the_second_where_both_have_a_plain_value_and_goes_on_where_both_have_mappings(values, more):
    result = merged(values, more)
    assert result.keys() == values.keys() | more.keys()
    for key, value in result.items():
        if key not in more:
            assert value == values[key]
        elif isinstance(values.get(key), dict) and isinstance(more[key], dict):
            assert value == merged(values[key], more[key])
        else:
            assert value == more[key]


@settings(deadline=None)
@given(ALIKE, ALIKE, ALIKE)
def test_the_order_of_merging_does_not_matter_as_long_as_the_order_of_values_stays(one, two, three):
    assert merged(merged(one, two), three) == merged(one, merged(two, three))


@settings(deadline=None)
@given(VALUES, VALUES)
def test_merging_twice_is_merging_once(values, more):
    assert merged(merged(values, more), more) == merged(values, more)
    assert merged(values, values) == values


@settings(deadline=None)
@given(VALUES)
def test_merging_nothing_changes_nothing(values):
    assert merged(values, {}) == merged({}, values) == values


# --- paths ----------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(VALUES, PATHS, PLAIN | VALUES)
def test_a_value_is_found_where_it_was_put(values, path, value):
    before = value_at(values, path)
    expected = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    assert value_at(with_value(values, path, value), path) == expected


@settings(deadline=None)
@given(VALUES, PATHS, PATHS, PLAIN)
def test_what_stands_elsewhere_stays_when_a_value_is_put(values, path, other, value):
    shared = min(len(path), len(other))
    assume(path[:shared] != other[:shared])
    assume(all(isinstance(value_at(values, path[:depth]), dict | None) for depth in range(len(path))))
    assert value_at(with_value(values, path, value), other) == value_at(values, other)


@settings(deadline=None)
@given(VALUES, PATHS)
def test_nothing_stands_where_it_was_removed(values, path):
    removed = without(values, path)
    assert value_at(removed, path) is None
    assert without(removed, path) == removed


@settings(deadline=None)
@given(VALUES, PATHS, PATHS)
def test_what_stands_elsewhere_stays_when_a_value_is_removed(values, path, other):
    assume(other[: len(path)] != path)
    expected = value_at(values, other)
    if other == path[: len(other)] and isinstance(expected, dict):
        expected = without(expected, path[len(other) :])
    assert value_at(without(values, path), other) == expected


@settings(deadline=None)
@given(VALUES, PATHS, PLAIN)
def test_removing_what_was_put_gives_back_what_was_there(values, path, value):
    assume(isinstance(value_at(values, path[:-1]), dict))
    assert without(with_value(values, path, value), path) == without(values, path)


@settings(deadline=None)
@given(VALUES, PATHS)
def test_removing_what_is_not_there_changes_nothing(values, path):
    holder = value_at(values, path[:-1])
    assume(not isinstance(holder, dict) or path[-1] not in holder)
    assert without(values, path) == values


@settings(deadline=None)
@given(VALUES)
def test_the_empty_path_is_everything(values):
    assert value_at(values, ()) == values
    assert with_value(values, (), {"a": 1}) == merged(values, {"a": 1})
    assert without(values, ()) == {}


@settings(deadline=None)
@given(VALUES, VALUES, PATHS, PLAIN | VALUES)
def test_nothing_given_is_changed(values, more, path, value):
    given_ones = (values, more, path, value)
    before = copy.deepcopy(given_ones)
    merged(values, more)
    with_value(values, path, value)
    without(values, path)
    value_at(values, path)
    assert given_ones == before


@pytest.mark.parametrize("path", [("host", "x"), ("host", "0"), ("ports", "0"), ("nothing", "x"), ("nothing",)])
def test_nothing_stands_below_what_is_no_mapping(path):
    assert value_at({"host": "localhost", "ports": ["1"]}, path) is None
