"""Packages: the same bytes on any day and machine, and a digest that sees every change."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import stat
import time
import zipfile
from pathlib import Path

import pytest
from double_platform import HANDLER
from example_records import CONFIG

from sebs_core import packaging
from sebs_core.benchmark import Benchmark
from sebs_core.errors import ConfigError, PackagingError
from sebs_core.models import Runtime
from sebs_core.packaging import Sources, stage, unpinned, zip_package
from sebs_core.packaging.archive import files_of, folder_digest, folder_size, zip_folder
from sebs_core.packaging.python import PYTHON

RUNTIME = Runtime(files={"handler.py": HANDLER})
FILES = {"a.py": b"a", "b/c.txt": b"c" * 5000, "b/d": b"", "z.sh": b"#!/bin/sh\n", "ü.py": b"u"}


def write_files(folder, files, *, executable=("z.sh",)):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if name in executable else 0o644)
    return folder


def zipped(folder, archive):
    zip_folder(folder, archive)
    return archive.read_bytes()


@pytest.fixture
def original(tmp_path):
    return write_files(tmp_path / "original", FILES)


def other_umask(tmp_path, original):
    before = os.umask(0o077)
    try:
        return write_files(tmp_path / "other", FILES)
    finally:
        os.umask(before)


def other_modes(tmp_path, original):
    folder = write_files(tmp_path / "other", FILES)
    (folder / "a.py").chmod(0o600)
    (folder / "z.sh").chmod(0o700)
    return folder


def other_times(tmp_path, original):
    folder = write_files(tmp_path / "other", FILES)
    for place, path in enumerate(folder.rglob("*")):
        os.utime(path, (1e9 + place, 1e9 + place))
    os.utime(folder / "a.py", (0, 0))  # before the first day that a zip knows
    return folder


def other_name(tmp_path, original):
    return write_files(tmp_path / "deep" / "er" / "some other name", FILES)


def other_order(tmp_path, original):
    names = list(FILES)
    random.Random(5).shuffle(names)
    return write_files(tmp_path / "other", {name: FILES[name] for name in names})


@pytest.mark.parametrize("vary", [other_umask, other_modes, other_times, other_name, other_order])
def test_the_zip_is_the_same_to_the_byte_and_so_is_the_digest(tmp_path, original, vary):
    other = vary(tmp_path, original)
    assert zipped(other, tmp_path / "b.zip") == zipped(original, tmp_path / "a.zip")
    assert folder_digest(other) == folder_digest(original)


def test_the_order_in_which_a_file_system_lists_its_files_does_not_matter(tmp_path, original, monkeypatch):
    first, digest = zipped(original, tmp_path / "a.zip"), folder_digest(original)
    scandir = os.scandir
    for order in (reversed, lambda entries: sorted(entries, key=lambda entry: entry.inode())):
        monkeypatch.setattr(os, "scandir", lambda folder, order=order: contextlib.nullcontext(order(list(scandir(folder)))))
        assert zipped(original, tmp_path / "b.zip") == first
        assert folder_digest(original) == digest


def test_the_zip_is_the_same_tomorrow_and_with_another_timezone(tmp_path, original, monkeypatch):
    first = zipped(original, tmp_path / "a.zip")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        monkeypatch.setattr(time, "time", lambda: 2e9)
        assert zipped(original, tmp_path / "b.zip") == first
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_zip_holds_the_files_with_their_executable_bits(tmp_path, original):
    zipped(original, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert modes == {name: stat.S_IFREG | (0o755 if name == "z.sh" else 0o644) for name in FILES}


def change_a_byte(folder):
    (folder / "b/c.txt").write_bytes(b"c" * 4999 + b"d")


def rename(folder):
    (folder / "b/d").rename(folder / "b/e")


def move(folder):
    (folder / "b/d").rename(folder / "d")


def add_an_empty_file(folder):
    (folder / "new").touch()


def remove(folder):
    (folder / "b/d").unlink()


def make_executable(folder):
    (folder / "a.py").chmod(0o755)


def make_not_executable(folder):
    (folder / "z.sh").chmod(0o644)


def swap_contents(folder):
    (folder / "a.py").write_bytes(b"u")
    (folder / "ü.py").write_bytes(b"a")


@pytest.mark.parametrize(
    "change",
    [change_a_byte, rename, move, add_an_empty_file, remove, make_executable, make_not_executable, swap_contents],
    ids=lambda change: change.__name__,
)
def test_the_digest_sees_every_change(original, change):
    before = folder_digest(original)
    change(original)
    assert folder_digest(original) != before


def test_the_digest_is_not_fooled_by_names_that_look_like_its_own_lines(tmp_path):
    one = write_files(tmp_path / "one", {"a": b"", "b": b""})
    line = f"a - {'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}\n1 b"
    two = write_files(tmp_path / "two", {line.replace("/", ""): b""})
    assert folder_digest(one) != folder_digest(two)


def test_the_size_is_the_sum_of_the_files(original):
    assert folder_size(original) == sum(map(len, FILES.values()))


# --- links ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "/nowhere"])
def test_a_link_that_leads_out_is_refused_by_name(tmp_path, original, target):
    (tmp_path / "outside").write_text("x")
    (original / "link").symlink_to(target)
    with pytest.raises(PackagingError, match="link is a link that leads out of"):
        folder_digest(original)


def test_a_linked_folder_that_leads_out_is_refused(tmp_path, original):
    (tmp_path / "outside").mkdir()
    (original / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(PackagingError, match="leads out"):
        zip_folder(original, tmp_path / "a.zip")


def test_a_link_inside_the_folder_is_packaged_as_the_file_it_names(tmp_path, original):
    (original / "link").symlink_to("a.py")
    assert dict(files_of(original))["link"].read_bytes() == b"a"


def test_a_linked_folder_inside_is_packaged_or_refused_but_never_left_out(original):
    (original / "again").symlink_to("b")
    try:
        names = [name for name, _ in files_of(original)]
    except PackagingError as error:
        assert "again" in str(error)
    else:
        assert "again/c.txt" in names


def test_a_broken_link_and_a_pipe_are_refused(original):
    (original / "broken").symlink_to("not-there")
    with pytest.raises(PackagingError, match="broken is neither a file nor a folder"):
        folder_digest(original)
    (original / "broken").unlink()
    os.mkfifo(original / "pipe")
    with pytest.raises(PackagingError, match="pipe is neither a file nor a folder"):
        folder_digest(original)


def test_links_that_lead_in_a_circle_are_refused(original):
    (original / "round").symlink_to("about")
    (original / "about").symlink_to("round")
    with pytest.raises(PackagingError, match=r"(round|about) is neither a file nor a folder"):
        folder_digest(original)


def test_a_folder_that_cannot_be_read_is_refused_and_not_left_out(original, monkeypatch):
    scandir = os.scandir

    def refused(folder):
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PackagingError, match=r"/b cannot be read: Permission denied"):
        files_of(original)


def test_a_name_that_no_zip_could_hold_is_refused(original):
    try:
        Path(os.fsdecode(bytes(original) + b"/\xff.txt")).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(PackagingError, match=r"the name of '\\udcff\.txt' in .*original is not UTF-8: rename it"):
        files_of(original)


def test_what_is_ignored_is_neither_entered_nor_complained_about(tmp_path, original, monkeypatch):
    (original / "b" / "__pycache__" / "deep").mkdir(parents=True)
    (original / "out.pyc").symlink_to("/nowhere")
    os.mkfifo(original / "b" / "pipe.pyc")
    scandir, entered = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda folder: entered.append(Path(folder).name) or scandir(folder))
    assert [name for name, _ in files_of(original, ["__pycache__", "*.pyc"])] == sorted(FILES)
    assert entered == ["original", "b"]


# --- the inputs -----------------------------------------------------------------------------------------------------------


def sources(folder, *, runtime=RUNTIME, **changes):
    return Sources(Benchmark.load(folder), CONFIG.model_copy(update=changes), runtime, PYTHON)


def inputs(folder, **changes):
    return sources(folder, **changes).inputs()


def test_the_same_inputs_have_the_same_digest_whenever_and_wherever_they_lie(write_benchmark, tmp_path):
    one = write_benchmark(requirements="x==1\n")
    other = write_benchmark(requirements="x==1\n", parent=tmp_path / "elsewhere")
    for place, path in enumerate(other.rglob("*")):
        os.utime(path, (1e9 + place, 1e9 + place))
    assert inputs(one).digest == inputs(other).digest


@pytest.mark.parametrize("junk", ["__pycache__/function.cpython-312.pyc", "x.pyc", ".ipynb_checkpoints/a.py", ".DS_Store"])
def test_what_python_and_editors_leave_behind_is_no_input_and_is_not_packaged(echo, tmp_path, junk):
    before = inputs(echo)
    path = echo / "python" / junk
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"junk")
    assert inputs(echo) == before
    path.write_bytes(b"other")
    assert inputs(echo) == before
    stage(sources(echo), tmp_path / "built")
    assert not (tmp_path / "built" / "function" / junk).exists()


def test_neither_the_input_generator_nor_the_function_name_is_an_input_of_the_package(echo):
    before = inputs(echo)
    (echo / "input.py").write_text("def generate_input(size): return 5")
    assert inputs(echo, function_name="g", memory_mb=999, timeout_s=9, environment={"A": "b"}) == before


def change_code(folder):
    (folder / "python" / "function.py").write_text((folder / "python" / "function.py").read_text() + " ")


def change_a_byte_of_the_template(folder):
    (folder / "python" / "templates" / "page.html").write_text("pagf")


def rename_template(folder):
    (folder / "python" / "templates" / "page.html").rename(folder / "python" / "templates" / "page.htm")


def change_requirement(folder):
    (folder / "python" / "requirements.txt").write_text("x==2\n")


def change_comment_in_requirements(folder):
    (folder / "python" / "requirements.txt").write_text("x==1\n# so that it is built again\n")


def change_line_ends_of_requirements(folder):
    (folder / "python" / "requirements.txt").write_bytes(b"x==1\r\n")


def requirements_for_this_version(folder):
    (folder / "python" / "requirements.txt.3.12").write_text("x==1\n")


def change_constraint(folder):
    (folder / "python" / "constraints.txt").write_text("y==2\n")


def no_constraints(folder):
    (folder / "python" / "constraints.txt").unlink()


def change_executable_bit(folder):
    (folder / "python" / "function.py").chmod(0o755)


def reformat_configuration(folder):
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()), indent=1))


def change_workload_version(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"workload_version": "1"', '"workload_version": "2"'))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_code, "function/function.py changed"),
        (change_a_byte_of_the_template, "function/templates/page.html changed"),
        (rename_template, "function/templates/page.htm added, function/templates/page.html removed"),
        (change_requirement, "requirements.txt changed"),
        (change_comment_in_requirements, "requirements.txt changed"),
        (change_line_ends_of_requirements, "requirements.txt changed"),
        (requirements_for_this_version, "requirements.txt.3.12 added, requirements.txt removed"),
        (change_constraint, "constraints.txt changed"),
        (no_constraints, "constraints.txt removed"),
        (change_executable_bit, "function/function.py changed"),
        (reformat_configuration, "config.json changed"),
        (change_workload_version, "config.json changed, workload version changed"),
    ],
)
def test_a_change_in_the_benchmarks_folder_changes_the_digest_and_is_named(write_benchmark, change, told):
    folder = write_benchmark(requirements="x==1\n")
    (folder / "python" / "constraints.txt").write_text("y==1\n")
    (folder / "python" / "templates").mkdir()
    (folder / "python" / "templates" / "page.html").write_text("page")
    before = inputs(folder)
    change(folder)
    after = inputs(folder)
    assert after.difference(before) == told
    assert after.digest != before.digest


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"language_version": "3.11"}, "language version changed"),
        ({"language_variant": "pypy"}, "language variant changed"),
        ({"system_variant": "container"}, "system variant changed"),
        ({"architecture": "arm64"}, "architecture changed"),
        ({"runtime": {"wheel_platform": "aarch64-manylinux2014"}}, "target changed"),
        ({"runtime": {"base_image": "python:3.12"}}, "base image changed"),
        ({"runtime": {"requirements": ("y==1",)}}, "shim requirements changed"),
        ({"runtime": {"entry_point": "other.handler"}}, "entry point changed"),
        ({"runtime": {"files": {"handler.py": Path(__file__)}}}, "handler.py changed"),
        ({"runtime": {"files": {"shim.py": HANDLER}}}, "shim.py added, handler.py removed"),
    ],
    ids=str,
)
def test_a_change_of_shim_target_or_language_changes_the_digest_and_is_named(echo, changes, told):
    if "runtime" in changes:
        changes = {"runtime": RUNTIME.model_copy(update=changes["runtime"])}
    before, after = inputs(echo), inputs(echo, **changes)
    assert after.difference(before) == told
    assert after.digest != before.digest


def test_another_function_side_is_another_input(echo, tmp_path, monkeypatch):
    before = inputs(echo)
    shutil.copytree(packaging.FUNCTION_SIDE, tmp_path / "function_side")
    monkeypatch.setattr(packaging, "FUNCTION_SIDE", tmp_path / "function_side")
    assert inputs(echo).digest == before.digest
    (tmp_path / "function_side" / "python" / "sebs_function" / "measured.py").write_text("other")
    assert inputs(echo).difference(before) == "sebs_function/measured.py changed"


def test_another_layout_of_packages_is_another_input(echo, monkeypatch):
    before = inputs(echo)
    monkeypatch.setattr(packaging, "LAYOUT", packaging.LAYOUT + 1)
    assert inputs(echo).difference(before) == "layout changed"


def test_a_benchmark_of_another_name_has_other_inputs(write_benchmark):
    assert inputs(write_benchmark("other")).difference(inputs(write_benchmark("echo"))) == "benchmark changed"


@pytest.mark.parametrize("part", ["target", "config.json", "requirements.txt"])
def test_a_file_of_the_platform_that_is_called_as_another_part_hides_nothing(write_benchmark, tmp_path, part):
    folder = write_benchmark(requirements="x==1\n")
    (tmp_path / "own").write_text("one")
    runtime = RUNTIME.model_copy(update={"files": {part: tmp_path / "own"}})
    before = inputs(folder, runtime=runtime)
    assert before.parts[part] == inputs(folder).parts[part]
    (tmp_path / "own").write_text("two")
    assert inputs(folder, runtime=runtime).difference(before) == f"./{part} changed"


def test_a_function_has_its_settings_as_configuration():
    made = (Benchmark.from_function(double, timeout_s=timeout_s) for timeout_s in (5, 5, 6))
    before, again, changed = (Sources(benchmark, CONFIG, RUNTIME, PYTHON).inputs() for benchmark in made)
    assert again.digest == before.digest
    assert changed.difference(before) == "config.json changed"


def double(event):
    return 2 * event["value"]


def test_a_file_that_vanishes_meanwhile_is_told_by_name(echo):
    made = sources(echo)
    (echo / "python" / "function.py").unlink()
    with pytest.raises(PackagingError, match=r"function\.py cannot be read: No such file"):
        made.inputs()


def test_requirements_of_this_language_version_go_before_the_general_ones(write_benchmark):
    folder = write_benchmark(requirements="x==1 # why\n\n# comment\n")
    (folder / "python" / "requirements.txt.3.11").write_text("x==0.9\n")
    assert sources(folder).requirements == ["x==1"]
    assert sources(folder, language_version="3.11").requirements == ["x==0.9"]


def test_constraints_of_this_language_version_go_before_the_general_ones(write_benchmark):
    folder = write_benchmark(requirements="x\n")
    assert sources(folder).constraints == []
    (folder / "python" / "constraints.txt").write_text("y==1 # why\n\n# comment\n")
    (folder / "python" / "constraints.txt.3.11").write_text("y==0.9\n")
    assert sources(folder).constraints == ["y==1"]
    assert sources(folder, language_version="3.11").constraints == ["y==0.9"]
    assert sources(folder).requirements == sources(folder, language_version="3.11").requirements == ["x"]


def test_a_requirement_with_its_hashes_is_one_line(write_benchmark):
    text = "x==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n    # via z \\\ny==2\n"
    made = sources(write_benchmark(requirements=text)).requirements
    assert [" ".join(line.split()) for line in made] == ["x==1 --hash=sha256:00 --hash=sha256:11", "y==2"]
    assert unpinned(made) == []


# --- the built folder -----------------------------------------------------------------------------------------------------


def test_the_built_folder_holds_shim_function_side_and_code(echo, tmp_path):
    (echo / "python" / "tool.sh").write_text("#!/bin/sh\n")
    (echo / "python" / "tool.sh").chmod(0o755)
    assert stage(sources(echo), tmp_path / "built") == {}
    names = {name for name, _ in files_of(tmp_path / "built")}
    own = {"handler.py", "sebs_function/__init__.py", "sebs_function/measured.py"}
    assert names == own | {"function/function.py", "function/tool.sh"}
    assert (tmp_path / "built/function/tool.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "built/function/function.py").stat().st_mode & 0o777 == 0o644


def test_constraints_are_given_to_the_installation_and_are_not_packaged(write_benchmark, tmp_path):
    folder = write_benchmark(requirements="x==1\n")
    (folder / "python" / "constraints.txt").write_text("y==1\n")
    (folder / "python" / "constraints.txt.3.11").write_text("y==0.9\n")
    made, given = sources(folder), []
    made.language = dataclasses.replace(PYTHON, install=lambda folder, *others: given.extend(others) or {})
    stage(made, tmp_path / "built")
    assert given == [["x==1"], ["y==1"], RUNTIME, CONFIG]
    assert not [name for name, _ in files_of(tmp_path / "built") if "constraints" in name]


def test_a_package_names_what_it_is(echo, tmp_path):
    stage(sources(echo), tmp_path / "code")
    package = zip_package(Benchmark.load(echo), CONFIG, tmp_path / "code")
    assert (package.kind, package.benchmark, package.path) == ("zip", "echo", tmp_path / "code.zip")
    assert package.digest == folder_digest(tmp_path / "code")
    assert package.size_bytes == package.path.stat().st_size


def test_code_that_takes_the_shims_name_is_refused(write_benchmark, tmp_path):
    """The benchmark's own code lives in function/, so it cannot; a dependency could."""
    made = sources(write_benchmark())

    def bring_a_handler(folder, *_):
        (folder / "handler.py").write_text("x")
        return {}

    made.language = dataclasses.replace(PYTHON, install=bring_a_handler)
    with pytest.raises(PackagingError, match=r"a dependency of echo brings a file handler\.py"):
        stage(made, tmp_path / "built")


