"""Packages: built once, rebuilt when an input changed and told why, published once."""

import pytest
from double_platform import FakeEntryPoint, plugin_of
from watching import Watching

import sebs_core as sebs
from sebs_core import hookimpl
from sebs_core.packaging import zip_package
from sebs_core.plugins import Plugins


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


# --- why ------------------------------------------------------------------------------------------------------------------


def reasons(observer):
    return [event.reason for event in observer.finished("package") if not event.reused]


def test_the_input_that_changed_is_named(watched, echo, world):
    session, observer = watched
    session.package(echo)
    (echo / "python" / "templates").mkdir()
    (echo / "python" / "templates" / "page.html").write_text("x")
    added = session.package(echo)
    (echo / "python" / "function.py").write_text("def handler(event): return 2")
    (echo / "python" / "templates" / "page.html").unlink()
    assert added.why_rebuilt == "function/templates/page.html added"
    assert session.package(echo).why_rebuilt == "function/function.py changed, function/templates/page.html removed"
    assert reasons(observer) == [
        "it was not built yet",
        "function/templates/page.html added",
        "function/function.py changed, function/templates/page.html removed",
    ]


def test_of_many_changes_the_first_few_are_named_and_the_others_counted(watched, echo):
    session, observer = watched
    session.package(echo)
    for number in range(9):
        (echo / "python" / f"data-{number}").write_text("x")
    session.package(echo)
    assert reasons(observer)[-1].count(" added") == 5
    assert reasons(observer)[-1].endswith(", and 4 more")


def test_what_is_built_again_because_its_files_vanished_says_so(watched, echo):
    session, observer = watched
    session.package(echo).path.unlink()
    session.package(echo)
    assert reasons(observer)[-1] == "its files in the cache are gone or changed"


def test_going_back_to_what_was_built_before_builds_nothing(watched, echo):
    session, observer = watched
    code = echo / "python" / "function.py"
    before = code.read_text()
    first = session.package(echo)
    code.write_text("def handler(event): return 2")
    session.package(echo)
    code.write_text(before)
    assert session.package(echo) == first
    assert len(reasons(observer)) == 2


def test_a_file_that_changes_while_the_package_is_built_is_an_error_not_a_mixture(watched, echo, monkeypatch):
    session, _ = watched
    from sebs_core import packaging

    stage = packaging.stage

    def slowly(sources, folder):
        (echo / "python" / "function.py").write_text("def handler(event): return 'changed meanwhile'")
        return stage(sources, folder)

    monkeypatch.setattr(packaging, "stage", slowly)
    with pytest.raises(sebs.PackagingError, match=r"function/function\.py changed while the package of echo was built"):
        session.package(echo)
    assert session.cache.packages("double") == []


# --- publishing -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def publishing(world, open_session):
    """Sessions on a double that publishes packages; ``publishing.count`` says how often."""
    module = plugin_of(world)
    (offered,) = module.sebs_platforms()

    class Publishing:
        count = 0

        def __call__(self, **more):
            return open_session(plugins=Plugins([FakeEntryPoint("double", module)]), **more)

    counter = Publishing()

    def create(settings, context):
        made = offered.create(settings, context)

        def sebs_publish(package):
            counter.count += 1
            return package.model_copy(update={"uri": f"registry/{settings.flavour}/{package.digest}", "image_id": "i-1"})

        made.sebs_publish = hookimpl(sebs_publish)
        made.sebs_account = hookimpl(lambda: settings.flavour)
        return made

    module.sebs_platforms = hookimpl(lambda: [sebs.PlatformInfo(**{**vars(offered), "create": create})])
    return counter


def test_a_package_is_published_once_per_account(publishing, echo):
    sessions = [publishing(flavour=flavour) for flavour in ("one", "one", "two", "one")]
    uris = [session.packages.published(session.package(echo)).uri for session in sessions]
    assert publishing.count == 2
    assert uris[0] == uris[1] == uris[3] != uris[2]


def test_what_was_published_is_published_again_after_a_clean_up_and_not_built_again(publishing, echo, world):
    observer = Watching()
    session = publishing(observers=[observer])
    session.deploy(session.package(echo))
    world.put(sebs.Resource(kind="image", name="i", platform="double"))
    session.cleanup(dry_run=True)
    assert session.packages.published(session.package(echo)).image_id == "i-1"
    assert publishing.count == 1
    session.cleanup()
    session.deploy(session.package(echo))
    assert publishing.count == 2
    assert len(reasons(observer)) == 1


