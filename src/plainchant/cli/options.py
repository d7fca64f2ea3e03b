"""Options that several commands share: made from the configuration, shown in sections."""

import enum
import functools
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from plainchant.cli import terminal
from plainchant.cli.console import Console, keep_log
from plainchant.config import (
    FIELD_GROUPS,
    Parts,
    PerformanceOptions,
    SynthesisConfig,
    group_of,
    load_config,
    split_labels,
)
from plainchant.errors import ConfigError

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any, Any]
else:
    _ParamType = click.ParamType  # older versions of click have no parameters here

# Bounds that the configuration checks in code, as help shows them.
_CHECKED = {
    "epsilon": "1e-9<=X<=1e9", "delta": "1e-100<=X<=0.99",
    "batch_size": "N>=1", "kept": "N>=1", "centres": "N>=1", "clip": "1e-6<=X<=1e6",
}  # fmt: skip
_FREE_TEXT = {
    "labels": "LABEL,LABEL,...",
    "model": "NAME|DIRECTORY",
    "embedder": "NAME|DIRECTORY",
    "candidate_model": "NAME|DIRECTORY",
    "candidate_endpoint": "URL",
    "public_corpus": "FILE",
    "encoding": "ENCODING",
    "separator": "CHARACTER",
    "device": "DEVICE",
    "ray_address": "ADDRESS",
    "name": "NAME",
    "holder": "NAME",
    "license": "ID",
    "language": "CODE,CODE,...",
}


class GroupedOption(click.Option):
    """An option in a named section of the help page."""

    def __init__(self, *args: Any, group: str = "Options", **values: Any):
        super().__init__(*args, **values)
        self.group = group

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        # the bounds already stand where the value does
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class GroupedCommand(click.Command):
    """A command whose help page has its options in sections, in the order in which they are declared."""

    def get_help(self, ctx: click.Context) -> str:
        # click writes UTF-8 to a terminal that says it knows ASCII only
        return terminal.degraded(super().get_help(ctx), sys.stdout)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "group", "Help"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


command = functools.partial(click.command, cls=GroupedCommand)
option = functools.partial(click.option, cls=GroupedOption)


class Labels(_ParamType):
    """Labels with commas between them."""

    name = "labels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return split_labels(value)


class WordOr(_ParamType):
    """One of a few words, or else a value of another type."""

    name = "value"

    def __init__(self, words: tuple[str, ...], other: _ParamType):
        self.words = words
        self.other = other

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self.words:
            return value
        try:
            float(value)
        except ValueError:
            self.fail(f"{value!r} is neither {' nor '.join(self.words)} nor a number", param, ctx)
        return self.other.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


class CountOrFile(_ParamType):
    """A whole number, or else auto or the path of a file."""

    name = "count or file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        return int(text) if text.lstrip("-").isdigit() else text


