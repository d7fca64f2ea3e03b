"""The one place that prints: data on stdout, talk and progress on stderr."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import click
import rich.console
import rich.markup
import rich.progress
import rich.table

from plainchant.cli import terminal
from plainchant.data.files import PRIVATE
from plainchant.data.marks import visible, visible_json
from plainchant.errors import ConfigError, PlainchantError
from plainchant.run.progress import Pace


class OutputError(PlainchantError):
    """Standard output cannot be written."""

    MESSAGE = "standard output: cannot be written; send it to a file on a disk with room, or to the terminal"


class _Results(rich.console.Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Talk(rich.console.Console):
    def on_broken_pipe(self) -> None:
        # nobody reads it any more; the work continues
        self.quiet = True


# What a log holds in the place of exact figures of private data (guarantee 12).
_KEPT_NOWHERE = "something about the private data was said, which a log does not keep"
# Where the log of a command is kept among the values of its context.
_LOG = "plainchant.log"


def keep_log(path: Path) -> None:
    """From now on what the command says on stderr is also appended to a file, for its owner only, with the time.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE))
    except OSError as error:
        raise ConfigError(f"log_file = {path}: cannot be written ({error.strerror}); name another file") from None
    click.get_current_context().meta[_LOG] = path


def _log(message: str) -> None:
    context = click.get_current_context(silent=True)
    path = None if context is None else context.meta.get(_LOG)
    if path is None:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # a log that cannot be written any more must not end a run
    with contextlib.suppress(OSError), open(path, "a", encoding="utf-8", errors="replace") as file:
        file.write("".join(f"{now} {line}\n" for line in visible(message).strip().splitlines()))


