"""``sebs platform``: list, doctor, check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sebs_core.cli.options import assignments, json_option, option, settings_option, verbose_option
from sebs_core.cli.output import print_json, print_table
from sebs_core.errors import ConfigError
from sebs_core.settings import validated

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["group"]

WORDS = {True: "passed", False: "FAILED", None: "skipped"}


@click.group(name="platform")
def group() -> None:
    """List platforms, see what they need, and check their plugins."""


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


@group.command()
@click.argument("name")
@settings_option
@option(
    "--endpoint-setting", metavar="KEY", help="The setting with the address of the provider's emulator: each call is failed."
)
@option(
    "--other-set",
    "other_settings",
    multiple=True,
    metavar="KEY=VALUE",
    callback=assignments,
    help="A setting that differs in another account or region. Repeatable.",
)
@json_option
@verbose_option
def check(
    name: str, settings: dict[str, str], endpoint_setting: str | None, other_settings: dict[str, str], as_json: bool
) -> int:
    r"""Run the conformance checks for plugins on platform NAME. It deploys, invokes and removes small functions there.

    \b
    sebs platform check local
    sebs platform check mine --set endpoint=http://127.0.0.1:8080 --endpoint-setting endpoint
    """
    from sebs_core.plugins import installed

    validated(installed().platform(name)[0].settings, settings, f"the platform {name}")
    if endpoint_setting is not None and endpoint_setting not in settings:
        raise ConfigError(f"give the address of the emulator too: --set {endpoint_setting}=http://…")
    try:
        from sebs_core.testing.runner import Checked, Choice, check_platform
    except ModuleNotFoundError as error:
        if error.name != "pytest":
            raise
        raise ConfigError('the checks need pytest: pip install "sebs-core[testing]"') from None

    def tell(checked: Checked) -> None:
        click.echo(f"{WORDS[checked.ok]:<8} {checked.name} ({checked.seconds:.1f} s)", err=True)

    results = check_platform(Choice(name, dict(settings), endpoint_setting, dict(other_settings) or None), tell)
    rows = [
        {"name": one.name, "ok": one.ok, "seconds": round(one.seconds, 2), "found": one.found, "help": one.help}
        for one in results
    ]
    if as_json:
        print_json(rows)
    else:
        print_table([row | {"ok": WORDS[one.ok]} for row, one in zip(rows, results, strict=True)], ["name", "ok", "found"])
        for one in results:
            if one.ok is False:
                click.echo(f"\n{one.name}\n{one.help}")
        counts = [f"{sum(one.ok is ok for one in results)} {word}" for ok, word in WORDS.items()]
        click.echo(f"\n{name}: {', '.join(counts)}")
    return 0 if results and all(one.ok is not False for one in results) else 3
