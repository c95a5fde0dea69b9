"""Records round-trip through JSON, whatever is in them."""

import datetime
from pathlib import Path

import pytest

from sebs_core import models
from sebs_core.models import Function, FunctionConfig, Metrics, Package, Record, Resource, RunManifest, Runtime, Tagged, Trigger

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the dependency group `checks`")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


class RoundFunction(Function, tag="round-star"):
    """A plugin's function."""

    arn: str
    role: str = "none"


class RoundTrigger(Trigger, tag="round-star"):
    """A plugin's trigger."""

    route: str = ""


class SuperRoundFunction(RoundFunction, tag="round-super-star"):
    """A plugin's function that another plugin made more of."""

    shine: int = 0


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBER = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
UTC_TIMES = st.datetimes(
    min_value=datetime.datetime(1990, 1, 1), max_value=datetime.datetime(2100, 1, 1), timezones=st.just(datetime.timezone.utc)
)
PATHS = st.lists(st.text("abcö ._-", min_size=1, max_size=5), min_size=1, max_size=3).map(lambda parts: Path("/", *parts))
SCALARS = st.none() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT


def instances(model, **known):
    """Records of this class with any values in the fields, and some fields that nobody knows."""
    extra = st.dictionaries(TEXT.map(lambda text: f"unknown_{text}"), JSON, max_size=2)
    return st.builds(lambda extra, **values: model(**values, **extra), extra, **known)


CONFIGS = instances(
    FunctionConfig,
    function_name=TEXT, language=TEXT, language_version=TEXT, language_variant=TEXT, system_variant=TEXT, architecture=TEXT,
    memory_mb=st.integers(1, 10**6), timeout_s=st.floats(0, 10**6), environment=st.dictionaries(TEXT, TEXT, max_size=3),
)  # fmt: skip
RUNTIMES = instances(
    Runtime,
    files=st.dictionaries(TEXT, PATHS, max_size=3), requirements=st.lists(TEXT, max_size=3).map(tuple),
    wheel_platform=st.none() | TEXT, base_image=st.none() | TEXT, entry_point=TEXT,
)  # fmt: skip
PACKAGES = instances(
    Package,
    benchmark=TEXT, workload_version=TEXT, digest=TEXT, inputs=TEXT, kind=st.sampled_from(["folder", "zip", "container"]),
    path=PATHS, size_bytes=st.integers(0, 2**50), language=TEXT, language_version=TEXT, language_variant=TEXT,
    system_variant=TEXT, architecture=TEXT, memory_mb=st.integers(1), timeout_s=st.floats(0, 10**6), entry_point=TEXT,
    dependencies=st.dictionaries(TEXT, TEXT, max_size=3), uri=st.none() | TEXT,
    image_id=st.none() | TEXT, why_rebuilt=TEXT, created=UTC_TIMES,
)  # fmt: skip
TRIGGERS = st.one_of(
    instances(Trigger, kind=TEXT, url=st.none() | TEXT, asynchronous=st.booleans()),
    instances(RoundTrigger, tag=st.just("round-star"), kind=TEXT, route=TEXT),
)
FUNCTION_FIELDS = {
    "name": TEXT, "platform": TEXT, "benchmark": TEXT, "package_digest": TEXT, "config": CONFIGS,
    "triggers": st.lists(TRIGGERS, max_size=2).map(tuple), "generation": st.none() | TEXT,
    "provider_time_kind": st.sampled_from([None, "runtime", "host", "frontend", "sandbox"]),
    "memory_kind": st.sampled_from([None, "instance_peak", "call_peak"]),
    "secrets_hash": st.none() | TEXT,
    "limits_enforced": st.dictionaries(TEXT, st.booleans(), max_size=2),
}  # fmt: skip
FUNCTIONS = st.one_of(
    instances(Function, **FUNCTION_FIELDS),
    instances(RoundFunction, tag=st.just("round-star"), arn=TEXT, **FUNCTION_FIELDS),
    instances(SuperRoundFunction, tag=st.just("round-super-star"), arn=TEXT, shine=st.integers(-9, 9), **FUNCTION_FIELDS),
)
RESOURCES = instances(
    Resource, kind=TEXT, name=TEXT, platform=TEXT, resources_id=TEXT, depends_on=st.lists(TEXT, max_size=2).map(tuple)
)
METRICS = instances(
    Metrics,
    values=st.dictionaries(TEXT, st.dictionaries(TEXT, SCALARS, max_size=3), max_size=3),
    sources=st.dictionaries(TEXT, st.sampled_from(["measured", "derived", "aggregate"]), max_size=2),
    missing=st.lists(TEXT, max_size=2).map(tuple), aggregates=st.dictionaries(TEXT, JSON, max_size=2),
    raw=st.lists(JSON, max_size=2).map(tuple),
)  # fmt: skip
INVOCATIONS = instances(
    models.Invocation,
    index=st.integers(0), function=TEXT, phase=TEXT, client_us=st.none() | st.integers(0), status=st.none() | st.integers(),
    error=st.none() | st.sampled_from(models.ERROR_KINDS), cold=st.none() | st.booleans(), output=JSON,
    provider=st.none() | st.dictionaries(TEXT, JSON, max_size=2),
)  # fmt: skip
REPORTS = instances(
    models.EngineReport, engine=TEXT, sent=st.integers(0), started_ns=st.integers(), ended_ns=st.integers(),
    interrupted=st.booleans(),
)  # fmt: skip
INPUTS = instances(models.Inputs, parts=st.dictionaries(TEXT, TEXT, max_size=4))
STORED = instances(models.StoredValues, values=st.dictionaries(TEXT, JSON, max_size=3))
MANIFESTS = instances(
    RunManifest,
    run=TEXT, state=st.sampled_from(["running", "complete", "interrupted", "failed"]), created=UTC_TIMES, platform=TEXT,
    settings=st.dictionaries(TEXT, JSON, max_size=2), benchmark=TEXT, workload_version=TEXT, size=st.none() | TEXT,
    input_digest=TEXT, distinct_payloads=st.integers(1), start=st.sampled_from(["any", "cold", "warm"]),
    plan=st.dictionaries(TEXT, JSON, max_size=2), function=FUNCTIONS, package=PACKAGES, trigger=TRIGGERS,
    stages=st.dictionaries(TEXT, st.dictionaries(TEXT, st.lists(TEXT, max_size=2), max_size=2), max_size=2),
    versions=st.dictionaries(TEXT, TEXT, max_size=2), machine=st.dictionaries(TEXT, JSON, max_size=2),
    clocks=st.lists(st.tuples(st.integers(), st.integers()), max_size=2).map(tuple),
    engine=st.lists(REPORTS, max_size=2).map(tuple), notes=st.lists(TEXT, max_size=2).map(tuple),
)  # fmt: skip

