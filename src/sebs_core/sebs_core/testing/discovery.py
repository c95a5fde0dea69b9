"""Checks: the plugin is found, is light, and implements what a platform must."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from sebs_core.errors import SebsError
from sebs_core.plugins import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sebs_core.offers import Capabilities, PlatformInfo
    from sebs_core.plugins import Plugins
    from sebs_core.session import Session

REQUIRED = ("runtime", "refresh", "deploy", "create_trigger", "collect_metrics", "resources", "remove")


class DiscoveryChecks:
    """See `PlatformConformance`."""

    platform: ClassVar[str]
    sdk_modules: ClassVar[tuple[str, ...]]

    def test_the_platform_is_offered(self, plugins: Plugins, info: PlatformInfo) -> None:
        """Catches a wrong entry point, a module that cannot be imported, stages at module level that are no wrappers.

        Mend: group ``sebs`` in pyproject.toml names the module; ``sebs_platforms`` is marked ``@hookimpl`` and yields a
        `PlatformInfo`. ``sebs plugin list`` shows what went wrong.
        """
        assert info.name == self.platform
        assert info.summary, "PlatformInfo.summary is one line for `sebs platform list`"
        broken = [f"{plugin.name}: {plugin.error}" for plugin in plugins.installed if plugin.error]
        assert not broken, broken

    def test_discovering_it_imports_no_sdk(self) -> None:
        """Catches a plugin that makes every start of sebs slow, and breaks it where the SDK is missing.

        Mend: import the SDK at the top of ``platform.py``, and ``platform.py`` only within ``create``.
        """
        if not self.sdk_modules:
            pytest.skip("the class names no sdk_modules")
        code = (
            "import sys; from sebs_core.plugins import installed; installed().platforms();"
            f"print(*[name for name in {self.sdk_modules!r} if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [], f"imported by discovering plugins: {done.stdout}"

    def test_every_required_stage_is_implemented(self, session: Session) -> None:
        """Catches a stage that is missing, or misspelt.

        Mend: implement it as a method of the object that ``create`` returns, marked ``@hookimpl`` (docs/hooks.md).
        """
        implemented = session.stages.provenance()
        missing = [
            name
            for name in (f"sebs_{stage}" for stage in REQUIRED)
            if not any("(built in)" not in by for by in implemented.get(name, {}).get("implemented_by", []))
        ]
        assert set(missing) <= set(STAGES)
        assert not missing, f"the platform lacks {', '.join(missing)}"

    def test_what_is_not_claimed_is_refused_with_a_sentence(
        self, session: Session, capabilities: Capabilities, benchmark_folder: Path
    ) -> None:
        """Catches capabilities that say yes to everything.

        Mend: list in `Capabilities` what there really is; core refuses the rest before anything is built.
        """
        before = len(session.listed())
        for wrong in (
            {"language_version": "0.0"},
            {"language_variant": "no-such-variant"},
            {"system_variant": "no-such-variant"},
            {"memory_mb": capabilities.memory_mb[1] + 1},
            {"timeout_s": capabilities.timeout_s[1] + 1},
        ):
            with pytest.raises(SebsError) as refused:
                session.package(benchmark_folder, **wrong)
            assert refused.value.exit_status == 2, f"{wrong}: {refused.value!r} is no mistake of the caller"
            assert len(str(refused.value).split()) > 3, f"{wrong}: {refused.value} is no sentence"
        assert len(session.listed()) == before

    def test_wrong_settings_are_refused(self, open_session: Callable[..., Session], info: PlatformInfo) -> None:
        """Catches settings that take anything: a typing mistake would silently measure something else.

        Mend: derive them from `sebs_core.Settings`, and loosen nothing.
        """
        with pytest.raises(SebsError) as refused:
            open_session(no_such_setting="x")
        assert "no_such_setting" in str(refused.value)
        assert info.settings.model_config.get("extra") == "forbid"

    def test_every_claimed_trigger_and_system_variant_works(
        self, session: Session, capabilities: Capabilities, benchmark_folder: Path
    ) -> None:
        """Catches capabilities that promise too much.

        Every language variant, version, system variant and architecture that is claimed is built; those of this machine's
        architecture are deployed and invoked by every trigger. Mend: claim less, or implement it.
        """
        claimed = [entry for entry in capabilities.languages if (benchmark_folder / entry.language).is_dir()]
        assert claimed, "the kit has a benchmark in Python: the platform claims no such language"
        for entry in claimed:
            for variant in entry.system_variants:
                chosen: dict[str, Any] = {"language": entry.language, "language_variant": entry.language_variant}
                package = session.package(benchmark_folder, **chosen, system_variant=variant)
                function = session.deploy(package)
                for trigger in capabilities.triggers:
                    answer = session.invoke(function, {"value": [variant, trigger]}, trigger=trigger)
                    assert answer.error is None, f"{entry}, {variant}, {trigger}: {answer.error} {answer.error_detail}"
                    assert answer.output["result"] == [variant, trigger]
