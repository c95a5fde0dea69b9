"""Plugins: tolerant when loading, strict in use."""

import logging

import pytest
from double_platform import FakeEntryPoint, info_of, module_of, plugin_of

from sebs_core import hookimpl
from sebs_core.errors import ConfigError, PluginError, SebsError, StageMissingError, UnknownPlatformError
from sebs_core.offers import Extension, Language, PlatformInfo
from sebs_core.plugins import Plugins, Stages
from sebs_core.session import connect
from sebs_core.testing import FakePlatform


def listed(plugins, name):
    (found,) = [plugin for plugin in plugins.installed if plugin.name == name]
    return found


def refused(plugins, name):
    """Why this plugin was not loaded."""
    plugin = listed(plugins, name)
    assert plugin.module is None
    assert plugin.error
    return plugin.error


# --- loading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cause", [ImportError("no module named star_sdk"), SystemExit(3), RuntimeError("boom"), SyntaxError("bad")], ids=repr
)
def test_a_plugin_whose_import_fails_is_listed_with_the_cause_and_only_its_own_platform_raises(world, cause, caplog):
    plugins = Plugins([FakeEntryPoint("broken", cause), FakeEntryPoint("double", plugin_of(world))])
    assert type(cause).__name__ in refused(plugins, "broken")
    assert [info.name for info in plugins.platforms()] == ["double"]
    with pytest.raises(PluginError, match="could not be loaded") as caught:
        plugins.platform("broken")
    assert type(cause).__name__ in str(caught.value)
    assert str(cause) in str(caught.value)
    assert "sebs-broken 1.0" in str(caught.value)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "broken_module" in warnings[0].getMessage()


def test_an_import_that_was_interrupted_by_the_user_is_not_a_broken_plugin():
    with pytest.raises(KeyboardInterrupt):
        Plugins([FakeEntryPoint("slow", KeyboardInterrupt())])


@pytest.mark.parametrize("asked", ["starry", "sebs-starry", "moon"])
def test_the_broken_plugin_is_found_by_distribution_and_by_entry_point(asked):
    plugins = Plugins([FakeEntryPoint("moon", ImportError("x"), distribution="sebs-starry")])
    with pytest.raises(PluginError, match="could not be loaded: ImportError: x"):
        plugins.platform(asked)


def test_an_unknown_platform_is_answered_with_what_to_install_and_what_is_near(plugins):
    with pytest.raises(UnknownPlatformError) as caught:
        plugins.platform("doubel")
    assert "pip install sebs-doubel" in str(caught.value)
    assert "Did you mean double?" in str(caught.value)
    assert "Installed: double" in str(caught.value)


def test_with_nothing_installed_the_message_says_what_would_add_a_first_platform():
    with pytest.raises(UnknownPlatformError, match="Installed: none"):
        Plugins([]).platform("star")


def test_one_platform_offered_by_two_plugins_names_both(world):
    entry_points = [FakeEntryPoint(name, plugin_of(world)) for name in ("first", "second")]
    with pytest.raises(PluginError, match=r"'double' is offered by sebs-first 1\.0 and sebs-second 1\.0"):
        Plugins(entry_points).platform("double")


def test_a_hook_that_nobody_marked_is_refused(world):
    plugins = Plugins([FakeEntryPoint("star", module_of(sebs_platforms=lambda: [info_of(world)]))])
    assert "sebs_platforms is not marked: put @sebs_core.hookimpl above it" in refused(plugins, "star")


@pytest.mark.parametrize(("wrong", "right"), [("sebs_platfroms", "sebs_platforms"), ("sebs_benchmark", "sebs_benchmarks")])
def test_a_misspelt_hook_is_refused_with_the_right_name(wrong, right):
    plugins = Plugins([FakeEntryPoint("star", module_of(**{wrong: hookimpl(lambda: [])}))])
    assert f"{wrong} is no hook; did you mean {right}?" in refused(plugins, "star")


def test_a_hook_argument_with_a_default_is_refused_with_its_name():
    @hookimpl
    def sebs_event(event=None):
        pass

    plugins = Plugins([FakeEntryPoint("star", module_of(sebs_event=sebs_event))])
    assert "sebs_event: hook arguments have no defaults, but event has one" in refused(plugins, "star")