ROOTS = {
    FunctionConfig: CONFIGS, Runtime: RUNTIMES, Package: PACKAGES, Trigger: TRIGGERS, Function: FUNCTIONS,
    Resource: RESOURCES, Metrics: METRICS, models.Invocation: INVOCATIONS, models.EngineReport: REPORTS,
    RunManifest: MANIFESTS, models.Inputs: INPUTS, models.StoredValues: STORED,
}  # fmt: skip


def test_every_record_of_the_module_is_tried_below():
    records = {thing for thing in vars(models).values() if isinstance(thing, type) and issubclass(thing, Record)}
    assert records - {Record, Tagged} == set(ROOTS)


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.__name__)
def test_what_is_written_as_json_is_read_back_equal_with_unknown_fields_kept(root):
    @settings(max_examples=25, deadline=None)
    @given(ROOTS[root])
    def holds(record):
        text = record.model_dump_json()
        loaded = root.model_validate_json(text)
        assert type(loaded) is type(record)
        assert loaded == record
        assert loaded.model_extra == record.model_extra
        assert loaded.model_dump_json() == text

    holds()


@settings(max_examples=25, deadline=None)
@given(MANIFESTS)
def test_a_whole_manifest_survives_without_the_plugins_byte_for_byte(manifest):
    text = manifest.model_dump_json(indent=1)
    hidden = {}
    for family in (Function._family, Trigger._family):
        for tag in ("round-star", "round-super-star"):
            if tag in family:
                hidden[id(family), tag] = (family, family.pop(tag))
    try:
        assert RunManifest.model_validate_json(text).model_dump_json(indent=1) == text
    finally:
        for (_, tag), (family, known) in hidden.items():
            family[tag] = known