def _kinds(annotation: Any) -> Iterator[tuple[Any, list[Any]]]:
    """The members of a union other than None, each with the bounds written beside it."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _kinds(member)
    elif typing.get_origin(annotation) is typing.Annotated:
        kind, *notes = typing.get_args(annotation)
        yield kind, [bound for note in notes for bound in getattr(note, "metadata", [note])]
    elif annotation is not types.NoneType:
        yield annotation, []


class _Range:
    """The bounds of a number, for click and for people."""

    SIGNS: ClassVar = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

    def __init__(self, bounds: list[Any]):
        self._bounds = {
            sign: getattr(bound, sign) for bound in bounds for sign in self.SIGNS if hasattr(bound, sign)
        }  # fmt: skip

    def type(self, kind: type) -> _ParamType:
        low = self._bounds.get("gt", self._bounds.get("ge"))
        high = self._bounds.get("lt", self._bounds.get("le"))
        if low is None and high is None:
            return click.INT if kind is int else click.FLOAT
        if kind is int:
            return click.IntRange(low, high)
        return click.FloatRange(low, high, min_open="gt" in self._bounds, max_open="lt" in self._bounds)

    def shown(self, letter: str) -> str:
        low = [f"{self._bounds[name]:g}<{'=' * (name == 'ge')}" for name in ("ge", "gt") if name in self._bounds]
        high = [f"{self.SIGNS[name]}{self._bounds[name]:g}" for name in ("le", "lt") if name in self._bounds]
        if low and high:
            return f"{low[0]}{letter}{high[0]}"
        only = [f"{sign}{self._bounds[name]:g}" for name, sign in self.SIGNS.items() if name in self._bounds]
        return letter + "".join(only)


def value_type(name: str, field: Any) -> tuple[_ParamType, str]:
    """The click type of a configuration field, and what help shows for its value: choices, bounds or a word."""
    if name in ("labels", "centres"):
        return (Labels(), _FREE_TEXT[name]) if name == "labels" else (CountOrFile(), f"[auto|{_CHECKED[name]}|FILE]")
    words: list[str] = []
    number: tuple[_ParamType, str] | None = None
    for kind, bounds in _kinds(field.annotation):
        if typing.get_origin(kind) is typing.Literal:
            words += typing.get_args(kind)
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            words += [str(member.value) for member in kind]
        elif kind in (int, float):
            limits = _Range([*bounds, *field.metadata])
            number = limits.type(kind), _CHECKED.get(name) or limits.shown("N" if kind is int else "X")
    if words and number:
        return WordOr(tuple(words), number[0]), f"[{'|'.join(words)}|{number[1]}]"
    if words:
        return click.Choice(words), f"[{'|'.join(words)}]"
    if number:
        return number
    kind_of_file = click.Path(path_type=str) if _FREE_TEXT.get(name) == "FILE" else click.STRING
    return kind_of_file, _FREE_TEXT.get(name, "COLUMN" if name.endswith("_column") else "TEXT")


def described(name: str, field: Any) -> str:
    """The description of a field with its default."""
    text = (field.description or "").replace("\n", " ")
    if field.default is None:
        return f"{text}  [default: set by the method]" if name in Parts.model_fields else text
    return text if field.default == () else f"{text}  [default: {plain_default(field.default)}]"


def plain_default(default: Any) -> str:
    """A default as it would be typed."""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(getattr(default, "value", default))


def environment_name(name: str) -> str:
    """The environment variable of a field."""
    return f"PLAINCHANT_{name.upper()}"


def field_option(model: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option of a configuration field: its type, choices, bounds, section and environment variable."""
    field, long_name = model.model_fields[name], name.replace("_", "-")
    if bool in [kind for kind, _ in _kinds(field.annotation)]:
        return option(
            f"--{long_name}/--no-{long_name}",
            name,
            default=None,
            envvar=environment_name(name),
            group=group_of(name),
            help=described(name, field),
        )
    kind, metavar = value_type(name, field)
    return option(
        f"--{long_name}",
        name,
        type=kind,
        metavar=metavar,
        envvar=environment_name(name),
        group=group_of(name),
        help=described(name, field),
    )


def _with_fields(model: Any, names: list[str], command: Callable[..., Any]) -> Callable[..., Any]:
    for name in reversed(names):
        command = field_option(model, name)(command)
    return command


STYLES = ("human", "json", "quiet")
style_option = option(
    "--format",
    "style",
    type=click.Choice(STYLES),
    group="Output",
    help="Tables and progress, one JSON document, or the bare result; also before the command.  [default: human]",
)


verbose_option = option(
    "-v", "--verbose", is_flag=True, group="Output", help="Show the numbers for experts too; also before the command."
)
log_option = option(
    "--log-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Output",
    help="Append what is said on stderr to this file, with the time; keep it private. Also before the command.",
)