def test_an_argument_that_the_hook_does_not_have_is_refused_with_its_name():
    @hookimpl
    def sebs_event(evnt):
        pass

    assert "evnt" in refused(Plugins([FakeEntryPoint("star", module_of(sebs_event=sebs_event))]), "star")


def test_a_module_that_imports_sebs_core_and_sebs_names_of_it_is_no_breach():
    import sebs_core

    plugins = Plugins([FakeEntryPoint("star", module_of(sebs_core=sebs_core, sebs_version="1"))])
    assert listed(plugins, "star").error is None


@pytest.mark.parametrize("options", [{}, {"hookwrapper": True}], ids=["plain", "old-style wrapper"])
def test_a_stage_at_module_level_that_does_not_wrap_is_refused(options):
    @hookimpl(**options)
    def sebs_publish(package):
        yield

    plugins = Plugins([FakeEntryPoint("star", module_of(sebs_publish=sebs_publish))])
    assert "sebs_publish at module level would act on every platform" in refused(plugins, "star")
    assert "Extension" in refused(plugins, "star")
    assert plugins.manager.hook.sebs_publish.get_hookimpls() == []


def test_a_plugin_that_is_refused_leaves_none_of_its_hooks_behind(world):
    told = []

    @hookimpl
    def sebs_event(event):
        told.append(event)

    module = module_of(sebs_event=sebs_event, sebs_platforms=lambda: [])  # the second one is not marked
    plugins = Plugins([FakeEntryPoint("star", module), FakeEntryPoint("double", plugin_of(world))])
    stages = Stages(plugins)
    stages.tell("something")
    assert refused(plugins, "star")
    assert told == []


def test_a_plugin_whose_discovery_raises_does_not_hide_the_others(world, caplog):
    @hookimpl
    def sebs_platforms():
        raise RuntimeError("cannot say")

    broken = module_of(sebs_platforms=sebs_platforms)
    plugins = Plugins([FakeEntryPoint("aaa", broken), FakeEntryPoint("double", plugin_of(world))])
    assert [info.name for info in plugins.platforms()] == ["double"]
    assert "cannot say" in caplog.text
    assert "sebs-aaa" in caplog.text


def test_asking_for_the_platform_of_a_plugin_whose_discovery_raises_tells_the_cause():
    @hookimpl
    def sebs_platforms():
        raise RuntimeError("cannot say")

    plugins = Plugins([FakeEntryPoint("star", module_of(sebs_platforms=sebs_platforms))])
    with pytest.raises(PluginError, match="cannot say"):
        plugins.platform("star")


def test_one_distribution_may_bring_two_plugins(world):
    plugins = Plugins(
        [
            FakeEntryPoint("one", plugin_of(world, "one"), distribution="sebs-both"),
            FakeEntryPoint("two", plugin_of(world, "two"), distribution="sebs-both"),
        ]
    )
    assert [plugin.error for plugin in plugins.installed] == [None, None, None]
    assert [info.name for info in plugins.platforms()] == ["one", "two"]
    connect("two", plugins=plugins).close()


def test_a_plugin_registered_twice_is_listed_once_more_with_the_reason_and_still_acts(world):
    told = []

    @hookimpl
    def sebs_commands(cli):
        told.append(cli)

    module = plugin_of(world)
    module.sebs_commands = sebs_commands
    plugins = Plugins([FakeEntryPoint("double", module), FakeEntryPoint("double2", module)])
    assert listed(plugins, "double").error is None
    assert "already registered" in refused(plugins, "double2")
    plugins.manager.hook.sebs_commands(cli="cli")
    assert told == ["cli"]
    assert plugins.platform("double")[0].name == "double"


def test_plugins_come_in_the_order_of_their_names_however_they_were_found(world):
    entry_points = [FakeEntryPoint(name, plugin_of(world, name)) for name in ("b", "c", "a")]
    orders = [[plugin.name for plugin in Plugins(order).installed] for order in (entry_points, entry_points[::-1])]
    assert orders == [["core", "a", "b", "c"]] * 2


# --- languages and extensions ---------------------------------------------------------------------------------------------


