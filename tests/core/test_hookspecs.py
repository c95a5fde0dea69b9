"""The hooks are documented and keep their own rules."""

import inspect

import pytest

from sebs_core.builtin import BuiltInStages
from sebs_core.hookspecs import DiscoveryHooks, StageHooks
from sebs_core.plugins import DISCOVERY, STAGES

SPECS = {name: getattr(home, name) for home in (DiscoveryHooks, StageHooks) for name in vars(home) if name.startswith("sebs_")}
COLLECTING = {"sebs_open", "sebs_close", "sebs_resources"}


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_hook_says_what_it_is_for(name):
    assert len((SPECS[name].__doc__ or "").strip()) > 20


@pytest.mark.parametrize("name", sorted(SPECS))
def test_hook_arguments_have_no_defaults(name):
    parameters = inspect.signature(SPECS[name]).parameters.values()
    assert [parameter.name for parameter in parameters if parameter.default is not parameter.empty] == []


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_one_answer_unless_all_are_asked(name):
    assert SPECS[name].sebs_spec["firstresult"] == (name not in COLLECTING)


def test_the_hooks_that_plugins_rely_on_are_there():
    assert set(DISCOVERY) >= {
        "sebs_platforms", "sebs_benchmarks", "sebs_languages", "sebs_extensions", "sebs_commands", "sebs_event",
    }  # fmt: skip
    assert set(STAGES) >= {
        "sebs_open", "sebs_close", "sebs_runtime", "sebs_package", "sebs_publish", "sebs_refresh", "sebs_deploy",
        "sebs_create_trigger", "sebs_request", "sebs_response", "sebs_invoke", "sebs_run_load", "sebs_enforce_cold_start",
        "sebs_collect_metrics", "sebs_logs", "sebs_resources",
        "sebs_remove",
    }  # fmt: skip


def test_core_answers_what_the_design_calls_built_in_and_nothing_that_a_platform_must():
    own = {name for name in vars(BuiltInStages) if name.startswith("sebs_")}
    assert own >= {"sebs_package", "sebs_publish", "sebs_request", "sebs_response", "sebs_run_load"}
    assert not own & {
        "sebs_runtime", "sebs_refresh", "sebs_deploy", "sebs_create_trigger", "sebs_collect_metrics", "sebs_resources",
        "sebs_remove",
    }  # fmt: skip