class Console:
    """Shows results and progress in one of three formats.

    Args:
        style: "human" (tables and bars), "json" (one document on stdout) or "quiet" (the bare result on stdout).
        verbose: whether people see the numbers for experts too.
    """

    def __init__(self, style: str, *, verbose: bool = False):
        self._style = style
        self.verbose = verbose
        for stream in (sys.stdout, sys.stderr):
            terminal.prepare(stream)
        self._out = _Results(highlight=False, soft_wrap=True, emoji=False)
        self._err = _Talk(stderr=True, highlight=False, soft_wrap=True, emoji=False)

    def say(self, message: str, *, private: bool = False) -> None:
        """Talk, on stderr; only for people. What is private is not kept in a log."""
        _log(_KEPT_NOWHERE if private else message)
        if self._style == "human":
            self._tell(_safe(message))

    def warn(self, message: str, *, private: bool = False) -> None:
        """A warning, on stderr, in every format. What is private is not kept in a log."""
        _log(f"warning: {_KEPT_NOWHERE if private else message}")
        self._tell(f"[yellow]warning:[/] {_safe(message)}")

    def fail(self, message: str) -> None:
        """An error, on stderr, in every format."""
        _log(f"error: {message}")
        self._tell(f"[red]error:[/] {_safe(message)}")

    def _tell(self, markup: str) -> None:
        # where stderr is gone there is no place left to say so, and a run must not end for it
        with contextlib.suppress(OSError):
            self._err.print(markup)

    def table(self, title: str, rows: Iterable[tuple[str, Any]]) -> None:
        """Names and values for people."""
        if self._style != "human":
            return
        table = rich.table.Table(title=_safe(title), title_justify="left", show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(_safe(name), _safe(_plain(value)))
        self._show(table)

    def grid(self, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        """A table with a header for people."""
        if self._style != "human":
            return
        table = rich.table.Table(*map(_safe, columns), box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(_safe(_plain(value)) for value in row))
        self._show(table)

    def _show(self, table: rich.table.Table) -> None:
        with _standard_output():
            self._out.print(table)

    def result(self, document: Mapping[str, Any], bare: str | None = None) -> None:
        """The result of a command: a JSON document, or where the format is quiet its bare value."""
        if self._style == "json":
            shown = visible_json(json.dumps(document, indent=2, ensure_ascii=False))
            self._print(shown if terminal.can_show(sys.stdout, shown) else json.dumps(document, indent=2))
        elif self._style == "quiet" and bare is not None:
            self._print(visible(bare))

    @staticmethod
    def _print(content: str) -> None:
        with _standard_output():
            print(content)  # noqa: T201

    def progress(self, *, max_tokens: int = 1) -> "ProgressBars":
        """Bars on stderr, for people and on a terminal; elsewhere a line now and then.

        Args:
            max_tokens: maximum tokens of the texts that are written.
        """
        return ProgressBars(self._err, shown=self._style == "human", max_tokens=max_tokens)


@contextlib.contextmanager
def _standard_output() -> Iterator[None]:
    """Turns a failure to write into OutputError; a reader that has gone away (a closed pipe) is no failure."""
    try:
        yield
        terminal.flush()
    except BrokenPipeError:
        raise
    except OSError:
        terminal.abandon(sys.stdout)
        raise OutputError(OutputError.MESSAGE) from None


def _safe(text: str) -> str:
    return rich.markup.escape(visible(text))


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


class ProgressBars:
    """Progress callbacks: private work as percentages, counts only of what is released."""

    def __init__(self, console: rich.console.Console, *, shown: bool, max_tokens: int = 1):
        self._console = console
        self._max_tokens = max_tokens
        # finished texts, requested ones, tokens of finished texts, and all tokens since the process started
        self._done = self._requested = self._finished = self._drawn = 0
        self._work = (0.0, 1.0)
        self._shown = shown
        self._live = shown and console.is_terminal
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._began: float | None = None
        self._pace = Pace()
        self._spoken: dict[str, float] = {}
        self._ended: dict[str, bool] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._bars.stop()

    def stage(self, name: str, share: float) -> None:
        """See `Progress`."""
        self._update(name, share, 1.0, "")

    def texts(self, done: int, requested: int, tokens: int, work: tuple[float, float] | None = None) -> None:
        """See `Progress`."""
        self._done, self._requested, self._finished = done, requested, tokens
        self._work = work or (done / max(1, requested), 1 / max(1, requested))
        self._drawn = max(self._drawn, tokens)
        self._show_texts()

    def tokens(self, drawn: int) -> None:
        """See `Progress`."""
        self._drawn += drawn
        self._show_texts()

    def _show_texts(self) -> None:
        now = time.monotonic()
        self._began = self._began or now
        # a text that is being written counts by its tokens, so that the bar moves before the first text ends
        begun = (self._drawn - self._finished) / self._max_tokens
        pace = f", {self._drawn:,} tokens, {self._drawn / (now - self._began):.1f} per second" if self._drawn else ""
        note = f"{self._done} of {self._requested} texts{pace}"
        share, each = self._work
        self._update("writing texts", min(share + begun * each, 1.0), 1.0, note)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While something else is shown: tables and bars would overwrite each other."""
        with contextlib.suppress(OSError):
            self._bars.stop()
        yield
        with contextlib.suppress(OSError):
            self._bars.start()

    def _update(self, name: str, done: float, total: float, note: str) -> None:
        # as in `Console._tell`
        with contextlib.suppress(OSError):
            self._draw(name, done, total, note)

    def _draw(self, name: str, done: float, total: float, note: str) -> None:
        said = f"{name}: {note or f'{done / total:.0%}'}{self._pace.left(name, done, total)}"
        finished = done >= total
        self._now_and_then(name, said, _log, finished=finished)
        if self._live:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, note=note)
            self._bars.update(self._tasks[name], completed=done, note=note)
        elif self._shown:
            # where nobody watches a terminal: at the start, every ten seconds, at the end
            self._now_and_then(name, said, self._console.print, finished=finished)

    def _now_and_then(self, name: str, said: str, say: Callable[[str], Any], *, finished: bool) -> None:
        """Says how far a step is, at its start, every ten seconds, and once at its end."""
        now, key = time.monotonic(), f"{name}, to {say!r}"
        if key not in self._spoken or finished > self._ended.get(key, False) or now - self._spoken[key] > 10:
            self._spoken[key], self._ended[key] = now, finished
            say(said)
