"""What a person writes: each mistake is one sentence that names the key."""

import traceback

import pytest
from pydantic import SecretStr, ValidationError

from sebs_core.errors import ConfigError
from sebs_core.settings import RunConfig, Settings, validated


class Inner(Settings):
    depth: int = 0


class MySettings(Settings):
    region: str = "here"
    workers: int = 1
    token: SecretStr | None = None
    inner: Inner = Inner()


def refused(values, model=MySettings):
    with pytest.raises(ConfigError) as caught:
        validated(model, values, "the platform mine")
    return caught.value


def test_good_values_become_the_model():
    made = validated(MySettings, {"region": "there", "workers": "3"}, "it")
    assert (made.region, made.workers) == ("there", 3)


def test_a_misspelt_key_is_named_with_the_near_one():
    assert str(refused({"regoin": "x"})) == "the platform mine has no regoin (did you mean region?)"


def test_a_key_that_is_near_to_nothing_is_answered_with_all_that_are_known():
    message = str(refused({"zzz": 1}))
    assert message == "the platform mine has no zzz (known: inner, region, token, workers)"


def test_settings_without_fields_say_that_there_are_none():
    assert "known: none" in str(refused({"x": 1}, Settings))


def test_a_wrong_value_is_named_with_its_key():
    message = str(refused({"workers": "many"}))
    assert "the platform mine workers: " in message
    assert "integer" in message


def test_every_mistake_is_told_at_once():
    message = str(refused({"workers": "many", "regoin": "x"}))
    assert "workers" in message
    assert "regoin" in message


def test_a_key_of_an_inner_model_is_named_with_its_path():
    assert "inner.depth" in str(refused({"inner": {"depth": "deep"}}))


def test_the_error_shows_neither_a_cause_nor_the_value_that_may_be_secret():
    error = refused({"token": ["my-secret"], "workers": "my-secret"})
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert "my-secret" not in shown
    assert "ValidationError" not in shown
    assert error.__cause__ is None


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        MySettings().workers = 2


@pytest.mark.parametrize(
    "values",
    [{"memory_mb": 0}, {"memory_mb": -1}, {"timeout_s": 0}, {"architecture": "mips"}, {"function_name": "a/b"},
     {"function_name": ""}, {"environment": {"A": 1}}],
)  # fmt: skip
def test_a_run_is_refused_what_no_platform_could_do(values):
    (key,) = values
    assert key in str(refused(values, RunConfig))


def test_a_run_needs_no_choices():
    assert validated(RunConfig, {}, "the run").language == "python"
