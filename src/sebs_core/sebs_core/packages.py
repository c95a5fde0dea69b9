"""The package of a benchmark: taken from the cache, or built; and published where the provider wants it first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sebs_core.errors import PackagingError

if TYPE_CHECKING:
    from pathlib import Path

    from sebs_core.benchmark import Benchmark
    from sebs_core.models import FunctionConfig, Inputs, Package, Runtime
    from sebs_core.packaging import Sources
    from sebs_core.session import Session

__all__ = ["Packages"]


class Packages:
    """The packages of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._cache = session.cache

    def get(self, benchmark: Benchmark, config: FunctionConfig, *, rebuild: bool) -> Package:
        """Build unless the cache has it; of several sessions that want the same one builds and the others wait."""
        from sebs_core.packaging import Sources
        from sebs_core.packaging.index import FileIndex

        session, platform = self._session, self._session.platform
        with session.stage("package", benchmark.name) as note:
            runtime = session.stages.call("sebs_runtime", benchmark=benchmark, config=config)
            sources = Sources(benchmark, config, runtime, session.plugins.language(config.language))
            inputs = sources.inputs(FileIndex(self._cache.database))
            package = None if rebuild else self._cache.package(platform, inputs.digest)
            if package is None:
                with self._cache.building(platform, inputs.digest, f"building the package of {benchmark.name}") as place:
                    package = None if rebuild else self._cache.package(platform, inputs.digest)
                    if package is None:
                        note.reason = "a rebuild was asked for" if rebuild else self._why(platform, benchmark, config, inputs)
                        package = self._build(sources, runtime, inputs, place, note.reason)
            note.reused = not note.reason
        return self._published(package)

    def _why(self, platform: str, benchmark: Benchmark, config: FunctionConfig, inputs: Inputs) -> str:
        before = self._cache.inputs(platform, variant_of(benchmark.name, config))
        if before is None:
            return "it was not built yet"
        return inputs.difference(before) or "its files are not in the cache any more"

    def _build(self, sources: Sources, runtime: Runtime, inputs: Inputs, place: Path, why: str) -> Package:
        from sebs_core.packaging import stage, unpinned

        session, benchmark = self._session, sources.benchmark
        loose = unpinned(sources.requirements, sources.constraints)
        if loose:
            session.notice(f"{benchmark.name} requires {', '.join(loose)} without a version: a later build may differ")
        dependencies = stage(sources, place / "code")
        if sources.inputs() != inputs:
            changed = sources.inputs().difference(inputs)
            raise PackagingError(f"{changed} while the package of {benchmark.name} was built: package it again")
        built: Package = session.stages.call("sebs_package", benchmark=benchmark, config=sources.config, folder=place / "code")
        told = {"inputs": inputs.digest, "why_rebuilt": why, "dependencies": dependencies, "entry_point": runtime.entry_point}
        return self._cache.keep_package(session.platform, built.model_copy(update=told), inputs)

    def _published(self, package: Package) -> Package:
        session = self._session
        if not session.lasting:
            published: Package = session.stages.call("sebs_publish", package=package)
            return published
        known = self._known(package)
        if known is not None:
            return known
        name = f"publish {session.platform} {session.account} {package.inputs}"
        doing = f"publishing the package of {package.benchmark}"
        with session.state.locks.held(name, doing, session.tell):
            known = self._known(package)
            if known is not None:
                return known
            with session.inventory.making(doing):
                published = session.stages.call("sebs_publish", package=package)
                if published.uri is not None:
                    published = published.model_copy(update={"resources_id": session.resources_id})
                    self._cache.keep_published(session.platform, session.account, published)
            return published

    def _known(self, package: Package) -> Package | None:
        """As it was published under this session's id: what was published under another one is removed with that one."""
        known = self._cache.published(self._session.platform, self._session.account, package)
        return known if known is not None and getattr(known, "resources_id", None) == self._session.resources_id else None


def variant_of(benchmark: str, config: FunctionConfig) -> str:
    """As `Package.variant`, before there is a package."""
    parts = (benchmark, config.language, config.language_version, config.language_variant, config.system_variant)
    return "/".join((*parts, config.architecture))
