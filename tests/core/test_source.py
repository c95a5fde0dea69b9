"""A benchmark from a Python function: what it uses travels with it, and really runs in an interpreter that knows nothing."""

import concurrent.futures
import concurrent.futures as cf
import concurrent.futures.thread
import functools
import importlib.util
import io
import json
import json as js
import math
import operator
import os.path
import subprocess
import sys
import textwrap
import threading
import typing
import xml.etree.ElementTree as tree
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal as Dec
from math import sqrt

import pytest

from sebs_core.benchmark import Benchmark
from sebs_core.errors import ConfigError

LIMIT = 3
NESTED = {"a": [1, 2.5, None, True, b"x"], "b": ("t", {"s"}), "ö": "'\"\n"}
SEED: int = 7
HELD_LOCK = threading.Lock()
STREAM = io.StringIO()
TEN = functools.partial(int, "10")
T = typing.TypeVar("T")


def doubled(value):
    return twice(value) if value else 0


def twice(value):
    return value * LIMIT // LIMIT * 2


def marked(function):
    function.mark = LIMIT
    return function


class Base:
    """A class that travels."""

    factor = LIMIT

    def times(self, value):
        return value * self.factor


class Derived(Base):
    def times(self, value):
        return super().times(value) + 1


@dataclass(frozen=True)
class Point:
    x: int
    y: float = LIMIT


def alone(event):
    return event["x"] + 1


def with_helpers(event):
    return doubled(event["x"])


def with_constants(event):
    return [LIMIT, SEED, sorted(NESTED["a"][:2]), NESTED["b"][0], NESTED["ö"]]


def with_imports(event):
    return [
        math.floor(event["x"]), js.dumps([1]), sqrt(9), str(Dec("1.5")), Counter("aab")["a"], os.path.normpath("a//b"),
        operator.add(1, 2),
    ]  # fmt: skip


def with_dotted_imports(event):
    spec = importlib.util.find_spec("json")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return [spec.name, pool.submit(len, "abc").result()]


def with_classes(event):
    return [Derived().times(event["x"]), Point(1).y]


@marked
def with_decorator(event):
    return with_decorator.mark


def with_defaults(event, factor=LIMIT, *, helper=twice):
    return helper(event["x"]) * factor


def with_annotations(event: "Untold") -> "Unknown":  # noqa: F821 - never evaluated
    value: typing.Optional[Nothing] = event["x"]  # noqa: F821, UP045
    return value


def recursive(event):
    return 0 if event["x"] == 0 else 1 + recursive({"x": event["x"] - 1})


def mutual_even(n):
    return True if n == 0 else mutual_odd(n - 1)


def mutual_odd(n):
    return False if n == 0 else mutual_even(n - 1)


def with_mutual_recursion(event):
    return mutual_even(event["x"])


def with_inner_function(event):
    def inner(value):
        return doubled(value)

    return [inner(n) for n in range(LIMIT)]


def logged(function):
    @functools.wraps(function)
    def wrapper(event):
        return [LIMIT, function(event)]

    return wrapper


@logged
def with_wrapping_decorator(event):
    return twice(event["x"])


def with_nested_scopes(event):
    import itertools

    class Local:
        limit = LIMIT

        def go(self):
            return {key: [twice(n) for n in range(Local.limit)] for key in NESTED if key == "a"}

    return [Local().go(), next(itertools.count(SEED))]


def with_submodule_behind_an_alias(event):
    return [cf.thread.ThreadPoolExecutor.__name__, tree.fromstring("<a/>").tag]


def with_lambda_inside(event):
    return sorted([1, 2], key=lambda n: -n * LIMIT)


alias_of_twice = twice


def with_alias(event):
    return alias_of_twice(event["x"]) + twice(1)


def handler(event):
    return event["x"] * 10


CASES = [
    (alone, 5), (with_helpers, 8), (with_constants, [3, 7, [1, 2.5], "t", "'\"\n"]),
    (with_imports, [4, "[1]", 3.0, "1.5", 2, "a/b", 3]), (with_classes, [13, 3]), (with_decorator, 3), (with_defaults, 24),
    (with_annotations, 4), (recursive, 4), (with_mutual_recursion, True), (with_inner_function, [0, 2, 4]),
    (with_wrapping_decorator, [3, 8]),
    (with_nested_scopes, [{"a": [0, 2, 4]}, 7]),
    (with_submodule_behind_an_alias, ["ThreadPoolExecutor", "a"]), (with_lambda_inside, [2, 1]), (with_alias, 10),
    (handler, 40),
]  # fmt: skip