def test_a_benchmark_without_its_code_file_is_refused_by_name(write_benchmark):
    folder = write_benchmark(code=None)
    with pytest.raises(ConfigError, match=r"echo is broken: .*function\.py is missing"):
        sources(folder)


def test_a_full_disk_while_building_is_told_with_a_remedy(echo, tmp_path, monkeypatch):
    def no_space(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(PackagingError, match=r"echo could not be written to .*No space left on device.*--cache-dir"):
        stage(sources(echo), tmp_path / "built")


# --- unpinned -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "a==1", "a == 1.2.3", "a===1.0", "a[extra]==1.0", "a==1.0; python_version < '3.12'", "a==1.0rc1", "a==1!2.0+local",
        "a @ https://example.org/a.whl", "a==1.0 ; sys_platform == 'linux'",
        "a==1.0 --hash=sha256:00", "a@https://x.org/a-1.whl",
    ],
)  # fmt: skip
def test_pinned_requirements_are_not_warned_of(line):
    assert unpinned([line]) == []


@pytest.mark.parametrize(
    "line",
    ["a", "a>=1", "a>1", "a<2", "a<=2", "a~=1.4", "a!=1", "a==1.*", "a[extra]", "a; python_version == '3.12'", "a>=1,<2"],
)
def test_requirements_that_may_be_another_version_tomorrow_are(line):
    assert unpinned(["b==1", line]) == [line]


def test_what_a_constraint_pins_is_not_warned_of():
    assert unpinned(["Some.Pack_age[extra]>=1", "b", "c"], ["some-pack-age==1.5", "B===2.0", "d==1"]) == ["c"]


@pytest.mark.parametrize("constraint", ["a>=1", "a==1.*", "a==1 ; python_version < '3.12'", "ab==1"])
def test_a_constraint_that_leaves_versions_or_targets_open_does_not_pin(constraint):
    assert unpinned(["a"], [constraint]) == ["a"]
