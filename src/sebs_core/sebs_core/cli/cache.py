"""``sebs cache``: list, show, clear, prune."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import click

from sebs_core.cache import Cache, Sweep, default_cache_folder
from sebs_core.cli.options import config_option, json_option, option, verbose_option
from sebs_core.cli.output import print_json, print_table
from sebs_core.errors import ConfigError

__all__ = ["group"]

cache_option = option("--cache-dir", type=click.Path(path_type=Path, file_okay=False), help="Default: the user's.")


@click.group(name="cache")
def group() -> None:
    """See and remove what is kept between sessions and can be made again.

    What exists on a platform is not here: sebs resource.
    """


@group.command(name="list")
@option("--platform", help="Only of this platform.")
@cache_option
@json_option
@config_option
@verbose_option
def list_entries(platform: str | None, cache_dir: Path | None, as_json: bool) -> None:
    """All records, with their sizes on disk."""
    cache = _cache(cache_dir)
    rows: list[dict[str, Any]] = []
    for entry in cache.entries(platform=platform):
        row: dict[str, Any] = {"name": entry.key, "kind": entry.kind, "platform": entry.platform}
        row |= {"account": entry.account or None, "benchmark": entry.benchmark}
        row |= {"size_bytes": entry.size_bytes, "size": readable(entry.size_bytes)}
        rows.append(row | {"created": _moment(entry.created_ns), "modified": _moment(entry.modified_ns)})
    if as_json:
        print_json(rows)
        return
    print_table(rows, ["size", "modified", "benchmark", "name"])
    click.echo(f"{readable(sum(row['size_bytes'] for row in rows))} in {cache.folder}", err=True)


@group.command()
@click.argument("key")
@cache_option
@config_option
@verbose_option
def show(key: str, cache_dir: Path | None) -> None:
    """The record of KEY, or of the only one that begins with KEY, as JSON."""
    cache = _cache(cache_dir)
    entries = cache.entries()
    found = [entry for entry in entries if entry.key == key] or [entry for entry in entries if entry.key.startswith(key)]
    if not found:
        raise ConfigError(f"the cache {cache.folder} has no record {key!r}: `sebs cache list` shows all")
    if len(found) > 1:
        raise ConfigError(f"{key!r} begins {len(found)} records: {', '.join(entry.key for entry in found[:5])}, …")
    try:
        print_json(json.loads(found[0].record))
    except ValueError:
        click.echo("this record is damaged, and counts as absent", err=True)
        click.echo(found[0].record)


@group.command()
@option("--platform", help="Only what belongs to this platform.")
@cache_option
@json_option
@config_option
@verbose_option
def clear(platform: str | None, cache_dir: Path | None, as_json: bool) -> None:
    """Remove everything. Nothing on a platform is touched; the next session builds and deploys anew."""
    _tell(_cache(cache_dir).clear(platform), as_json=as_json)


@group.command()
@cache_option
@json_option
@config_option
@verbose_option
def prune(cache_dir: Path | None, as_json: bool) -> None:
    """Remove what nothing needs: packages that newer builds replaced and no function uses, left-overs of crashes."""
    _tell(_cache(cache_dir).prune(), as_json=as_json)


def readable(size: int) -> str:
    """Bytes for people: ``1.4 MB``."""
    amount, unit = float(size), "B"
    for bigger in ("kB", "MB", "GB"):
        if amount >= 1000:
            amount, unit = amount / 1000, bigger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _cache(folder: Path | None) -> Cache:
    cache = Cache(folder or default_cache_folder())
    click.get_current_context().call_on_close(cache.close)
    return cache


def _tell(sweep: Sweep, *, as_json: bool) -> None:
    if as_json:
        print_json({"records": sweep.records, "freed_bytes": sweep.freed_bytes, "in_use": list(sweep.in_use)})
        return
    click.echo(f"removed {sweep.records} records, freed {readable(sweep.freed_bytes)}")
    if sweep.in_use:
        click.echo(f"{len(sweep.in_use)} packages stay because a session uses them", err=True)


def _moment(epoch_ns: int) -> str:
    return datetime.datetime.fromtimestamp(epoch_ns / 1e9, datetime.timezone.utc).isoformat(timespec="seconds")