def test_a_rebuild_publishes_again(publishing, echo):
    session = publishing()
    session.deploy(session.package(echo))
    session.deploy(session.package(echo, rebuild=True), rebuild=True)
    assert publishing.count == 2


def test_packaging_alone_publishes_nothing_and_neither_does_a_function_that_is_reused(publishing, echo):
    session = publishing()
    session.package(echo)
    assert publishing.count == 0
    for _ in range(2):
        session.deploy(session.package(echo))
    assert publishing.count == 1


def test_what_was_cleaned_up_with_another_cache_is_published_again(publishing, echo, tmp_path):
    session = publishing()
    session.deploy(session.package(echo))
    other = publishing(cache_dir=tmp_path / "another cache")
    other.cleanup()
    session.deploy(session.package(echo))
    assert publishing.count == 2


# --- what was kept is what is run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_package_that_somebody_changed_in_the_cache_is_built_again(watched, echo, rebuild):
    session, observer = watched
    first = session.package(echo)
    good = first.path.read_bytes()
    first.path.chmod(0o644)
    first.path.write_bytes(good[:-1] + b"x")
    again = session.package(echo, rebuild=rebuild)
    assert again.path.read_bytes() == good
    assert len(reasons(observer)) == 2
    assert session.package(echo) == again


def test_an_extension_that_packages_otherwise_has_packages_of_its_own(watched, echo, open_session):
    session, _ = watched
    plain = session.package(echo)
    other = open_session()

    class Otherwise:
        @hookimpl
        def sebs_package(self, benchmark, config, folder):
            (folder / "more").write_text("x")
            return zip_package(benchmark, config, folder)

    other.stages.add(Otherwise(), "sebs-otherwise 1.0 (extension otherwise)")
    package = other.package(echo)
    assert package.digest != plain.digest
    assert package.why_rebuilt == "built by changed"
    assert session.package(echo) == plain


def test_what_a_package_is_run_with_is_part_of_its_identity(session, echo, world, monkeypatch):
    first = session.package(echo)
    runtime = session.stages.call("sebs_runtime", benchmark=session.benchmark(echo), config=None)
    changed = runtime.model_copy(update={"base_image": "python:3.12-slim"})

    class Other:
        @hookimpl
        def sebs_runtime(self):
            return changed

    session.stages.add(Other(), "another base image")
    assert session.package(echo).digest != first.digest


def test_a_setting_of_the_platform_that_decides_what_is_packaged_is_an_input(open_session, echo):
    first = open_session(flavour="a").package(echo)
    second = open_session(flavour="b").package(echo)
    assert second.inputs != first.inputs
    assert second.why_rebuilt == "setting flavour changed"


@pytest.mark.parametrize(
    "line",
    [
        "-r other.txt", "demo @ /abs/demo-1.0-py3-none-any.whl", "demo @ ../x.whl", "w/x.whl", "~/x.whl",
        "x-1.0-py3-none-any.whl",
        "demo @ ${HOME}/x.whl", "demo @ FILE:///x.whl", "demo @ git+https://host.example/x@main", "-e .",
    ],
)  # fmt: skip
def test_requirements_whose_contents_could_change_unseen_are_refused(session, write_benchmark, line):
    with pytest.raises(sebs.ConfigError, match="what lies behind it could change unseen"):
        session.package(write_benchmark(requirements=f"{line}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "demo", "demo==1.0", "demo[extra]>=1,<2", "demo ; python_version < '4'", "demo==1 --hash=sha256:ab/cd",
        "demo @ https://host.example/demo-1.0.whl", f"demo @ git+https://host.example/x@{'a' * 40}", "demo(>=1)",
        "a.b-c_d~=1.0",
    ],
)  # fmt: skip
def test_other_requirements_are_left_to_the_installer(write_benchmark, session, line):
    from sebs_core.models import FunctionConfig, Runtime
    from sebs_core.packaging import Sources
    from sebs_core.packaging.python import PYTHON

    config = FunctionConfig(
        language="python", language_version="3.12", language_variant="default", system_variant="package", architecture="x64",
        memory_mb=128, timeout_s=1,
    )  # fmt: skip
    benchmark = session.benchmark(write_benchmark(requirements=f"{line}\n"))
    assert Sources(benchmark, config, Runtime(files={}), PYTHON).requirements == [line]
