"""``sebs resource``: list, remove, cleanup."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from sebs_core.cli.options import identity_options, json_option, option, platform_options
from sebs_core.cli.output import Progress, print_json, print_table
from sebs_core.session import connect
from sebs_core.state import State, default_state_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sebs_core.inventory import Removal
    from sebs_core.session import Session

__all__ = ["group"]


@click.group(name="resource")
def group() -> None:
    """See and remove what exists on a platform.

    What is shown is what the platform lists and what was written down when it was made.
    """


dry_run_option = option("--dry-run", is_flag=True, help="Only tell what would be removed.")


@group.command(name="list")
@platform_options
@identity_options
@option("--all", "everything", is_flag=True, help="What is written down of all platforms, accounts and ids. Asks no platform.")
@json_option
def list_resources(as_json: bool, everything: bool, **where: Any) -> None:
    """All resources of this id."""
    if everything:
        _list_everything(as_json=as_json)
        return
    with _opened(where) as session:
        holdings = session.resources()
        resources_id = session.resources_id
        others = _others(session)
    rows = [
        {
            "name": holding.resource.key,
            "kind": holding.resource.kind,
            "status": holding.status,
            "depends_on": list(holding.resource.depends_on),
            "resources_id": resources_id,
            "platform": holding.resource.platform,
        }
        for holding in holdings
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ["name", "status", "depends_on"])
    click.echo(others, err=True, nl=bool(others))


def _list_everything(*, as_json: bool) -> None:
    rows = [
        {
            "name": line.resource.key,
            "kind": line.resource.kind,
            "status": line.status,
            "depends_on": list(line.resource.depends_on),
            "resources_id": line.resource.resources_id,
            "platform": platform,
            "account": account,
        }
        for platform, account, line in State(default_state_folder()).lines()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ["platform", "account", "resources_id", "status", "name"])


def _others(session: Session) -> str:
    """What else is written down, so that it is not forgotten: of other ids, accounts, platforms."""
    own = (session.platform, session.account, session.resources_id)
    more = sum(number for *group, number in session.state.counts() if tuple(group) != own)
    return f"{more} more are written down of other ids, accounts or platforms: sebs resource list --all" if more else ""


@group.command()
@click.argument("keys", nargs=-1, required=True, metavar="KIND/NAME…")
@platform_options
@identity_options
@dry_run_option
@json_option
def remove(keys: tuple[str, ...], dry_run: bool, as_json: bool, **where: Any) -> int:
    """Remove these resources, as `sebs resource list` names them."""
    with _opened(where) as session:
        return _tell(session.remove(*keys, dry_run=dry_run), dry_run=dry_run, as_json=as_json)


@group.command()
@platform_options
@identity_options
@option("--kind", "kinds", multiple=True, help="Only resources of this kind, e.g. function. Repeatable.")
@dry_run_option
@json_option
def cleanup(kinds: tuple[str, ...], dry_run: bool, as_json: bool, **where: Any) -> int:
    """Remove all resources of this id, what uses others before them; run again to try again what failed."""
    with _opened(where) as session:
        status = _tell(session.cleanup(kinds=kinds, dry_run=dry_run), dry_run=dry_run, as_json=as_json)
        others = _others(session)
        click.echo(others, err=True, nl=bool(others))
        return status


@contextmanager
def _opened(where: dict[str, Any]) -> Iterator[Session]:
    progress = Progress()
    benchmarks, extensions = where.pop("folders"), where.pop("extensions")
    platform: str = where.pop("platform")
    cache_dir: Path | None = where.pop("cache_dir")
    try:
        with connect(
            platform, benchmarks=benchmarks, extensions=extensions, cache_dir=cache_dir, observers=[progress], **where
        ) as session:
            yield session
    finally:
        progress.stop()


def _tell(removals: Sequence[Removal], *, dry_run: bool, as_json: bool) -> int:
    outcomes = [
        {
            "name": removal.resource.key,
            "kind": removal.resource.kind,
            "outcome": _outcome(removal, dry_run=dry_run),
            "error": removal.error,
        }
        for removal in removals
    ]
    if as_json:
        print_json(outcomes)
    else:
        print_table(outcomes, ["name", "outcome", "error"])
    return 3 if any(removal.error for removal in removals) else 0


def _outcome(removal: Removal, *, dry_run: bool) -> str:
    if removal.error:
        return "failed"
    if dry_run:
        return "would be removed"
    return "removed" if removal.removed else "was gone"
