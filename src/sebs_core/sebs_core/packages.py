"""The package of a benchmark: taken from the cache, or built; and published where the provider wants it first."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING

from sebs_core.errors import CacheError, PackagingError
from sebs_core.models import Inputs

if TYPE_CHECKING:
    from pathlib import Path

    from sebs_core.benchmark import Benchmark
    from sebs_core.models import FunctionConfig, Package, Runtime
    from sebs_core.packaging import Sources
    from sebs_core.packaging.index import FileIndex
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
            index = FileIndex(self._cache.database)
            inputs = self._inputs(sources, index)
            package = None if rebuild else self._intact(inputs, index)
            if package is None:
                with self._cache.building(platform, inputs.digest, f"building the package of {benchmark.name}") as place:
                    package = None if rebuild else self._intact(inputs, index)
                    if package is None:
                        note.reason = "a rebuild was asked for" if rebuild else self._why(platform, benchmark, config, inputs)
                        package = self._build(sources, runtime, inputs, place, note.reason)
            note.reused = not note.reason
            if note.reused:
                self._cache.keep_inputs(platform, package, inputs)
        return package

    def _inputs(self, sources: Sources, index: FileIndex | None = None) -> Inputs:
        """All that goes in, and whose code makes a package of it: installing something never changes what is measured."""
        who = ", ".join(self._session.stages.involved("sebs_runtime", "sebs_package"))
        settings = {f"setting {name}": json.dumps(value) for name, value in self._session.function_settings().items()}
        return Inputs(parts={**sources.inputs(index).parts, "built by": who, **settings})

    def _intact(self, inputs: Inputs, index: FileIndex) -> Package | None:
        """The package as it was kept; None when there is none, or when what lies there is not what was kept."""
        from sebs_core.packaging.index import artefact_digest

        package = self._cache.package(self._session.platform, inputs.digest)
        if package is None or artefact_digest(package.path, index) == package.artefact:
            return package
        self._session.notice(f"the package of {package.benchmark} in {package.path} was changed since it was built")
        return None

    def _why(self, platform: str, benchmark: Benchmark, config: FunctionConfig, inputs: Inputs) -> str:
        before = self._cache.inputs(platform, variant_of(benchmark.name, config))
        if before is None:
            return "it was not built yet"
        return inputs.difference(before) or "its files in the cache are gone or changed"

    def _build(self, sources: Sources, runtime: Runtime, inputs: Inputs, place: Path, why: str) -> Package:
        from sebs_core.packaging import stage, unpinned

        session, benchmark = self._session, sources.benchmark
        loose = unpinned(sources.requirements, sources.constraints)
        if loose:
            session.notice(f"{benchmark.name} requires {', '.join(loose)} without a version: a later build may differ")
        dependencies = stage(sources, place / "code")
        if self._inputs(sources) != inputs:
            changed = self._inputs(sources).difference(inputs)
            raise PackagingError(f"{changed} while the package of {benchmark.name} was built: package it again")
        built: Package = session.stages.call("sebs_package", benchmark=benchmark, config=sources.config, folder=place / "code")
        told = {"inputs": inputs.digest, "why_rebuilt": why, "dependencies": dependencies, "entry_point": runtime.entry_point}
        told |= {"digest": _identity(built, runtime)}
        return self._cache.keep_package(session.platform, built.model_copy(update=told), inputs)

    def published(self, package: Package) -> Package:
        """The package, with its address if the provider must hold it first; published unless it is known to be."""
        session = self._session
        if not session.lasting:
            published: Package = session.stages.call("sebs_publish", package=package)
            return published
        name = f"publish {session.platform} {session.account} {package.inputs}"
        doing = f"publishing the package of {package.benchmark}"
        with session.state.locks.held(name, doing, session.tell):
            known = self.as_published(package)
            if known.uri is not None:
                return known
            published = session.stages.call("sebs_publish", package=package)
            if published.uri is not None:
                published = published.model_copy(update={"published": self._epoch()})
                self._cache.keep_published(session.platform, session.account, published)
            return published

    def as_published(self, package: Package) -> Package:
        """The package as it was published in this account; without an address when that is not known. Publishes nothing."""
        session = self._session
        known = self._cache.published(session.platform, session.account, package) if session.lasting else None
        return known if known is not None and known.published == self._epoch() else package

    def forget_published(self) -> None:
        """After something was removed in this account, by whoever: what was published before may be gone."""
        session = self._session
        session.ledger.renew_publications()
        with contextlib.suppress(CacheError):  # their marker is out of date anyway
            self._cache.forget_published(session.platform, session.account)

    def _epoch(self) -> str:
        # With the id: what was published under another one is removed with that one.
        return f"{self._session.resources_id} {self._session.ledger.publications()}"


def _identity(package: Package, runtime: Runtime) -> str:
    """What runs, and how: the platform's digest of the folder says only the first."""
    parts = [package.digest, package.kind, runtime.entry_point, runtime.base_image, package.system_variant]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def variant_of(benchmark: str, config: FunctionConfig) -> str:
    """As `Package.variant`, before there is a package."""
    parts = (benchmark, config.language, config.language_version, config.language_variant, config.system_variant)
    return "/".join((*parts, config.architecture))
