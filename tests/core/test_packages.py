"""Packages: built once, rebuilt when an input changed and told why, published once."""

import pytest
from watching import Watching

import sebs_core as sebs


def builds(tmp_path):
    """How many packages were built: each leaves one folder of its digest."""
    return sorted(path.name for path in (tmp_path / "cache" / "packages").iterdir())


def test_a_package_is_built_once_and_reused_by_every_later_session(open_session, echo, tmp_path):
    observer = Watching()
    packages = [open_session(observers=[observer]).package(echo) for _ in range(3)]
    assert len({package.path for package in packages}) == 1
    assert [event.reused for event in observer.finished("package")] == [False, True, True]
    assert observer.finished("package")[0].reason == "it was not built yet"
    assert packages[0] == packages[2]
    assert list((tmp_path / "cache" / "building").iterdir()) == []


def test_a_rebuild_is_done_when_it_is_asked_for_and_gives_the_same_digest(watched, echo):
    session, observer = watched
    first = session.package(echo)
    again = session.package(echo, rebuild=True)
    assert (again.digest, again.path) == (first.digest, first.path)
    assert [(event.reused, event.reason) for event in observer.finished("package")][1] == (False, "a rebuild was asked for")


def test_changed_code_is_a_new_package(session, echo, tmp_path):
    before = session.package(echo)
    (echo / "python" / "function.py").write_text("def handler(event): return 2")
    assert session.package(echo).digest != before.digest
    assert len(builds(tmp_path)) == 2


def test_a_package_whose_files_vanished_is_built_again(session, echo):
    session.package(echo).path.unlink()
    assert session.package(echo).path.is_file()


def test_a_build_that_fails_leaves_nothing_and_the_next_one_is_well(session, write_benchmark, tmp_path, monkeypatch):
    folder = write_benchmark(requirements="this is !! no requirement\n")
    with pytest.raises(sebs.PackagingError):
        session.package(folder)
    assert list((tmp_path / "cache" / "building").iterdir()) == []
    (folder / "python" / "requirements.txt").write_text("")
    assert session.package(folder).path.is_file()


@pytest.mark.parametrize("change", ["memory", "timeout", "name"])
def test_a_reused_package_carries_what_the_benchmark_says_now(session, write_benchmark, change):
    session.package(write_benchmark())
    if change == "name":
        other = session.package(write_benchmark("another"))
        assert other.benchmark == "another"
    else:
        package = session.package(write_benchmark(**{change: 99}))
        assert {"memory": package.memory_mb, "timeout": package.timeout_s}[change] == 99
        config = session.deploy(package).config
        assert {"memory": config.memory_mb, "timeout": config.timeout_s}[change] == 99


def test_unpinned_requirements_are_warned_of_when_they_are_resolved(package_index, watched, write_benchmark):
    session, observer = watched
    folder = write_benchmark(requirements="markupsafe\n")
    session.package(folder)
    session.package(folder)
    notices = [event for event in observer.events if isinstance(event, sebs.Notice)]
    assert len(notices) == 1
    assert notices[0].warning
    assert "markupsafe without a version" in notices[0].text
