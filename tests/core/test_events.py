"""Events: frozen, and equal when they say the same."""

import dataclasses

import pytest

import sebs_core as sebs
from sebs_core import events

EVENTS = [thing for thing in vars(events).values() if isinstance(thing, type) and issubclass(thing, events.Event)]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_is_frozen_exported_and_explained(event):
    assert dataclasses.is_dataclass(event)
    assert event.__dataclass_params__.frozen
    assert event.__name__ in sebs.__all__
    assert event.__doc__


def test_fields_that_came_later_have_defaults():
    assert sebs.StageFinished("deploy", "x", 1.0) == sebs.StageFinished("deploy", "x", 1.0, False, "")
    assert sebs.Notice("x").warning is False
