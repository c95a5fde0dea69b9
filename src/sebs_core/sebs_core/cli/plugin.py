"""``sebs plugin``: list, new."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click

import sebs_core
from sebs_core.cli.options import json_option, option, verbose_option
from sebs_core.cli.output import print_json, print_table
from sebs_core.errors import ConfigError, StorageError

__all__ = ["group"]

TEMPLATE = Path(sebs_core.__file__).parent / "testing" / "template"
TEMPLATE_NAME = "skylark"
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "dist", "build", "*.egg-info")


@click.group(name="plugin")
def group() -> None:
    """List installed plugins, begin one of your own."""


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


@group.command()
@click.argument("name")
@option("--directory", type=click.Path(path_type=Path), help="Where to write it. Default: sebs-NAME here.")
@verbose_option
def new(name: str, directory: Path | None) -> None:
    """Write a complete plugin for a platform NAME, with an emulator of a provider and its tests, to begin from."""
    if not re.fullmatch(r"[a-z][a-z0-9]{1,30}", name):
        raise ConfigError(f"{name!r} cannot be the name of a platform: use 2 to 31 small letters and digits, a letter first")
    target = directory or Path(f"sebs-{name}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists already: choose another --directory")
    try:
        shutil.copytree(TEMPLATE, target, ignore=LEFT_OUT, dirs_exist_ok=True)
        for path in sorted(target.rglob("*"), reverse=True):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                path.write_text(_renamed(text, name), encoding="utf-8")
            if TEMPLATE_NAME in path.name:
                path.rename(path.with_name(_renamed(path.name, name)))
    except OSError as error:
        raise StorageError(f"the plugin could not be written to {target}: {error.strerror or error}") from error
    click.echo(f"wrote {target}. Next: read {target / 'README.md'}, then\n")
    click.echo(f"  pip install -e {target} pytest && pytest {target}")


def _renamed(text: str, name: str) -> str:
    for word in (str.lower, str.capitalize, str.upper):
        text = text.replace(word(TEMPLATE_NAME), word(name))
    return text
