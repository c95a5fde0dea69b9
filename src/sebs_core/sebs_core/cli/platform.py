"""``sebs platform``: list, doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sebs_core.cli.options import json_option, settings_option, verbose_option
from sebs_core.cli.output import print_json, print_table
from sebs_core.errors import ConfigError
from sebs_core.settings import validated

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["group"]


@click.group(name="platform")
def group() -> None:
    """List platforms and see what they need."""


@group.command(name="list")
@json_option
@verbose_option
def list_platforms(as_json: bool) -> None:
    """All platforms that installed plugins offer."""
    import sebs_core
    from sebs_core.plugins import InstalledPlugin

    rows: list[dict[str, Any]] = []
    for info in sebs_core.platforms():
        if isinstance(info, InstalledPlugin):
            rows.append({"name": info.name, "summary": "", "languages": [], "triggers": [], "error": info.error})
            continue
        can = info.capabilities
        rows.append(
            {
                "name": info.name,
                "summary": info.summary,
                "languages": [f"{e.language} {version}" for e in can.languages for version in e.versions],
                "triggers": list(can.triggers),
                "cold_start": can.cold_start,
                "settings": info.settings.model_json_schema().get("properties", {}),
                "error": None,
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ["name", "summary", "languages", "triggers", "error"])


@group.command()
@click.argument("name", required=False)
@settings_option
@json_option
@verbose_option
def doctor(name: str | None, settings: dict[str, str], as_json: bool) -> int:
    """Check what platform NAME (all, if none is given) needs on this machine, and say how to mend it."""
    from sebs_core.plugins import installed

    plugins = installed()
    infos = [plugins.platform(name)[0]] if name else plugins.platforms()
    rows = []
    for info in infos:
        checks: Sequence[tuple[str, bool, str]]
        try:
            made = validated(info.settings, settings if name else {}, f"the platform {info.name}")
            checks = info.doctor(made) if info.doctor else [("checks", True, "this platform has none of its own")]
        except ConfigError as error:
            checks = [("settings", False, f"{error} (--set KEY=VALUE)")]
        rows += [{"name": info.name, "check": check, "ok": ok, "found": found} for check, ok, found in checks]
    for plugin in plugins.installed:
        if plugin.error and not name:
            rows.append({"name": plugin.name, "check": "plugin loads", "ok": False, "found": plugin.error})
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ["name", "check", "ok", "found"])
    return 0 if all(row["ok"] for row in rows) else 3
