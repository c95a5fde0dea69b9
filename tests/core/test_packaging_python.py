"""Dependencies by uv: wheels of the target, never of this machine, never built on the way."""

import pytest
from double_platform import HANDLER
from example_records import CONFIG

from sebs_core.benchmark import Benchmark
from sebs_core.errors import ConfigError, PackagingError
from sebs_core.models import Runtime
from sebs_core.packaging import Sources, stage
from sebs_core.packaging.archive import files_of, folder_digest
from sebs_core.packaging.python import PYTHON, _explained, install

X86, ARM = "x86_64-manylinux2014", "aarch64-manylinux2014"


@pytest.fixture
def place(tmp_path):
    """A folder to install into, with nothing of this project above it."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def for_target(wheel_platform):
    return Runtime(files={"handler.py": HANDLER}, wheel_platform=wheel_platform)


@pytest.mark.parametrize(("wheel_platform", "machine"), [(X86, "x86_64"), (ARM, "aarch64")])
@pytest.mark.parametrize("version", ["3.12", "3.10"])
def test_dependencies_are_those_of_the_targets_python_and_platform(package_index, place, wheel_platform, machine, version):
    config = CONFIG.model_copy(update={"language_version": version})
    assert install(place, ["markupsafe==3.0.3"], [], for_target(wheel_platform), config) == {"MarkupSafe": "3.0.3"}
    (library,) = place.glob("markupsafe/*.so")
    assert library.name == f"_speedups.cpython-{version.replace('.', '')}-{machine}-linux-gnu.so"
    assert library.read_bytes()[:4] == b"\x7fELF"
    assert library.read_bytes()[18] == {"x86_64": 0x3E, "aarch64": 0xB7}[machine]


def test_a_whole_package_is_the_same_twice_and_carries_no_trace_of_this_machine(package_index, write_benchmark, tmp_path):
    folder = write_benchmark(requirements="jinja2==3.1.6\nmarkupsafe==3.0.3\nuvicorn==0.30.0\nclick==8.1.7\nh11==0.14.0\n")
    made = Sources(Benchmark.load(folder), CONFIG, for_target(X86), PYTHON)
    dependencies = stage(made, tmp_path / "one")
    assert {name.lower(): version for name, version in dependencies.items()} == {
        "jinja2": "3.1.6", "markupsafe": "3.0.3", "uvicorn": "0.30.0", "click": "8.1.7", "h11": "0.14.0",
    }  # fmt: skip
    (tmp_path / "deeper").mkdir()
    stage(made, tmp_path / "deeper" / "two")
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "deeper" / "two")
    names = [name for name, _ in files_of(tmp_path / "one")]
    assert [name for name in names if "__pycache__" in name or name == ".lock" or name.startswith("bin/")] == []
    for name, path in files_of(tmp_path / "one"):
        assert str(tmp_path).encode() not in path.read_bytes(), name
        if name.endswith("RECORD"):
            assert "bin/" not in path.read_text()


def test_a_requirement_of_which_no_wheel_fits_is_told_with_the_remedy(package_index, place):
    with pytest.raises(PackagingError) as refused:
        install(place, ["docopt==0.6.2"], [], for_target(X86), CONFIG)
    message = str(refused.value)
    assert "installing docopt==0.6.2 for Python 3.12 on x86_64-manylinux2014 failed" in message
    assert "No prebuilt wheel fits the target: choose another version" in message


def test_a_version_that_does_not_exist_is_told_with_its_name(package_index, place):
    with pytest.raises(PackagingError, match=r"installing markupsafe==99\.0 .* failed\."):
        install(place, ["markupsafe==99.0"], [], for_target(X86), CONFIG)


def test_a_line_that_is_no_requirement_is_told_without_a_network(place):
    with pytest.raises(PackagingError, match=r"Check the names and versions in requirements\.txt"):
        install(place, ["this is !! no requirement"], [], for_target(X86), CONFIG)


def test_without_a_network_the_message_says_so(place, tmp_path, monkeypatch):
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(PackagingError) as refused:
        install(place, ["markupsafe==3.0.3"], [], for_target(X86), CONFIG)
    message = str(refused.value)
    assert "The package index could not be reached: check the network and proxy settings" in message
    assert "markupsafe==3.0.3" in message


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("error: client error (Connect)\n dns error: failed to lookup address information", "index could not be reached"),
        ("Network connectivity is disabled, but it wasn't found in the cache: offline", "index could not be reached"),
        ("error: operation timed out", "index could not be reached"),
        ("Because a==1 has no wheels with a matching Python ABI tag", "No prebuilt wheel fits"),
        ("Because nope was not found in the package registry", "Check the names"),
    ],
)
def test_what_uv_says_becomes_what_to_do(said, remedy):
    message = _explained(said, ["a==1"], [], for_target(None), CONFIG)
    assert remedy in message
    assert "\n" not in message
    assert "Python 3.12 on this machine" in message


def test_nothing_is_started_where_nothing_is_required(place, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("subprocess.run", None)
    assert install(place, [], [], for_target(X86), CONFIG) == {}


def test_constraints_in_the_environment_of_whoever_runs_this_do_not_enter_the_package(package_index, place, monkeypatch):
    constraint = place.parent / "constraints.txt"
    constraint.write_text("markupsafe==2.1.5\n")
    monkeypatch.setenv("UV_CONSTRAINT", str(constraint))
    monkeypatch.setenv("UV_OVERRIDE", str(constraint))
    assert install(place, ["markupsafe==3.0.3"], [], for_target(X86), CONFIG) == {"MarkupSafe": "3.0.3"}


def test_a_project_above_the_cache_folder_does_not_enter_the_package(package_index, place):
    (place.parent / "pyproject.toml").write_text("[tool.uv]\nconstraint-dependencies = ['markupsafe==2.1.5']\n")
    assert install(place, ["markupsafe==3.0.3"], [], for_target(X86), CONFIG) == {"MarkupSafe": "3.0.3"}


def with_constraints(write_benchmark, constraints, **files):
    folder = write_benchmark(requirements="jinja2==3.1.6\n")
    for name, text in {"constraints.txt": constraints, **files}.items():
        (folder / "python" / name).write_text(text)
    return folder


def built(folder, place, **changes):
    config = CONFIG.model_copy(update=changes)
    installed = stage(Sources(Benchmark.load(folder), config, for_target(X86), PYTHON), place / "code")
    return {name.lower(): version for name, version in installed.items()}


def test_constraints_decide_what_the_requirements_require_in_turn_and_add_nothing(package_index, write_benchmark, tmp_path):
    folder = with_constraints(write_benchmark, "# by hand\nmarkupsafe==3.0.2  # as in the paper\nclick==8.1.7\n")
    assert built(folder, tmp_path) == {"jinja2": "3.1.6", "markupsafe": "3.0.2"}


def test_constraints_may_be_those_of_one_language_version(package_index, write_benchmark, tmp_path):
    folder = with_constraints(write_benchmark, "markupsafe==3.0.2\n", **{"constraints.txt.3.11": "markupsafe==3.0.1\n"})
    for version in ("3.11", "3.12"):
        (tmp_path / version).mkdir()
    assert built(folder, tmp_path / "3.11", language_version="3.11")["markupsafe"] == "3.0.1"
    assert built(folder, tmp_path / "3.12", language_version="3.12")["markupsafe"] == "3.0.2"


def test_a_constraint_against_a_requirement_is_told_with_both(package_index, place):
    with pytest.raises(PackagingError) as refused:
        install(place, ["markupsafe==3.0.3"], ["markupsafe==3.0.2"], for_target(X86), CONFIG)
    message = str(refused.value)
    assert "Check the names and versions in requirements.txt and constraints.txt" in message
    assert "markupsafe==3.0.3" in message
    assert "markupsafe==3.0.2" in message


def test_a_line_that_is_no_constraint_is_told_without_a_network(place):
    with pytest.raises(PackagingError, match=r"in requirements\.txt and constraints\.txt\. uv said: .*constraints\.txt"):
        install(place, ["markupsafe==3.0.3"], ["this is !! no constraint"], for_target(X86), CONFIG)


def test_requirements_that_are_no_text_are_refused_by_name(tmp_path, write_benchmark, session):
    folder = write_benchmark()
    (folder / "python" / "requirements.txt").write_bytes(b"caf\xe9==1\n")
    with pytest.raises(ConfigError, match=r"requirements\.txt is not UTF-8 text"):
        session.package(folder)