def with_output(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --format, -v and --log-file."""
    return style_option(verbose_option(log_option(command)))


def formatted(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of output, which may also stand before the command; hands a `Console` to the command."""

    @with_output
    @functools.wraps(command)
    def wrapped(style: str | None, verbose: bool, log_file: Path | None, **values: Any) -> Any:
        before = click.get_current_context().find_root().params
        if (path := log_file or before.get("log_file")) is not None:
            keep_log(path)
        style = style or before.get("style") or "human"
        return command(Console(style, verbose=verbose or bool(before.get("verbose"))), **values)

    return wrapped


# tables of the file, which no option can hold
TABLES = ("prompt", "columns")
_FIELDS = [name for name in SynthesisConfig.model_fields if name not in TABLES]
OPTION_NAMES = [name for names in FIELD_GROUPS.values() for name in names if name in _FIELDS]
OPTION_NAMES += [name for name in _FIELDS if name not in OPTION_NAMES]


_LABELS_FILE = option(
    "--labels-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Data",
    help="File with the labels, one per line: for many of them, or where they hold commas.",
)
# More lines than this are no label set.
_MOST_LABELS = 10_000


def _labels_of(path: Path) -> tuple[str, ...]:
    """The labels in a file, one per line; blank lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"labels_file = {path}: cannot be read ({error.strerror}); name a readable file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"labels_file = {path}: is not UTF-8 text; save it as UTF-8") from None
    labels = tuple(line.strip() for line in lines if line.strip())
    if not 1 <= len(labels) <= _MOST_LABELS:
        raise ConfigError(f"labels_file = {path}: has {len(labels)} labels; give 1 to {_MOST_LABELS:,}, one per line")
    return labels


# Fields that say what is promised and to whom: a variable that was left in the environment must not change them unseen.
_PROMISE = ("method", "epsilon", "delta", "unit_column", "accounting")


def _note_environment(console: Console, given: Mapping[str, Any]) -> None:
    """Says which fields of the promise the environment sets, in place of a file or a default."""
    context = click.get_current_context()
    for name in _PROMISE:
        if name in given and context.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
            console.warn(f"{name} = {plain_default(given[name])} is taken from {environment_name(name)}")


def with_configuration(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds CONFIG and every configuration field as an option; hands a `SynthesisConfig` to the command."""

    @click.argument("config_file", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
    @functools.wraps(command)
    def wrapped(console: Console, config_file: Path | None, labels_file: Path | None, **values: Any) -> Any:
        own = {name: values.pop(name) for name in OPTION_NAMES}
        overrides = {name: value for name, value in own.items() if value is not None}
        _note_environment(console, overrides)
        if labels_file is not None:
            if "labels" in overrides:
                raise ConfigError("labels, labels_file: give the labels in one of the two")
            overrides["labels"] = _labels_of(labels_file)
        if config_file is None and values.get("resume"):
            from plainchant.run.store import RunDirectory

            config_file = RunDirectory.open(values["out"]).path / "config.toml"
        return command(console, load_config(config_file, overrides), **values)

    return _with_fields(SynthesisConfig, OPTION_NAMES, _LABELS_FILE(wrapped))


def with_performance(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that cannot change the guarantee; hands `PerformanceOptions` to the command."""
    names = list(PerformanceOptions.model_fields)

    @functools.wraps(command)
    def wrapped(*args: Any, **values: Any) -> Any:
        own = {name: values.pop(name) for name in names}
        options = PerformanceOptions(**{name: value for name, value in own.items() if value is not None})
        return command(*args, performance=options, **values)

    return _with_fields(PerformanceOptions, names, wrapped)


REAL = option(
    "--real",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    group="Data",
    help="The real table, as for run --data; it is split into halves for training and testing.",
)
LIMIT = option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N>=1",
    default=5_000,
    group="Data",
    help="Use at most this many real texts, sampled at random.  [default: 5000]",
)
NAME = option(
    "--name",
    metavar="NAME",
    group="Output",
    help="Name of the data set.  [default: the configuration's]",
)
HOLDER = option(
    "--holder",
    metavar="NAME",
    group="Output",
    help="Person or organisation that makes the release.  [default: the configuration's]",
)