def test_core_brings_python_and_an_unknown_language_is_refused_with_the_known_ones(plugins):
    assert plugins.language("python").code_file == "function.py"
    with pytest.raises(PluginError, match=r"nothing installed builds packages in cobol\. Known languages: python"):
        plugins.language("cobol")


def test_installing_a_package_does_not_silently_replace_how_python_is_packaged(plugins):
    @hookimpl
    def sebs_languages():
        return [Language("python", "main.py", lambda code, config: {}, (), lambda *_: {})]

    changed = Plugins([FakeEntryPoint("zzz", module_of(sebs_languages=sebs_languages))])
    with pytest.raises(PluginError, match="zzz"):
        changed.language("python")


class Replacing:
    """An extension that answers one stage itself, and counts."""

    def __init__(self):
        self.published = 0

    @hookimpl
    def sebs_publish(self, package):
        self.published += 1
        return package.model_copy(update={"uri": "elsewhere"})


def offering(extension):
    @hookimpl
    def sebs_extensions():
        return [Extension("elsewhere", "publishes elsewhere", lambda: extension)]

    return module_of(sebs_extensions=sebs_extensions)


def test_an_extension_acts_only_when_it_is_chosen_and_then_goes_first(world, open_session, echo):
    extension = Replacing()
    plugins = Plugins([FakeEntryPoint("double", plugin_of(world)), FakeEntryPoint("star", offering(extension))])
    plain = open_session(plugins=plugins)
    assert plain.package(echo).uri is None
    assert "elsewhere" not in str(plain.stages.provenance())
    chosen = open_session(plugins=plugins, extensions=["elsewhere"])
    assert chosen.packages.published(chosen.package(echo)).uri == "elsewhere"
    assert extension.published == 1
    assert chosen.stages.provenance()["sebs_publish"]["implemented_by"][0] == "sebs-star 1.0 (extension elsewhere)"


def test_an_extension_that_nobody_offers_is_refused_with_those_that_are(world, open_session):
    plugins = Plugins([FakeEntryPoint("double", plugin_of(world)), FakeEntryPoint("star", offering(Replacing()))])
    with pytest.raises(ConfigError, match=r"the extension 'elswhere'. Installed: elsewhere\."):
        open_session(plugins=plugins, extensions=["elswhere"])


def test_one_extension_offered_by_two_plugins_is_refused(world):
    plugins = Plugins([FakeEntryPoint(name, offering(Replacing())) for name in ("first", "second")])
    with pytest.raises(PluginError, match="second"):
        plugins.extensions(["elsewhere"])


# --- stages ---------------------------------------------------------------------------------------------------------------


def test_a_wrapper_at_module_level_really_wraps_and_is_listed(world, open_session, echo):
    wrapped = []

    @hookimpl(wrapper=True)
    def sebs_publish(package):
        answer = yield
        wrapped.append(package.benchmark)
        return answer.model_copy(update={"uri": "wrapped"})

    wrapper = module_of(sebs_publish=sebs_publish)
    plugins = Plugins([FakeEntryPoint("double", plugin_of(world)), FakeEntryPoint("star", wrapper)])
    session = open_session(plugins=plugins)
    assert session.packages.published(session.package(echo)).uri == "wrapped"
    assert wrapped == ["echo"]
    told = session.stages.provenance()["sebs_publish"]
    assert told["wrapped_by"] == ["sebs-star 1.0"]
    assert [name for name in told["implemented_by"] if "sebs-core" in name]


def test_provenance_tells_who_is_asked_first(session):
    told = session.stages.provenance()
    assert told["sebs_deploy"] == {"implemented_by": ["sebs-double 1.0 (double)"], "wrapped_by": []}
    assert told["sebs_package"]["implemented_by"][-1].startswith("sebs-core ")
    assert "sebs_logs" in told


def test_a_stage_that_nobody_implements_is_named(plugins):
    with pytest.raises(StageMissingError, match="nobody implements sebs_deploy"):
        Stages(plugins).call("sebs_deploy", package=None, config=None, previous=None, environment={}, secrets={})


def test_a_platform_class_given_instead_of_an_object_is_refused(world):
    @hookimpl
    def sebs_platforms():
        given = vars(info_of(world))
        return [PlatformInfo(**{**given, "create": lambda settings, context: FakePlatform})]

    with pytest.raises(PluginError, match=r"registered the class FakePlatform; forgotten the \(\)\?"):
        connect("double", plugins=Plugins([FakeEntryPoint("double", module_of(sebs_platforms=sebs_platforms))]))


