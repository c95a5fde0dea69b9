"""Benchmarks in folders: a broken one is one clear sentence, and does not hide the others."""

import pytest

from sebs_core.benchmark import Benchmark, BrokenBenchmark, find, find_all
from sebs_core.errors import ConfigError

INPUT_WITHOUT_GENERATOR = "SIZES = ('test',)\n"


def break_nothing(folder):
    pass


def without_config(folder):
    (folder / "config.json").unlink()


def config(text):
    def write(folder):
        (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def without_input(folder):
    (folder / "input.py").unlink()


def without_language_folder(folder):
    (folder / "python" / "function.py").unlink()
    (folder / "python").rmdir()


BROKEN = {
    "no config": (without_config, "config.json"),
    "config is not JSON": (config("{"), "config.json is not JSON"),
    "config is not text": (config(b"\xff\xfe\x00"), "config.json is not JSON"),
    "config is a list": (config("[]"), "config.json must hold one JSON object"),
    "config lacks a key": (config('{"timeout": 1, "languages": ["python"]}'), "config.json memory"),
    "config has a misspelt key": (
        config('{"timeout": 1, "memory": 1, "languages": ["python"], "timeuot": 2}'),
        "config.json has no timeuot (did you mean timeout?)",
    ),
    "timeout is zero": (config('{"timeout": 0, "memory": 1, "languages": ["python"]}'), "config.json timeout"),
    "memory is negative": (config('{"timeout": 1, "memory": -1, "languages": ["python"]}'), "config.json memory"),
    "memory is a word": (config('{"timeout": 1, "memory": "much", "languages": ["python"]}'), "config.json memory"),
    "no language": (config('{"timeout": 1, "memory": 1, "languages": []}'), "config.json languages"),
    "language without a folder": (without_language_folder, "names the language python"),
    "no input.py": (without_input, "input.py"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_folder_is_one_sentence_that_names_the_file(echo, kind):
    breaking, complaint = BROKEN[kind]
    breaking(echo)
    with pytest.raises(ConfigError) as refused:
        Benchmark.load(echo)
    assert complaint in str(refused.value)
    assert str(echo) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "no config"])
def test_the_list_keeps_the_other_benchmarks_and_shows_the_broken_one_with_its_error(write_benchmark, tmp_path, kind):
    broken, well = write_benchmark("broken"), write_benchmark("well")
    BROKEN[kind][0](broken)
    listed = find_all([tmp_path / "benchmarks"])
    assert [benchmark.name for benchmark in listed] == ["broken", "well"]
    assert isinstance(listed[0], BrokenBenchmark)
    assert BROKEN[kind][1] in listed[0].error
    assert listed[1].error is None
    assert find("well", [tmp_path / "benchmarks"]).folder == well.resolve()
    with pytest.raises(ConfigError, match="the benchmark broken is broken: "):
        find("broken", [tmp_path / "benchmarks"])


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ("import not_there_at_all", "input.py cannot be imported: ModuleNotFoundError"),
        ("def generate_input(size:", "input.py cannot be imported: SyntaxError"),
        ("1/0", "input.py cannot be imported: ZeroDivisionError"),
        (INPUT_WITHOUT_GENERATOR, "has no function generate_input(size)"),
        ("import sys; sys.exit('no')", "input.py cannot be imported: SystemExit"),
    ],
)
def test_a_broken_input_generator_is_named_when_it_is_needed(write_benchmark, inputs, complaint):
    benchmark = Benchmark.load(write_benchmark(inputs=inputs))
    for use in (lambda: benchmark.sizes, lambda: benchmark.payload("test"), benchmark.checker):
        with pytest.raises(ConfigError) as refused:
            use()
        assert complaint in str(refused.value)
        assert str(benchmark.folder / "input.py") in str(refused.value)


def test_a_generator_that_fails_is_named_with_its_cause(write_benchmark):
    inputs = "def generate_input(size):\n    raise KeyError('no such picture')"
    with pytest.raises(ConfigError, match=r"echo: generate_input\('small'\) failed: KeyError: 'no such picture'"):
        Benchmark.load(write_benchmark(inputs=inputs)).payload("small")


def test_an_unknown_size_is_answered_with_the_known_ones(echo):
    with pytest.raises(ConfigError, match=r"echo has no input size 'huge'\. It has: test, small\."):
        Benchmark.load(echo).payload("huge")


def test_an_unknown_language_is_answered_with_the_known_ones(echo):
    with pytest.raises(ConfigError, match=r"echo is not written in cobol\. It is in: python\."):
        Benchmark.load(echo).code("cobol")


def test_an_unknown_benchmark_is_answered_with_the_near_one_and_all_known(write_benchmark, tmp_path):
    write_benchmark("110.dynamic-html")
    write_benchmark("010.sleep")
    with pytest.raises(ConfigError) as refused:
        find("110.dynamic-htm", [tmp_path / "benchmarks"])
    assert str(refused.value) == (
        "there is no benchmark '110.dynamic-htm'. Did you mean 110.dynamic-html? Known: 010.sleep, 110.dynamic-html."
    )


def test_with_no_benchmark_anywhere_the_message_says_what_would_add_some(tmp_path):
    with pytest.raises(ConfigError, match="pip install sebs-benchmarks"):
        find("x", [tmp_path])


def test_a_folder_of_benchmarks_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        find_all([tmp_path / "nowhere"])


def test_of_two_benchmarks_with_one_name_the_first_folder_wins(write_benchmark, tmp_path):
    mine = write_benchmark("echo", parent=tmp_path / "mine", memory=999)
    write_benchmark("echo", parent=tmp_path / "theirs")
    assert find("echo", [tmp_path / "mine", tmp_path / "theirs"]).folder == mine.resolve()
    assert len(find_all([tmp_path / "mine", tmp_path / "theirs"])) == 1


def test_a_folder_may_be_a_benchmark_itself(echo):
    assert find("echo", [echo]).folder == echo.resolve()


def test_other_files_and_folders_beside_benchmarks_are_left_alone(echo):
    (echo.parent / "README.md").write_text("x")
    (echo.parent / "__pycache__").mkdir()
    assert [benchmark.name for benchmark in find_all([echo.parent])] == ["echo"]


def test_two_benchmarks_do_not_share_their_generators(write_benchmark):
    one = Benchmark.load(write_benchmark("one", inputs="def generate_input(size): return 1"))
    two = Benchmark.load(write_benchmark("two", inputs="def generate_input(size): return 2"))
    assert [one.payload("test"), two.payload("test"), one.payload("test")] == [1, 2, 1]
