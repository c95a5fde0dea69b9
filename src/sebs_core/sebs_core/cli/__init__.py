"""The command line: ``sebs``.

Exit status: 0 all well; 1 invocations failed or outputs were wrong; 2 wrong usage or configuration; 3 the platform or this
machine could not do it; 130 interrupted.
"""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING, ClassVar

import click

from sebs_core import __version__
from sebs_core.confidential import hidden
from sebs_core.errors import SebsError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["cli", "run"]


class LazyGroup(click.Group):
    """Imports a group of commands when it is used, so that ``sebs --help`` is quick."""

    known: ClassVar[dict[str, tuple[str, str]]] = {
        "benchmark": ("sebs_core.cli.benchmark", "List, invoke and package benchmarks; read their runs."),
        "cache": ("sebs_core.cli.cache", "See and remove what is kept between sessions and can be made again."),
        "platform": ("sebs_core.cli.platform", "List platforms and see what they need."),
        "plugin": ("sebs_core.cli.plugin", "List installed plugins, begin one of your own."),
        "resource": ("sebs_core.cli.resource", "See and remove what exists on a platform."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.known})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.known:
            import importlib

            group: click.Command = importlib.import_module(self.known[cmd_name][0]).group
            return group
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = super().get_command(ctx, name) if name not in self.known else None
            rows.append((name, self.known[name][1] if command is None else command.get_short_help_str()))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sebs")
def cli() -> None:
    """Measure serverless platforms: package, deploy, invoke, collect metrics."""


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    logging.captureWarnings(True)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Discreet("%(levelname)s: %(message)s"))
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        from sebs_core.plugins import installed

        installed().add_commands(cli)
        status = cli.main(args=arguments, prog_name="sebs", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except SebsError as error:
        click.echo(f"error: {hidden(str(error))}", err=True)
        return error.exit_status
    except SystemExit as stop:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
            return 141  # click's answer to a reader that has left; as a shell reports SIGPIPE
        return stop.code if isinstance(stop.code, int) else 3
    except OSError as error:
        click.echo(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", err=True)
        return 3
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected", exc_info=True)
        told = hidden(f"{type(error).__name__}: {error}")
        click.echo(f"error: a defect in sebs or in a plugin: {told} (-v shows where)", err=True)
        return 3
    return status if isinstance(status, int) else 0


class _Discreet(logging.Formatter):
    """Whatever an SDK logs, secrets of ours are not shown."""

    def format(self, record: logging.LogRecord) -> str:
        return hidden(super().format(record))


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
