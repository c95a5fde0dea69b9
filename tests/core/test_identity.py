"""The resources id: given, known from before, found on the platform, or made; and one for sessions that start at once."""

import multiprocessing
import re

import pytest
from double_platform import FakeEntryPoint, plugin_of
from watching import Watching

import sebs_core as sebs
from sebs_core import hookimpl
from sebs_core.models import Resource
from sebs_core.plugins import Plugins


def there(world, *ids):
    world.put(
        *(Resource(kind="bucket", name=f"b-{number}", platform="double", resources_id=one) for number, one in enumerate(ids))
    )


@pytest.fixture
def identified(open_session):
    """``identified(**options)`` → (id of a new session, what it told)."""

    def identify(**more):
        observer = Watching()
        with open_session(observers=[observer], **more) as session:
            return session.resources_id, [event.text for event in observer.events if isinstance(event, sebs.Notice)]

    return identify


def test_an_id_is_made_once_per_state_and_stands_in_names(identified, open_session, echo, tmp_path, world):
    made, told = identified()
    assert re.fullmatch("[0-9a-f]{8}", made)
    assert told == []
    assert identified() == (made, [])
    assert identified(cache_dir=tmp_path / "another cache") == (made, [])
    assert identified(state_dir=tmp_path / "another state")[0] != made
    session = open_session()
    assert made in session.deploy(session.package(echo)).name


def test_only_the_first_session_asks_the_platform(identified, world):
    for _ in range(3):
        identified()
    assert world.count("resources") == 1


def test_a_given_id_is_used_as_it_is_and_asks_nobody(identified, world):
    there(world, "others")
    assert identified(resources_id="mine-1") == ("mine-1", [])
    assert world.count("resources") == 0


def test_an_id_of_the_platform_that_begins_with_the_prefix_is_taken(identified, world):
    there(world, "zeta-1", "team-2b2b2b2b", "team-1a1a1a1a")
    found, told = identified(resource_prefix="team")
    assert found == "team-1a1a1a1a"
    assert "there are resources of other ids: team-2b2b2b2b, zeta-1. This session uses team-1a1a1a1a" in told[0]
    assert identified(resource_prefix="team") == ("team-1a1a1a1a", [])
    found, told = identified(resource_prefix="team-2b2b2b2b")
    assert found == "team-2b2b2b2b"
    assert told == [
        "on double there are resources of other ids: team-1a1a1a1a, zeta-1. This session uses team-2b2b2b2b; --resource-prefix "
        "(resource_prefix=…) chooses another"
    ]


def test_an_id_that_merely_begins_with_the_same_letters_is_somebody_elses(identified, world):
    there(world, "exp10-colleague", "exp", "exp1-lab")
    made, told = identified(resource_prefix="exp1")
    assert re.fullmatch("exp1-[0-9a-f]{8}", made)
    assert "exp10-colleague" in told[0]


def test_where_none_begins_with_the_prefix_one_is_made(identified, world):
    there(world, "zeta-1")
    made, _ = identified(resource_prefix="team")
    assert re.fullmatch("team-[0-9a-f]{8}", made)
    assert identified()[0] != made


def test_without_a_prefix_what_others_have_is_not_taken_but_told(identified, world):
    there(world, "colleague")
    made, told = identified()
    assert made != "colleague"
    assert "other ids: colleague" in told[0]


@pytest.mark.parametrize("wrong", ["", "UPPER", "-a", "a-", "a_b", "a/b", "x" * 31])
def test_what_cannot_stand_in_names_is_refused(open_session, wrong, world):
    with pytest.raises(sebs.ConfigError, match="cannot be a resources id"):
        open_session(resources_id=wrong)
    with pytest.raises(sebs.ConfigError, match="cannot be a resource prefix"):
        open_session(resource_prefix=wrong)
    assert world.calls == []


def test_only_one_of_both_can_be_given(open_session):
    with pytest.raises(sebs.ConfigError, match="give only one of the two"):
        open_session(resources_id="a", resource_prefix="b")


def test_accounts_have_ids_of_their_own(identified):
    ids = [identified(account=account)[0] for account in ("one", "two", "one")]
    assert ids[0] == ids[2] != ids[1]


def test_a_listing_that_needs_the_id_is_a_defect_of_the_plugin(world, open_session):
    module = plugin_of(world)
    (offered,) = module.sebs_platforms()

    def create(settings, context):
        made = offered.create(settings, context)
        made.sebs_resources = hookimpl(lambda: [context.resources_id])
        return made

    module.sebs_platforms = hookimpl(lambda: [sebs.PlatformInfo(**{**vars(offered), "create": create})])
    session = open_session(plugins=Plugins([FakeEntryPoint("double", module)]))
    with pytest.raises(sebs.PluginError, match="sebs_resources of double needs the resources id"):
        _ = session.resources_id


def test_a_platform_that_takes_all_with_it_needs_no_state(world, open_session, echo, tmp_path):
    module = plugin_of(world)
    (offered,) = module.sebs_platforms()

    def create(settings, context):
        context.lasting = False
        return offered.create(settings, context)

    module.sebs_platforms = hookimpl(lambda: [sebs.PlatformInfo(**{**vars(offered), "create": create})])
    plugins = Plugins([FakeEntryPoint("double", module)])
    names = []
    for more in ({}, {}, {"resource_prefix": "mine"}):
        session = open_session(plugins=plugins, state_dir=tmp_path / "no state", **more)
        function = session.deploy(session.package(echo), secrets={"KEY": "a long secret"})
        assert session.invoke(function, {"value": 1}).output["result"] == 1
        names.append(function.name)
        session.close()
    assert names[0] == names[1] != names[2]
    assert "-mine-" in names[2]
    assert not (tmp_path / "no state").exists()
    assert session.cache.functions("double") == []


def test_eight_first_sessions_at_once_end_with_one_id(tmp_path, world):
    context = multiprocessing.get_context("fork")
    for attempt in range(3):
        together, answers = context.Barrier(8), context.Queue()

        def ask(folder=tmp_path / str(attempt), together=together, answers=answers):
            plugins = Plugins([FakeEntryPoint("double", plugin_of(world))])
            together.wait(10)
            with sebs.connect("double", plugins=plugins, state_dir=folder / "s", cache_dir=folder / "c") as session:
                answers.put(session.resources_id)

        asking = [context.Process(target=ask, daemon=True) for _ in range(8)]
        for process in asking:
            process.start()
        told = {answers.get(timeout=20) for _ in asking}
        for process in asking:
            process.join()
        assert len(told) == 1
