"""Options that several commands share, made from the configuration."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from plainchant.cli.console import Console
from plainchant.config import PerformanceOptions, SynthesisConfig, load_config
from plainchant.errors import ConfigError


def formatted(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --format; hands a `Console` to the command."""

    @click.option(
        "--format",
        "style",
        type=click.Choice(["human", "json", "quiet"]),
        default="human",
        show_default=True,
        help="Tables and progress, one JSON document, or the bare result.",
    )
    @functools.wraps(command)
    def wrapped(style: str, **values: Any) -> Any:
        return command(Console(style), **values)

    return wrapped


_SHARED_FIRST = [
    "method",
    "epsilon",
    "delta",
    "model",
    "embedder",
    "public_corpus",
    "text_column",
    "label_column",
    "labels",
    "unit_column",
    "texts",
    "max_tokens",
    "batch_size",
    "temperature",
    "guidance",
    "support",
    "centres",
    "kept",
]


def _help_of(field: Any, default: Any) -> str:
    text = (field.description or "").replace("\n", " ")
    return text if default in (None, ()) else f"{text}  [default: {getattr(default, 'value', default)}]"


def with_configuration(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds CONFIG and every configuration field as an option; hands a `SynthesisConfig` to the command."""
    fields = {name: field for name, field in SynthesisConfig.model_fields.items() if name != "prompt"}
    names = _SHARED_FIRST + [name for name in fields if name not in _SHARED_FIRST]

    @click.argument("config_file", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
    @functools.wraps(command)
    def wrapped(console: Console, config_file: Path | None, **values: Any) -> Any:
        own = {name: values.pop(name) for name in names}
        overrides = {name: _parsed(name, value) for name, value in own.items() if value is not None}
        if config_file is None and values.get("resume"):
            from plainchant.run.store import RunDirectory

            config_file = RunDirectory.open(values["out"]).path / "config.toml"
        return command(console, load_config(config_file, overrides), **values)

    for name in reversed(names):
        option = click.option(
            f"--{name.replace('_', '-')}",
            name,
            metavar="VALUE",
            envvar=f"PLAINCHANT_{name.upper()}",
            help=_help_of(fields[name], fields[name].default),
        )
        wrapped = option(wrapped)
    return wrapped


def _parsed(name: str, value: str) -> Any:
    if name == "labels":
        return tuple(label.strip() for label in value.split(",") if label.strip())
    # a number where the field may hold either a number or a word
    return int(value) if name in ("centres", "kept", "batch_size") and value.lstrip("-").isdigit() else value


def with_performance(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that cannot change the guarantee; hands `PerformanceOptions` to the command."""
    fields = PerformanceOptions.model_fields

    @functools.wraps(command)
    def wrapped(*args: Any, **values: Any) -> Any:
        own = {name: values.pop(name) for name in fields}
        try:
            options = PerformanceOptions(**{name: value for name, value in own.items() if value is not None})
        except ValueError as error:
            wrong = ", ".join(f"{name} = {value}" for name, value in own.items() if value is not None)
            raise ConfigError(f"{wrong}: not possible; see --help") from error
        return command(*args, performance=options, **values)

    for name, field in reversed(fields.items()):
        option = f"--{name.replace('_', '-')}"
        wrapped = click.option(option, name, metavar="VALUE", help=_help_of(field, field.default))(wrapped)
    return wrapped


REAL = click.option(
    "--real",
    type=click.Path(path_type=Path),
    required=True,
    help="The real table, as for run --data; it is split in two halves for training and testing.",
)
LIMIT = click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=5_000,
    show_default=True,
    help="So many real texts are looked at, at most, drawn at random.",
)
