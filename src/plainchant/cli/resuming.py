"""The very command that continues what was interrupted."""

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from plainchant.config import PerformanceOptions
from plainchant.errors import PlainchantError

_KEY = "plainchant.continue"
# In private/: the directory that the relative paths of the configuration start from, and the options of speed.
_BEGUN_IN = "begun-in.json"


def note_resumable(out: Path, words: list[str], options: Mapping[str, Any]) -> None:
    """Notes the command that continues the work in `out`, in case the current command is interrupted.

    Args:
        out: the run's directory.
        words: the command and its arguments.
        options: options by name; None and False are left out, True means a flag.
    """
    words = [*words, *_as_words(options)]
    context = click.get_current_context(silent=True)
    if context is not None:
        # of a run that stands there already nothing is continued by a command that begins one
        foreign = "--resume" not in words and os.path.exists(out / "config.toml")
        context.meta[_KEY] = None if foreign else (out, shlex.join(words))


def _as_words(options: Mapping[str, Any]) -> list[str]:
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    return [
        word
        for name, value in given.items()
        for word in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
    ]


def set_performance(options: PerformanceOptions) -> dict[str, Any]:
    """The performance options that are not at their defaults."""
    fields = type(options).model_fields
    return {name: getattr(options, name) for name in fields if getattr(options, name) != fields[name].default}


def how_to_continue() -> str:
    """What follows "interrupted" in a message: what is kept, and the command that continues."""
    context = click.get_current_context(silent=True)
    noted = None if context is None else context.meta.get(_KEY)
    if noted is None:
        return ""
    out, command = noted
    if not os.path.exists(out / "config.toml"):
        return "; nothing was written yet, the same command starts again"
    return f"; {_saved(out)}. Continue with: {command}"


def _saved(out: Path) -> str:
    """How many texts of a run are saved."""
    from plainchant.run.store import RunDirectory

    try:
        directory = RunDirectory.open(out)
        config, texts = directory.config, len(directory.texts())
        batches = directory.batches()
        # before the noisy counts are drawn, it is the number that was asked for
        written = sum(batch.texts for batch in batches) if directory.is_formed() else config.written
        ends = " (--no-more-texts ends the run with these)" if texts else ""
        return f"{texts} of {written + config.further} texts are saved{ends}"
    except PlainchantError:
        return "finished texts are saved"


def start_notes(performance: PerformanceOptions) -> dict[str, dict[str, Any]]:
    """What a new run notes: the directory where it is started, and its options of speed."""
    return {_BEGUN_IN: {"directory": os.getcwd(), "options": set_performance(performance)}}


def note_options(run: Any, performance: PerformanceOptions) -> None:
    """Notes the options of speed that a run was given last."""
    noted = run.read_private(_BEGUN_IN) or {"directory": os.getcwd()}
    now = noted | {"options": set_performance(performance)}
    if now != noted:
        run.write_private(_BEGUN_IN, now)


def noted_speed(run: Any) -> list[str]:
    """The options of speed that a run was last given, as words of a command."""
    return _as_words((run.read_private(_BEGUN_IN) or {}).get("options", {}))


@contextlib.contextmanager
def where_begun(run: Any) -> Iterator[None]:
    """Works in the directory where a run was started, so that relative paths of its configuration stay valid."""
    noted = run.read_private(_BEGUN_IN) or {}
    directory = Path(str(noted.get("directory", "")))
    if noted and directory.is_dir():
        with contextlib.chdir(directory):
            yield
    else:
        yield
