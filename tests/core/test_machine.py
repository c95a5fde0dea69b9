"""Facts of the machine: whatever the system does not tell is None, and nothing fails."""

import json

from sebs_core import machine


def test_facts_are_json_and_name_what_measurements_depend_on():
    facts = machine.machine_facts()
    assert set(facts) >= {
        "system", "kernel", "architecture", "cpu", "cpus", "cpus_usable", "memory_kb", "governor", "smt", "steal_ticks",
        "load_average", "python",
    }  # fmt: skip
    assert json.loads(json.dumps(facts))["cpus"] >= 1


def test_a_system_that_tells_nothing_is_no_obstacle(monkeypatch):
    monkeypatch.setattr(machine, "_text", lambda path: None)
    facts = machine.machine_facts()
    assert (facts["memory_kb"], facts["governor"], facts["steal_ticks"]) == (None, None, None)
