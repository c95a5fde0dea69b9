"""Options that several commands share. Each is also one environment variable, ``SEBS_`` and its name.

Order of precedence: command line, environment, ``--config`` file, default.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sebs_core.errors import ConfigError

__all__ = [
    "assignments",
    "config_option",
    "function_options",
    "identity_options",
    "json_option",
    "option",
    "platform_options",
    "read_config",
    "settings_option",
    "verbose_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def option(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """A click option with its environment variable and its default shown."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    settings.setdefault("envvar", "SEBS_" + long.removeprefix("--").replace("-", "_").upper())
    settings.setdefault("show_default", settings.get("default") is not None)
    settings.setdefault("show_envvar", True)
    return click.option(*names, **settings)


def assignments(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` texts as a mapping; for options that are given several times."""
    pairs = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE")
        pairs[key.replace("-", "_")] = text
    return pairs


def read_config(path: Path) -> dict[str, Any]:
    """A TOML, JSON or YAML file of options by their long names; `ConfigError` says what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            values = json.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            values = _yaml(text)
        else:
            values = _toml(text)
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"the configuration {path} is not valid: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"the configuration {path} must hold options by name")
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def _toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError("YAML needs one more package: pip install pyyaml (TOML and JSON need none)") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _use_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    values = read_config(path)
    known: dict[str, str] = {}
    for parameter in ctx.command.params:
        if isinstance(parameter, click.Option) and parameter.name:
            known[parameter.name] = parameter.name
            known |= {name.lstrip("-").replace("-", "_"): parameter.name for name in parameter.opts}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"the configuration {path} has no option {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    if isinstance(values.get("set"), dict):
        values["set"] = [f"{key}={value}" for key, value in values["set"].items()]
    ctx.default_map = {**(ctx.default_map or {}), **{known[key]: value for key, value in values.items()}}


def _be_verbose(_ctx: click.Context, _param: click.Parameter, count: int) -> None:
    if count:
        logging.getLogger().setLevel(logging.DEBUG if count > 1 else logging.INFO)
        logging.getLogger("sebs_core").setLevel(logging.DEBUG)


json_option = option("--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr.")
verbose_option = option(
    "-v", "--verbose", count=True, expose_value=False, is_eager=True, callback=_be_verbose, help="Say more (-vv: all)."
)
settings_option = option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    callback=assignments,
    help="A setting of the platform. Repeatable.",
)
config_option = option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    expose_value=False,
    is_eager=True,
    callback=_use_config,
    help="TOML, JSON or YAML file with options by name.",
)


def platform_options(command: Command) -> Command:
    """What every command needs that opens a platform or looks for benchmarks."""
    for decorate in (
        option("--cache-dir", type=click.Path(path_type=Path, file_okay=False), help="Where packages are kept and looked for."),
        option("--extension", "extensions", multiple=True, help="Let this extension replace stages. Repeatable."),
        settings_option,
        option("--platform", default="local", help="Where to run."),
        option("--benchmarks", "folders", multiple=True, type=click.Path(path_type=Path),
               help="A folder with benchmarks, looked at first. Repeatable."),
        config_option,
        verbose_option,
    ):  # fmt: skip
        command = decorate(command)
    return command


def identity_options(command: Command) -> Command:
    """Under which id a session makes and finds what it makes."""
    for decorate in (
        option("--resources-id", help="Use exactly this id in the names of all resources."),
        option("--resource-prefix", help="Use the id on the platform that begins so, or make one."),
    ):
        command = decorate(command)
    return command


def function_options(command: Command) -> Command:
    """How a function is built."""
    for decorate in (
        option("--rebuild", is_flag=True, help="Build and deploy anew, resolving the dependencies again."),
        option("--architecture", type=click.Choice(["x64", "arm64"]), help="Default: the platform's own."),
        option("--system-variant", help="How the platform takes the function: package, container, …"),
        option("--language-variant", default="default", help="Implementation of the language."),
        option("--language-version", help="Default: the platform's own."),
        option("--language", default="python"),
    ):
        command = decorate(command)
    return command