@pytest.mark.parametrize(
    ("name", "complaint"), [("sebs_depoly", "did you mean sebs_deploy"), ("sebs_deploy", "sebs_deploy is not marked")]
)
def test_a_platform_object_with_a_misspelt_or_unmarked_stage_is_refused(world, plugins, name, complaint):
    def method(self):
        pass

    platform = type("Platform", (), {name: method if name == "sebs_deploy" else hookimpl(method)})()
    with pytest.raises(PluginError, match=f"the platform: .*{complaint}"):
        Stages(plugins).add(platform, "the platform")


def test_an_object_that_was_refused_is_not_half_registered(plugins):
    class Platform:
        asked = 0

        @hookimpl
        def sebs_open(self):
            Platform.asked += 1

        @hookimpl
        def sebs_zzz(self):
            pass

    stages = Stages(plugins)
    with pytest.raises(PluginError, match="sebs_zzz is no hook"):
        stages.add(Platform(), "star")
    stages.ask("sebs_open")
    assert Platform.asked == 0


@pytest.mark.parametrize(
    "fault",
    [RuntimeError("cannot draw"), SebsError("cannot draw")],
    ids=repr,
)
def test_an_observer_that_raises_is_reported_once_and_the_others_are_still_told(plugins, caplog, fault):
    class Broken:
        asked = 0

        @hookimpl
        def sebs_event(self, event):
            Broken.asked += 1
            raise fault

    class Well:
        told = ()

        @hookimpl
        def sebs_event(self, event):
            Well.told += (event,)

    stages = Stages(plugins)
    stages.add(Well(), "well")
    stages.add(Broken(), "broken")
    for event in ("one", "two"):
        stages.tell(event)
    assert Well.told == ("one", "two")
    assert Broken.asked == 1
    assert [record.getMessage() for record in caplog.records] == ["broken failed as an observer and is not asked again"]


def test_an_observer_that_is_interrupted_stops_the_work(plugins):
    class Interrupted:
        @hookimpl
        def sebs_event(self):
            raise KeyboardInterrupt

    stages = Stages(plugins)
    stages.add(Interrupted(), "interrupted")
    with pytest.raises(KeyboardInterrupt):
        stages.tell("event")


def test_a_platform_that_cannot_be_made_is_named_with_the_cause_and_leaves_no_scratch_folder(world, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @hookimpl
    def sebs_platforms():
        def create(settings, context):
            assert context.scratch.is_dir()
            raise ImportError("no module named star_sdk")

        yield PlatformInfo(**{**vars(info_of(world)), "create": create})

    plugins = Plugins([FakeEntryPoint("double", module_of(sebs_platforms=sebs_platforms))])
    with pytest.raises(PluginError, match=r"double \(sebs-double 1\.0\) could not be made: no module named star_sdk"):
        connect("double", plugins=plugins)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("sebs-")] == []


def test_two_sessions_have_stages_of_their_own(open_session, world):
    plugins = Plugins([FakeEntryPoint("one", plugin_of(world, "one")), FakeEntryPoint("two", plugin_of(world, "two"))])
    one, two = open_session("one", plugins=plugins), open_session("two", plugins=plugins)
    assert one.stages.provenance()["sebs_deploy"]["implemented_by"] == ["sebs-one 1.0 (one)"]
    assert two.stages.provenance()["sebs_deploy"]["implemented_by"] == ["sebs-two 1.0 (two)"]


def test_real_entry_points_are_read_from_the_environment(tmp_path, run_python):
    info = tmp_path / "sebs_star-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sebs-star\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[sebs]\nstar = star_plugin\ngone = not_there\n")
    (tmp_path / "star_plugin.py").write_text("")
    done = run_python(
        """
        import sys; sys.path.insert(0, sys.argv[1])
        from sebs_core.plugins import Plugins
        for plugin in Plugins().installed:
            print(plugin.name, plugin.label, plugin.error)
        """,
        tmp_path,
    )
    assert "star sebs-star 2.5 None" in done.stdout, done.stderr
    assert "gone sebs-star 2.5 ModuleNotFoundError" in done.stdout
