"""What several tests of sessions share: an observer that keeps what it is told, and a run of one invocation."""

import sebs_core as sebs
from sebs_core import hookimpl


class Watching:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.events = []

    @hookimpl
    def sebs_event(self, event):
        self.events.append(event)

    def finished(self, stage):
        return [event for event in self.events if isinstance(event, sebs.StageFinished) and event.stage == stage]


def run(session, benchmark, **more):
    return session.run(benchmark, **{"payload": {"value": 1}, "load": sebs.Closed(repetitions=1), **more})
