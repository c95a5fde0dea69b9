"""``sebs benchmark``: list, invoke, package, collect, statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sebs_core.cli.options import (
    config_option,
    function_options,
    identity_options,
    json_option,
    option,
    platform_options,
    verbose_option,
)
from sebs_core.cli.output import Progress, print_json, print_summary, print_table
from sebs_core.confidential import hidden
from sebs_core.errors import ConfigError
from sebs_core.load import MOST_CLIENTS

if TYPE_CHECKING:
    from sebs_core.summary import Summary

__all__ = ["group"]


@click.group(name="benchmark")
def group() -> None:
    """List, invoke and package benchmarks; read their runs."""


@group.command(name="list")
@option(
    "--benchmarks",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder with benchmarks. Repeatable.",
)
@json_option
@verbose_option
def list_benchmarks(folders: tuple[Path, ...], as_json: bool) -> None:
    """All benchmarks that are installed, or lie in --benchmarks."""
    from sebs_core.benchmark import BrokenBenchmark, find_all
    from sebs_core.plugins import installed

    rows = []
    for benchmark in find_all([*folders, *installed().benchmark_folders()]):
        if isinstance(benchmark, BrokenBenchmark):
            rows.append({"name": benchmark.name, "description": "", "error": benchmark.error})
            continue
        row: dict[str, Any] = {"name": benchmark.name, "description": benchmark.config.description, "error": None}
        try:
            row["sizes"] = list(benchmark.sizes)
        except ConfigError as error:
            row["error"] = str(error)
        row |= {"languages": list(benchmark.config.languages), "workload_version": benchmark.config.workload_version}
        row |= {"memory_mb": benchmark.config.memory, "timeout_s": benchmark.config.timeout}
        rows.append(row)
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ["name", "languages", "sizes", "description", "error"])


@group.command()
@click.argument("name")
@click.argument("size", required=False)
@platform_options
@identity_options
@function_options
@option("--memory", "memory_mb", type=click.IntRange(1), help="MiB per instance. Default: the benchmark's.")
@option("--timeout", "timeout_s", type=float, help="Seconds per invocation. Default: the benchmark's.")
@option("--trigger", default="http", help="http or library.")
@option("--repetitions", default=5, type=click.IntRange(1), help="Measured invocations, of all clients together.")
@option("--concurrency", default=1, type=click.IntRange(1, MOST_CLIENTS), help="Clients that invoke at the same time.")
@option("--cold", is_flag=True, help="Every measured invocation meets a new instance: enforced and verified.")
@option("--warm", is_flag=True, help="Warm up instances first. Default without both: as it comes.")
@option(
    "--connections",
    type=click.Choice(["reused", "fresh"]),
    default="reused",
    help="Of the client, between invocations.",
)
@option("--payload", type=click.Path(path_type=Path), help="JSON file to send instead of an input of the benchmark.")
@option("--function-name", help="Name of the function on the platform.")
@option("--replace-inputs", is_flag=True, help="Make and store the inputs of the benchmark anew.")
@option(
    "--ignore-cached",
    multiple=True,
    type=click.Choice(["functions", "storage"]),
    help="Do not look for what was deployed or stored before. Repeatable.",
)
@option("--no-check-outputs", is_flag=True, help="Do not check what the function returns.")
@option("--keep-outputs", is_flag=True, help="Keep every answer in the run's directory.")
@option(
    "--metrics",
    type=click.Choice(["now", "later", "none"]),
    default="now",
    help="When to ask the platform for its numbers.",
)
@option("--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Where runs are written. Default: runs")
@json_option
def invoke(
    name: str,
    size: str | None,
    platform: str,
    folders: tuple[Path, ...],
    extensions: tuple[str, ...],
    settings: dict[str, Any],
    cache_dir: Path | None,
    resource_prefix: str | None,
    resources_id: str | None,
    ignore_cached: tuple[str, ...],
    output_dir: Path | None,
    repetitions: int,
    concurrency: int,
    cold: bool,
    warm: bool,
    payload: Path | None,
    no_check_outputs: bool,
    as_json: bool,
    **run: Any,
) -> int:
    """Package, deploy and invoke benchmark NAME with inputs of SIZE (test, small, large), and measure it."""
    from sebs_core.load import Closed
    from sebs_core.result import Result
    from sebs_core.session import connect

    if payload is not None:
        run["payload"] = _payload(payload)
    progress = Progress()
    start = _start(cold=cold, warm=warm)
    load = Closed(concurrency=concurrency, repetitions=repetitions)
    try:
        with connect(
            platform,
            extensions=extensions,
            benchmarks=folders,
            cache_dir=cache_dir,
            resource_prefix=resource_prefix,
            resources_id=resources_id,
            ignore_cached=ignore_cached,
            output_dir=output_dir,
            observers=[progress],
            settings=settings,
        ) as session:
            benchmark = session.benchmark(Path(name) if _is_folder(name) else name)
            result = session.run(benchmark, size, load=load, start=start, check_outputs=not no_check_outputs, **run)  # type: ignore[arg-type]
            summary = result.summary()
            _explain_failures(session, result, summary)
    except KeyboardInterrupt:
        progress.stop()
        if progress.directory:
            click.echo("interrupted; what was measured until then:", err=True)
            _print(Result.load(progress.directory).summary(), as_json=as_json)
        raise
    finally:
        progress.stop()
    _print(summary, as_json=as_json)
    return _status(summary)


@group.command()
@click.argument("name")
@platform_options
@function_options
@json_option
def package(
    name: str,
    platform: str,
    folders: tuple[Path, ...],
    extensions: tuple[str, ...],
    settings: dict[str, Any],
    cache_dir: Path | None,
    as_json: bool,
    **config: Any,
) -> None:
    """Build the package of benchmark NAME and deploy nothing."""
    from sebs_core.session import connect

    progress = Progress()
    try:
        with connect(
            platform, extensions=extensions, benchmarks=folders, cache_dir=cache_dir, observers=[progress], settings=settings
        ) as session:
            built = session.package(Path(name) if _is_folder(name) else name, **config)
    finally:
        progress.stop()
    if as_json:
        print_json(built.model_dump(mode="json"))
        return
    print_table(
        [
            {
                "package": built.digest[:16],
                "kind": built.kind,
                "size": f"{built.size_bytes / 1e6:.2f} MB",
                "language": f"{built.language} {built.language_version}",
                "dependencies": [f"{key} {value}" for key, value in built.dependencies.items()],
                "built because": built.why_rebuilt,
                "path": str(built.path),
            }
        ],
        ["package", "kind", "size", "language", "dependencies", "built because", "path"],
    )


@group.command()
@click.argument("run", type=click.Path(path_type=Path))
@json_option
@verbose_option
@config_option
def statistics(run: Path, as_json: bool) -> int:
    """Figures of a RUN, a directory that invoke wrote."""
    from sebs_core.result import Result

    summary = Result.load(run).summary()
    _print(summary, as_json=as_json)
    return _status(summary)


def _collect(run: Path, as_json: bool) -> int:
    """Ask the platform (again) for its own numbers of a RUN."""
    from sebs_core.result import Result

    result = Result.load(run)
    result.collect_metrics()
    return int(statistics.callback(run=run, as_json=as_json))  # type: ignore[misc]


for alias in ("collect", "process"):
    command = click.argument("run", type=click.Path(path_type=Path))(json_option(verbose_option(_collect)))
    group.command(name=alias, hidden=alias == "process")(command)


def _start(*, cold: bool, warm: bool) -> str:
    """Of both, the one that was said nearer to the user: on the command line before in the environment before in a file."""
    if cold and warm:
        source = click.get_current_context().get_parameter_source
        ranks = [list(ParameterSource).index(source(name) or ParameterSource.DEFAULT) for name in ("cold", "warm")]
        if ranks[0] == ranks[1]:
            raise ConfigError("--cold and --warm exclude each other: choose one")
        return "cold" if ranks[0] < ranks[1] else "warm"
    return "cold" if cold else "warm" if warm else "any"


def _is_folder(name: str) -> bool:
    return "/" in name or name in (".", "..")


def _payload(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the payload {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the payload {path} is not JSON: {error}") from None


def _print(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        print_summary(summary)


def _status(summary: Summary) -> int:
    return 1 if summary.failures or summary.outputs_ok is False else 0


def _explain_failures(session: Any, result: Any, summary: Summary) -> None:
    """Of the first failure and the first wrong output: what was said, and what the function printed."""
    from sebs_core.errors import SebsError

    if not summary.failures and summary.outputs_ok is not False:
        return
    table = result.invocations
    columns = {n: table[n].to_pylist() for n in ("index", "error", "error_detail", "output_problem", "request_id", "phase")}
    for place, index in enumerate(columns["index"]):
        what = columns["error"][place] or (columns["output_problem"][place] and "wrong output")
        if columns["phase"][place] != "measured" or not what:
            continue
        detail = columns["error_detail"][place] or columns["output_problem"][place]
        click.echo(hidden(f"invocation {index} failed: {what}: {detail}"), err=True)
        if columns["request_id"][place]:
            try:
                printed = session.logs(result.manifest.function, columns["request_id"][place])
            except SebsError as error:
                printed = f"(no log: {error})"
            if printed.strip():
                click.echo("the function printed (end):\n" + "\n".join(hidden(printed).rstrip().splitlines()[-15:]), err=True)
        return
