"""The benchmarks that come with SeBS: their inputs are what they were, and their checks notice what is wrong."""

import copy
import hashlib
import importlib.util
import json
import sys
import time
from types import ModuleType

import pytest

from sebs_core.benchmark import Benchmark, find_all

sebs_benchmarks = pytest.importorskip("sebs_benchmarks", reason="the distribution sebs-benchmarks is not installed")
(FOLDER,) = sebs_benchmarks.sebs_benchmarks()
BENCHMARKS = {benchmark.name: benchmark for benchmark in find_all([FOLDER])}

PAYLOAD_DIGESTS = {
    ("010.sleep", "test"): "6346f29ee0332c19a174c16184fa48a4311bc64ccfe96b5f82bc932c89e05c4f",
    ("010.sleep", "small"): "9213110b3438ad58c904392349f9674410af6b66cc37cf35f153914c69217a83",
    ("010.sleep", "large"): "b51d835441bb6ff5dee7c51afbe2310f6da7205929f8b369c6e868b3369c230a",
    ("110.dynamic-html", "test"): "7d16e2cb9dfc8c64624e428804c4afe901910441f83ab5aed2b34eaf31929a4a",
    ("110.dynamic-html", "small"): "c3522ca2ab0e65cb5c08242e44f78144475603d8ed373d65b83f3e713cea976e",
    ("110.dynamic-html", "large"): "2b7ead0675d302075b73febe42367431b263e7f55e1c0df73ea004b5c44be29b",
}
"""SHA-256 of the JSON text with sorted keys. A change of inputs is a change of `workload_version`."""
WORKLOAD_VERSIONS = {"010.sleep": "2.0", "110.dynamic-html": "2.0"}
SIZES = ("test", "small", "large")


def digest(payload):
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def handler_of(benchmark, **stand_ins):
    """The benchmark's own handler, with stand-ins for what it requires and is not installed here."""
    spec = importlib.util.spec_from_file_location("shipped_function", benchmark.folder / "python" / "function.py")
    module = importlib.util.module_from_spec(spec)
    known = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update({name: stand_in for name, stand_in in stand_ins.items() if known[name] is None})
    try:
        spec.loader.exec_module(module)
    finally:
        for name, before in known.items():
            if before is None:
                sys.modules.pop(name, None)
    return module.handler


class SmallTemplate:
    """Enough of a template language for the page of 110.dynamic-html, where jinja2 is not installed."""

    def __init__(self, text):
        self._text = text

    def render(self, *, username, cur_time, random_numbers):
        before, _, rest = self._text.partition("{% for number in random_numbers %}")
        line, _, after = rest.partition("{% endfor %}")
        lines = "".join(line.replace("{{ number }}", str(number)) for number in random_numbers)
        return (before + lines + after).replace("{{ username }}", username).replace("{{ cur_time }}", cur_time)


def jinja2():
    try:
        import jinja2
    except ImportError:
        jinja2 = ModuleType("jinja2")
        jinja2.Template = SmallTemplate
    return jinja2


HANDLERS = {
    "010.sleep": handler_of,
    "110.dynamic-html": lambda benchmark: handler_of(benchmark, jinja2=jinja2()),
}


def test_every_shipped_benchmark_is_well_and_tried_here():
    assert [benchmark.name for benchmark in BENCHMARKS.values() if benchmark.error] == []
    assert set(BENCHMARKS) == set(WORKLOAD_VERSIONS) == set(HANDLERS)


@pytest.mark.parametrize("name", WORKLOAD_VERSIONS)
def test_the_workload_version_is_the_one_whose_digests_stand_here(name):
    assert BENCHMARKS[name].config.workload_version == WORKLOAD_VERSIONS[name]
    assert BENCHMARKS[name].config.description


@pytest.mark.parametrize("name", WORKLOAD_VERSIONS)
def test_sizes_are_in_order_and_really_differ(name):
    benchmark = BENCHMARKS[name]
    assert benchmark.sizes == SIZES
    assert len({digest(benchmark.payload(size)) for size in SIZES}) == 3


def test_the_work_grows_with_the_size():
    assert [BENCHMARKS["010.sleep"].payload(size)["sleep"] for size in SIZES] == [0.1, 1.0, 10.0]
    assert [BENCHMARKS["110.dynamic-html"].payload(size)["random_len"] for size in SIZES] == [10, 1_000, 100_000]


