"""Records: they round-trip, with and without the plugin that knows them."""

import json

import pytest
from pydantic import ValidationError

from sebs_core.errors import PluginError
from sebs_core.models import Function, FunctionConfig, Metrics, Package, Record, Resource, RunManifest, Runtime, Trigger

CONFIG = FunctionConfig(
    function_name="f",
    language="python",
    language_version="3.12",
    language_variant="default",
    system_variant="package",
    architecture="x64",
    memory_mb=128,
    timeout_s=3,
)


class StarFunction(Function, tag="test-star"):
    """A plugin's function."""

    arn: str
    role: str = "none"


class StarTrigger(Trigger, tag="test-star"):
    """A plugin's trigger."""

    route: str = ""


class SuperStarFunction(StarFunction, tag="test-super-star"):
    """A plugin's function that another plugin made more of."""

    shine: int = 0


def a_function(**more):
    given = {"name": "f", "platform": "star", "benchmark": "b", "package_digest": "d", "config": CONFIG}
    return {**given, **more}


def test_the_tag_decides_the_class_that_is_loaded():
    text = StarFunction(**a_function(arn="a:1")).model_dump_json()
    loaded = Function.model_validate_json(text)
    assert type(loaded) is StarFunction
    assert loaded.arn == "a:1"
    assert type(Function.model_validate(json.loads(text))) is StarFunction


def test_a_family_inside_another_record_keeps_its_class_and_fields():
    trigger = StarTrigger(kind="http", url="http://x", route="/r")
    text = Function(**a_function(triggers=(trigger,))).model_dump_json()
    assert '"route":"/r"' in text
    loaded = Function.model_validate_json(text)
    assert type(loaded.triggers[0]) is StarTrigger
    assert loaded.triggers[0].route == "/r"


def test_a_subclass_of_a_subclass_is_found_from_the_root_and_from_between():
    text = SuperStarFunction(**a_function(arn="a", shine=3)).model_dump_json()
    assert type(Function.model_validate_json(text)) is SuperStarFunction
    assert type(StarFunction.model_validate_json(text)) is SuperStarFunction


def test_a_sibling_is_not_loaded_as_something_else():
    text = Trigger(kind="http").model_dump_json()
    assert type(Trigger.model_validate_json(text)) is Trigger
    assert json.loads(text)["tag"] == ""


def test_without_its_plugin_a_record_keeps_every_field_and_is_written_back_byte_for_byte(monkeypatch):
    triggers = (StarTrigger(kind="http", route="/r"),)
    made = StarFunction(**a_function(arn="a:1", role="r", triggers=triggers, unforeseen=[1.0, {}]))
    text = made.model_dump_json(indent=1)
    for family, tag in ((Function, "test-star"), (Function, "test-super-star"), (Trigger, "test-star")):
        monkeypatch.delitem(family._family, tag)
    loaded = Function.model_validate_json(text)
    assert type(loaded) is Function
    assert type(loaded.triggers[0]) is Trigger
    assert loaded.arn == "a:1"
    assert loaded.tag == "test-star"
    assert loaded.triggers[0].route == "/r"
    assert loaded.model_dump_json(indent=1) == text
    monkeypatch.undo()
    assert Function.model_validate_json(loaded.model_dump_json()) == made


def test_a_copy_with_changes_keeps_the_class_and_the_unknown_fields():
    made = StarFunction(**a_function(arn="a", unforeseen="kept"))
    changed = made.model_copy(update={"generation": "g"})
    assert type(changed) is StarFunction
    assert json.loads(changed.model_dump_json())["unforeseen"] == "kept"


def test_a_tag_claimed_twice_is_refused_and_both_claimants_are_named():
    with pytest.raises(PluginError) as refused:

        class OtherFunction(Function, tag="test-star"):
            pass

    assert "test-star" in str(refused.value)
    assert f"{StarFunction.__module__}.StarFunction" in str(refused.value)
    assert "OtherFunction" in str(refused.value)
    assert Function._family["test-star"] is StarFunction


def test_two_families_may_use_the_same_tag():
    assert Function._family["test-star"] is StarFunction
    assert Trigger._family["test-star"] is StarTrigger


def test_a_module_that_is_imported_again_may_claim_its_tag_again():
    again = type(StarFunction)(
        "StarFunction", (Function,), {"__module__": StarFunction.__module__, "__qualname__": "StarFunction"}, tag="test-star"
    )
    assert Function._family["test-star"] is again
    Function._family["test-star"] = StarFunction


def test_a_subclass_without_a_tag_is_refused_and_told_how():
    with pytest.raises(PluginError, match=r"Untagged needs a tag: class Untagged\(…, tag='my-platform'\)"):

        class Untagged(Function):
            pass


@pytest.mark.parametrize("record", [CONFIG, Trigger(kind="http"), StarFunction(**a_function(arn="a"))])
def test_records_are_frozen(record):
    with pytest.raises(ValidationError, match="frozen"):
        record.schema_version = 2


def test_every_record_has_a_schema_version():
    for model in (FunctionConfig, Runtime, Package, Trigger, Function, Resource, Metrics, RunManifest):
        assert model.model_fields["schema_version"].default == 1
        assert issubclass(model, Record)


def test_the_trigger_of_a_function_is_found_by_kind_and_by_asynchrony():
    sync, later = Trigger(kind="http"), Trigger(kind="http", asynchronous=True)
    function = Function(**a_function(triggers=(sync, later)))
    assert function.trigger("http") is function.triggers[0]
    assert function.trigger("http", asynchronous=True) is function.triggers[1]
    assert function.trigger("library") is None


@pytest.mark.parametrize("tag", [None, 3, [], {}])
def test_a_tag_that_is_no_text_is_a_validation_error(tag):
    with pytest.raises(ValidationError):
        Trigger.model_validate({"kind": "http", "tag": tag})