def answer_elsewhere(benchmark, tmp_path, event):
    """What the function returns in a fresh interpreter without this program's modules, variables and folders."""
    code = (
        "import sys, json, runpy; handler = runpy.run_path(sys.argv[1])['handler']; "
        "print(json.dumps(handler(json.loads(sys.argv[2]))))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(benchmark.folder / "python" / "function.py"), json.dumps(event)],
        cwd=tmp_path, env={}, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + (benchmark.folder / "python" / "function.py").read_text()
    return json.loads(done.stdout)


@pytest.mark.parametrize(("function", "expected"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_what_the_function_uses_travels_and_it_gives_the_same_answer_elsewhere(function, expected, tmp_path):
    here = json.loads(json.dumps(function({"x": 4})))
    assert here == expected
    assert answer_elsewhere(Benchmark.from_function(function), tmp_path, {"x": 4}) == expected


def test_a_module_imported_with_dots_travels(tmp_path):
    assert answer_elsewhere(Benchmark.from_function(with_dotted_imports), tmp_path, {}) == ["json", 3]


@functools.cache
def cached(value):
    return value + 1


def with_cached_helper(event):
    return cached(event["x"])


def test_a_helper_behind_a_decorator_travels_or_is_refused(tmp_path):
    try:
        benchmark = Benchmark.from_function(with_cached_helper)
    except ConfigError as error:
        assert "cached" in str(error)
    else:
        assert answer_elsewhere(benchmark, tmp_path, {"x": 1}) == 2


def with_a_local_of_that_name(event):
    HELD_LOCK = event["x"]
    return HELD_LOCK


def test_a_local_variable_with_the_name_of_a_live_global_is_no_obstacle(tmp_path):
    assert answer_elsewhere(Benchmark.from_function(with_a_local_of_that_name), tmp_path, {"x": 2}) == 2


def test_only_public_modules_are_imported_so_that_another_python_version_has_them_too():
    benchmark = Benchmark.from_function(uses_path)
    source = (benchmark.folder / "python" / "function.py").read_text()
    assert "from pathlib import Path" in source


from pathlib import Path  # noqa: E402


def uses_path(event):
    return Path("a").name


def test_a_function_of_a_notebook_or_script_travels(tmp_path):
    """There the module is __main__."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import math
            from sebs_core import Benchmark
            SCALE = 2
            def helper(x):
                return math.floor(x) * SCALE
            def handler(event):
                return helper(event["x"])
            benchmark = Benchmark.from_function(handler)
            print((benchmark.folder / "python" / "function.py").read_text())
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=30)
    assert "__main__" not in done.stdout
    scope = {}
    exec(compile(done.stdout, "function.py", "exec"), scope)
    assert scope["handler"]({"x": 2.5}) == 4


# --- what cannot travel ---------------------------------------------------------------------------------------------------


def uses_lock(event):
    with HELD_LOCK:
        return 1


def uses_stream(event):
    return helper_with_stream()


def helper_with_stream():
    return STREAM.read()


def uses_partial(event):
    return TEN()


def make_closure():
    captured, other = [1], 2

    def handler(event):
        return captured, other

    return handler


class Callable:
    def __call__(self, event):
        return 1

    def method(self, event):
        return 1


@pytest.mark.parametrize(
    ("thing", "complaint"),
    [
        (lambda event: 1, "a lambda cannot become a benchmark: define it with def"),
        (make_closure(), r"handler uses variables of the function around it \(captured, other\)"),
        (len, "not from builtin_function_or_method"),
        (print, "not from builtin_function_or_method"),
        (Base, "not from type"),
        (Callable(), "not from Callable"),
        (Callable().method, "not from method"),
        (functools.partial(alone), "not from partial"),
        ("handler", "not from str 'handler'"),
        (uses_lock, "uses_lock uses HELD_LOCK, a lock"),
        (uses_stream, "helper_with_stream uses STREAM, a StringIO"),
        (uses_partial, "uses_partial uses TEN, a partial"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_travel_is_refused_by_name(thing, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Benchmark.from_function(thing)


def test_a_function_whose_source_is_nowhere_is_refused_with_a_remedy():
    scope = {}
    exec("def handler(event):\n    return 1", scope)
    with pytest.raises(ConfigError, match="the source of handler cannot be found; define it in a file or a notebook cell"):
        Benchmark.from_function(scope["handler"])


def test_a_function_defined_inside_another_travels_when_it_captures_nothing(tmp_path):
    def handler(event):
        text = """
        indented
        """
        return [text.strip(), LIMIT]

    assert answer_elsewhere(Benchmark.from_function(handler), tmp_path, {}) == ["indented", 3]


# --- the benchmark that comes of it ---------------------------------------------------------------------------------------


def test_name_requirements_limits_and_description_become_the_benchmarks():
    def my_handler(event):
        """What it does.

        More.
        """
        return event

    made = Benchmark.from_function(my_handler, ["jinja2==3.1.6", "x"], timeout_s=3, memory_mb=99)
    assert made.name == "my-handler"
    assert (made.config.timeout, made.config.memory) == (3, 99)
    assert made.config.description == "What it does."
    assert (made.folder / "python" / "requirements.txt").read_text() == "jinja2==3.1.6\nx\n"
    assert Benchmark.from_function(my_handler, name="other").name == "other"


def test_the_workload_version_changes_with_what_the_function_uses(monkeypatch):
    before = Benchmark.from_function(with_constants).config.workload_version
    assert Benchmark.from_function(with_constants).config.workload_version == before
    monkeypatch.setitem(globals(), "LIMIT", 4)
    assert Benchmark.from_function(with_constants).config.workload_version != before


def test_it_has_no_sizes_and_no_check_and_says_to_give_a_payload():
    made = Benchmark.from_function(alone)
    assert made.sizes == ()
    assert made.checker() is None
    with pytest.raises(ConfigError, match=r"alone has no input size 'test'\. It has no sizes: give a payload instead"):
        made.payload("test")


def test_its_folder_lives_as_long_as_the_benchmark():
    made = Benchmark.from_function(alone)
    folder = made.folder
    assert folder.is_dir()
    del made
    import gc

    gc.collect()
    assert not folder.exists()


def test_builtin_functions_and_values_of_the_standard_library_travel(tmp_path):
    from math import inf
    from random import random

    namespace = {"random": random, "inf": inf, "__name__": "made"}
    path = tmp_path / "made.py"
    path.write_text("def handler(event):\n    return random() < inf\n")
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    from sebs_core.packaging.source import standalone_source

    source = standalone_source(namespace["handler"])
    scope = {}
    exec(compile(source, "function.py", "exec"), scope)
    assert scope["handler"]({}) is True