@pytest.mark.parametrize("name", WORKLOAD_VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_payloads_are_the_same_in_every_process_and_on_every_day(name, size):
    again = Benchmark.load(BENCHMARKS[name].folder)
    assert digest(again.payload(size)) == digest(BENCHMARKS[name].payload(size)) == PAYLOAD_DIGESTS[name, size]


@pytest.mark.parametrize("name", WORKLOAD_VERSIONS)
def test_requirements_are_pinned(name):
    from sebs_core.packaging import unpinned

    requirements = BENCHMARKS[name].folder / "python" / "requirements.txt"
    lines = requirements.read_text().split() if requirements.exists() else []
    assert unpinned(lines) == []


def outcome(name, size, monkeypatch):
    """(payload, what the handler returned), through JSON as over the wire."""
    if name == "010.sleep":
        slept = []
        monkeypatch.setattr(time, "sleep", slept.append)
        monkeypatch.setattr(time, "perf_counter_ns", lambda: int(sum(slept) * 1e9))
    payload = BENCHMARKS[name].payload(size)
    output = HANDLERS[name](BENCHMARKS[name])(copy.deepcopy(payload))
    return payload, json.loads(json.dumps(output))


@pytest.mark.parametrize("name", WORKLOAD_VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_the_handler_passes_its_own_check(name, size, monkeypatch):
    payload, output = outcome(name, size, monkeypatch)
    assert BENCHMARKS[name].checker()(payload, output) is None
    assert all(isinstance(value, int) for value in output["measurement"].values())


def test_010_sleep_really_sleeps():
    handler = HANDLERS["010.sleep"](BENCHMARKS["010.sleep"])
    begin = time.monotonic()
    output = handler({"sleep": 0.05})
    assert 0.05 <= time.monotonic() - begin < 1
    assert BENCHMARKS["010.sleep"].checker()({"sleep": 0.05}, output) is None


def test_110_dynamic_html_lists_the_numbers_of_park_and_miller(monkeypatch):
    import re

    _, output = outcome("110.dynamic-html", "small", monkeypatch)
    modulus = 2**31 - 1
    expected = [42 * pow(48271, n, modulus) % modulus % 1_000_000 for n in range(1, 1001)]
    assert [int(number) for number in re.findall(r"<li>(\d+)</li>", output["result"])] == expected


def replaced(old, new):
    return lambda output: {**output, "result": output["result"].replace(old, new, 1)}


MUTATIONS = {
    ("010.sleep", "no output"): lambda output: None,
    ("010.sleep", "no object"): lambda output: [output],
    ("010.sleep", "no result"): lambda output: {"measurement": output["measurement"]},
    ("010.sleep", "another duration"): lambda output: {**output, "result": output["result"] * 2},
    ("010.sleep", "did not sleep"): lambda output: {**output, "measurement": {"sleep_us": 0}},
    ("010.sleep", "woke too early"): lambda output: {
        **output, "measurement": {"sleep_us": output["measurement"]["sleep_us"] - 20_000}
    },
    ("110.dynamic-html", "no output"): lambda output: None,
    ("110.dynamic-html", "a bare page"): lambda output: output["result"],
    ("110.dynamic-html", "an empty page"): lambda output: {**output, "result": ""},
    ("110.dynamic-html", "a number"): lambda output: {**output, "result": 5},
    ("110.dynamic-html", "another greeting"): replaced("testname", "nobody"),
    ("110.dynamic-html", "no time"): lambda output: {
        **output, "result": __import__("re").sub(r"\d{4}-\d\d-\d\d", "today", output["result"])
    },
    ("110.dynamic-html", "a line is missing"): replaced("<li>", "<p>"),
    ("110.dynamic-html", "a line too many"): replaced("</ul>", "<li>1</li></ul>"),
    ("110.dynamic-html", "another number"): lambda output: {
        **output, "result": __import__("re").sub(r"<li>\d+</li>", "<li>1</li>", output["result"], count=1)
    },
    ("110.dynamic-html", "numbers in another order"): lambda output: {
        **output, "result": _swapped(output["result"])
    },
    ("110.dynamic-html", "the template, not rendered"): lambda output: {
        **output, "result": (BENCHMARKS["110.dynamic-html"].folder / "python" / "templates" / "page.html").read_text()
    },
}  # fmt: skip


def _swapped(page):
    import re

    first, second = re.findall(r"<li>\d+</li>", page)[:2]
    return page.replace(first, "@").replace(second, first).replace("@", second)


@pytest.mark.parametrize(("name", "mutation"), MUTATIONS, ids=" ".join)
def test_the_check_refuses_a_wrong_output_with_a_sentence(name, mutation, monkeypatch):
    payload, output = outcome(name, "test", monkeypatch)
    wrong = MUTATIONS[name, mutation](output)
    assert wrong != output
    problem = BENCHMARKS[name].checker()(payload, wrong)
    assert isinstance(problem, str)
    assert len(problem.split()) >= 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"result": 0.1},
        pytest.param({"result": 0.1, "measurement": None}),
        {"result": 0.1, "measurement": {}},
        {"result": 0.1, "measurement": {"sleep_us": "long"}},
    ],
    ids=repr,
)
def test_010_sleep_refuses_an_output_without_its_measurement(wrong):
    """Either a sentence or an exception: `RowSink` turns both into a wrong output."""
    try:
        problem = BENCHMARKS["010.sleep"].checker()({"sleep": 0.1}, wrong)
    except Exception as error:
        problem = repr(error)
    assert problem
