"""Secrets: refused wherever they would be written, in whatever JSON makes of them, and hashed so that a change shows."""

import json

import pytest

from sebs_core.confidential import Confidential, keyed_hash
from sebs_core.errors import PluginError
from sebs_core.models import StoredValues

KEY = b"k" * 32
SECRETS = [
    "plain-secret",
    'with "quotes" in it',
    "with \\backslash",
    "ümläut-ß",
    'both "ü" and quotes',
    "line\nbreak and\ttab",
    "日本語のひみつ",
    "emoji 🔑🔑",
    "control \x01\x1f\x7f",
    "</script>&amp;",
    "-----BEGIN KEY-----\nMII+/=\n-----END KEY-----\n",
]
TEXTS = {
    "as it is": lambda secret: f"before {secret} after",
    "as JSON": lambda secret: json.dumps({"password": secret}),
    "as JSON that keeps letters": lambda secret: json.dumps({"password": secret}, ensure_ascii=False),
    "as a record": lambda secret: StoredValues(values={"a": [{"password": secret}]}).model_dump_json(),
    "as a key of a record": lambda secret: StoredValues(values={secret: 1}).model_dump_json(),
    "within a longer value": lambda secret: StoredValues(values={"url": f"https://user:{secret}@host"}).model_dump_json(),
}


@pytest.fixture
def confidential():
    return Confidential()


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_refused_in_every_form_and_not_told(confidential, secret, form):
    confidential.add("another secret", "something else")
    confidential.add("the setting password", secret)
    with pytest.raises(PluginError) as refused:
        confidential.refuse(TEXTS[form](secret), "the record x of the cache")
    told = str(refused.value)
    assert told.startswith("the record x of the cache would hold the setting password, ")
    assert "A plugin must keep secrets out of what it returns and records" in told
    assert secret not in told
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_the_name_of_what_is_stored_is_not_told_either(confidential, secret):
    confidential.add("the setting password", secret)
    with pytest.raises(PluginError) as refused:
        confidential.refuse(json.dumps({"name": secret}), f"the line bucket/{secret} of the ledger")
    assert secret not in str(refused.value)
    assert str(refused.value).startswith("the line bucket/")


def test_what_holds_no_secret_may_be_written(confidential):
    confidential.refuse('{"password": "hunter2hunter2"}', "x")
    confidential.add("the setting password", "hunter2hunter2")
    for text in ("", "{}", "hunter2", '{"password": "hunter2 hunter2"}', "HUNTER2HUNTER2"):
        confidential.refuse(text, "x")


@pytest.mark.parametrize("value", ["", "a", "12345"])
def test_short_texts_are_found_by_chance_in_anything_and_are_no_secrets(confidential, value):
    confidential.add("the setting region", value)
    confidential.refuse(f'{{"x": "{value}"}}', "x")


def test_the_shortest_secret_is_refused(confidential):
    confidential.add("the setting pin", "123456")
    with pytest.raises(PluginError):
        confidential.refuse('{"x": "a123456b"}', "x")


def test_any_secret_is_refused_in_every_form(confidential):
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the dependency group `checks`")
    from hypothesis import strategies as st

    @hypothesis.settings(deadline=None)
    @hypothesis.given(st.text(st.characters(exclude_categories=["Cs"]), min_size=6), st.sampled_from(sorted(TEXTS)))
    def check(secret, form):
        known = Confidential()
        known.add("it", secret)
        with pytest.raises(PluginError):
            known.refuse(TEXTS[form](secret), "x")

    check()


# --- hashes ---------------------------------------------------------------------------------------------------------------


def test_no_secrets_have_no_hash():
    assert keyed_hash(KEY, "f", {}) is None


def test_a_hash_is_the_same_for_the_same_and_shows_no_secret():
    first = keyed_hash(KEY, "f", {"A": "secret", "B": "other"})
    assert first == keyed_hash(KEY, "f", {"B": "other", "A": "secret"})
    assert len(first) == 64
    assert "secret" not in first


@pytest.mark.parametrize(
    ("key", "name", "secrets"),
    [
        (b"l" * 32, "f", {"A": "secret"}),
        (KEY, "g", {"A": "secret"}),
        (KEY, "f", {"A": "Secret"}),
        (KEY, "f", {"B": "secret"}),
        (KEY, "f", {"A": "secret", "B": ""}),
        (KEY, "f", {"A": ""}),
    ],
)
def test_a_hash_differs_by_key_function_names_and_values(key, name, secrets):
    assert keyed_hash(key, name, secrets) != keyed_hash(KEY, "f", {"A": "secret"})


def test_names_and_values_do_not_run_into_each_other():
    alike = ({"A": "B", "C": "D"}, {"A": "BCD"}, {"AB": "CD"}, {"A": 'B","C":"D'})
    assert len({keyed_hash(KEY, "f", secrets) for secrets in alike} | {keyed_hash(KEY, "fA", {"": "BCD"})}) == 5
