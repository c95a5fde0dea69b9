"""Checks: packages and functions are what was asked for, are reused when nothing changed, and never when something did."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from sebs_core.errors import DeployError, SebsError
from sebs_core.hookspecs import hookimpl
from sebs_core.models import Function

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sebs_core.session import Session
    from sebs_core.testing.observer import Observer

SECRET = "planted-secret-2f7c91"


class DeployingChecks:
    """See `PlatformConformance`."""

    def test_a_package_is_deterministic(self, open_session: Callable[..., Session], benchmark_folder: Path) -> None:
        """Catches time stamps, absolute paths and random names in packages.

        Mend: build from the folder that ``sebs_package`` is given and nothing else; `sebs_core.packaging` has a zip whose bytes
        depend on its contents only.
        """
        one, two = (open_session(home).package(benchmark_folder) for home in ("one", "two"))
        assert one.digest == two.digest
        if one.path.is_file():
            assert _sha256(one.path) == _sha256(two.path)

    def test_a_function_survives_the_store(self, session: Session, function: Function) -> None:
        """Catches records with fields that are no plain data, or a subclass without a tag.

        Mend: ``class MyFunction(Function, tag="mine")`` with fields of plain types; ``sebs_deploy`` returns it.
        """
        text = function.model_dump_json()
        again = Function.model_validate_json(text)
        assert (type(again), again) == (type(function), function)
        assert again.model_dump_json() == text
        assert function.platform == session.platform
        assert function.config.function_name == function.name

    def test_an_unchanged_function_is_reused(
        self, open_session: Callable[..., Session], benchmark_folder: Path, observer: Observer
    ) -> None:
        """Catches functions that are deployed again in every session, and clouds that fill up.

        Mend: ``sebs_refresh`` must accept what ``sebs_deploy`` returned as long as it is there, unchanged.
        """
        for number in range(2):
            session = open_session()
            function = session.deploy(session.package(benchmark_folder))
            assert session.invoke(function, {"value": number}).output["result"] == number
            if not session.lasting:
                pytest.skip("the platform takes everything with it when a session ends")
        assert [stage.reused for stage in observer.finished("deploy")] == [False, True], observer.finished("deploy")[-1].reason

    def test_changed_code_updates_the_same_function(self, session: Session, benchmark_folder: Path) -> None:
        """Catches a second function beside the first, and answers of the old code after an update.

        Mend: with `previous`, ``sebs_deploy`` updates the function of that name, and returns when the new code answers.
        """
        first = session.deploy(session.package(benchmark_folder))
        assert session.invoke(first, {}).output["version"] == 1
        _change(benchmark_folder)
        second = session.deploy(session.package(benchmark_folder))
        assert second.name == first.name
        assert second.package_digest != first.package_digest
        assert session.invoke(second, {}).output["version"] == 2
        functions = [h.resource.name for h in session.resources() if h.resource.kind == "function"]
        assert functions == [first.name]

    def test_changed_configuration_reaches_the_function(self, session: Session, benchmark_folder: Path) -> None:
        """Catches updates that change the code only.

        Mend: ``sebs_deploy`` brings memory, time limit and environment to what `config` and `environment` say.
        """
        package = session.package(benchmark_folder)
        for value in ("one", "two", None):
            environment = {} if value is None else {"CHANGED": value}
            function = session.deploy(package, environment=environment, memory_mb=256)
            told = session.invoke(function, {"environment": ["CHANGED"]}).output["environment"]
            assert told == {"CHANGED": value}
        assert function.config.memory_mb == 256

    def test_a_function_removed_behind_the_back_is_made_again(
        self, session: Session, function: Function, benchmark_folder: Path
    ) -> None:
        """Catches functions that are believed in although somebody removed them.

        Mend: ``sebs_refresh`` looks at the provider, and raises `FunctionGoneError` with the reason.
        """
        (resource,) = [r for r in session.listed() if r.kind == "function" and r.name == function.name]
        session.stages.call("sebs_remove", resource=resource)
        with pytest.raises(SebsError) as gone:
            session.stages.call("sebs_refresh", function=function)
        assert type(gone.value).__name__ == "FunctionGoneError", f"{gone.value!r} is no FunctionGoneError"
        again = session.deploy(session.package(benchmark_folder))
        assert session.invoke(again, {"value": 1}).error is None

    def test_a_function_changed_behind_the_back_is_not_reused(
        self, open_session: Callable[..., Session], benchmark_folder: Path
    ) -> None:
        """Catches numbers of somebody else's code: another user deploys under the same name, this one's records say nothing.

        Mend: ``sebs_refresh`` returns the function as it is at the provider (`package_digest`, `config`), or raises
        `FunctionGoneError`. Providers keep tags, or tell a digest of the code.
        """
        mine, other = (open_session(home, resources_id="check-shared") for home in ("mine", "other"))
        if not mine.lasting:
            pytest.skip("the platform takes everything with it when a session ends")
        first = mine.deploy(mine.package(benchmark_folder), function_name="sebs-check-shared")
        _change(benchmark_folder)
        other.deploy(other.package(benchmark_folder), function_name="sebs-check-shared")
        _change(benchmark_folder, version=1, was=2)
        again = mine.deploy(mine.package(benchmark_folder), function_name="sebs-check-shared")
        assert again.package_digest == first.package_digest
        assert mine.invoke(again, {}).output["version"] == 1

    def test_an_interrupted_deployment_is_taken_up_again(self, session: Session, benchmark_folder: Path) -> None:
        """Catches functions that exist already and cannot be made again: after Ctrl-C nobody could go on.

        Mend: without `previous`, ``sebs_deploy`` bears that the function, its role and the like are there, whole or half.
        """

        class Interrupting:
            once = True

            @hookimpl(wrapper=True)
            def sebs_deploy(self) -> Any:
                made = yield
                if self.once:
                    self.once = False
                    raise KeyboardInterrupt
                return made

        session.stages.add(Interrupting(), "an interrupt right after the function was made")
        package = session.package(benchmark_folder)
        with pytest.raises(KeyboardInterrupt):
            session.deploy(package)
        function = session.deploy(package, environment={"CHANGED": "after"})
        answer = session.invoke(function, {"environment": ["CHANGED"]})
        assert answer.error is None, answer.error_detail
        assert answer.output["environment"] == {"CHANGED": "after"}

    def test_secrets_reach_the_function_and_nothing_else(
        self, open_session: Callable[..., Session], benchmark_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Catches credentials in caches, ledgers, results and logs, which are shared and published.

        Mend: keep secrets out of records and messages; settings that are secret are ``SecretStr``.
        """
        caplog.set_level("DEBUG")
        session = open_session()
        settings = [value for value in dict(session.settings).values() if hasattr(value, "get_secret_value")]
        secrets = [SECRET, *(value.get_secret_value() for value in settings)]
        try:
            result = session.run(benchmark_folder, "test", secrets={"KEY": SECRET})
        except SebsError as error:
            raise AssertionError(f"a secret was about to be stored, or the run failed: {error}") from error
        function = session.deploy(session.package(benchmark_folder), secrets={"KEY": SECRET})
        assert session.invoke(function, {"environment": ["KEY"]}).output["environment"] == {"KEY": SECRET}
        written = b"\n".join(path.read_bytes() for path in sorted((tmp_path / "home").rglob("*")) if path.is_file())
        for secret in filter(lambda value: len(value) > 5, secrets):
            assert secret.encode() not in written, "a secret lies in the cache, the state or the run"
            assert secret not in caplog.text, "a secret was logged"
            assert secret not in repr(result.manifest)

    def test_two_accounts_are_kept_apart(
        self, open_session: Callable[..., Session], other_settings: dict[str, Any] | None, benchmark_folder: Path
    ) -> None:
        """Catches a plugin that drops the region or the account: functions of one taken for those of the other.

        Mend: ``sebs_account`` tells account and region, and the settings decide where every call goes.
        """
        if other_settings is None:
            pytest.skip("the class has no other_settings_for")
        here, there = open_session(), open_session(settings=other_settings)
        assert here.account != there.account, "sebs_account tells the same for two accounts or regions"
        name = "sebs-check-apart"
        one = here.deploy(here.package(benchmark_folder), function_name=name)
        assert [h for h in there.resources() if h.resource.name == name] == []
        _change(benchmark_folder)
        two = there.deploy(there.package(benchmark_folder), function_name=name)
        assert [here.invoke(one, {}).output["version"], there.invoke(two, {}).output["version"]] == [1, 2]
        there.cleanup()
        assert here.invoke(one, {}).output["version"] == 1

    def test_two_sessions_share_one_identity(self, open_session: Callable[..., Session], benchmark_folder: Path) -> None:
        """Catches what is found only by the session that made it.

        Mend: put ``context.resources_id`` into names or tags, and let ``sebs_resources`` list by them, for every id.
        """
        one, two = open_session(), open_session()
        if not one.lasting:
            pytest.skip("the platform takes everything with it when a session ends")
        assert one.resources_id == two.resources_id
        one.deploy(one.package(benchmark_folder))
        assert {r.key for r in two.listed()} >= {h.resource.key for h in one.resources()}
        stranger = open_session("stranger")
        assert stranger.resources_id != one.resources_id
        assert stranger.resources() == []
        assert one.resources_id in {r.resources_id for r in stranger.listed()}, (
            "sebs_resources must tell the resources_id of each"
        )

    def test_what_the_provider_refuses_is_an_error_of_the_tree(self, session: Session, benchmark_folder: Path) -> None:
        """Catches raw exceptions of an SDK, which tell neither what failed nor what to do.

        Mend: ``raise DeployError("… what failed, on what, what to do next") from error``.
        """
        package = session.package(benchmark_folder)
        broken = package.model_copy(update={"path": package.path.with_name("not-there")})
        with pytest.raises(DeployError) as refused:
            session.deploy(broken, function_name="sebs-check-broken")
        assert len(str(refused.value).split()) > 3


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _change(folder: Path, *, version: int = 2, was: int = 1) -> None:
    code = folder / "python" / "function.py"
    code.write_text(code.read_text().replace(f"VERSION = {was}", f"VERSION = {version}"))
