"""``sebs plugin``: list."""

from __future__ import annotations

import click

from sebs_core.cli.options import json_option, verbose_option
from sebs_core.cli.output import print_json, print_table

__all__ = ["group"]


@click.group(name="plugin")
def group() -> None:
    """List installed plugins."""


@group.command(name="list")
@json_option
@verbose_option
def list_plugins(as_json: bool) -> None:
    """All installed plugins, also those that cannot be loaded, and what each implements."""
    from sebs_core.plugins import DISCOVERY, STAGES, installed

    rows = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "hooks": [hook for hook in (*DISCOVERY, *STAGES) if hasattr(plugin.module, hook)],
            "error": plugin.error,
        }
        for plugin in installed().installed
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ["name", "distribution", "version", "hooks", "error"])
