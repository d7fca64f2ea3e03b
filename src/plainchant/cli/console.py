"""The one place that prints: data on stdout, talk and progress on stderr."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import rich.console
import rich.markup
import rich.progress
import rich.table

from plainchant.cli import terminal
from plainchant.data.marks import visible, visible_json
from plainchant.errors import PlainchantError


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


class Console:
    """Shows results and progress in one of three formats.

    Args:
        style: "human" (tables and bars), "json" (one document on stdout) or "quiet" (the bare result on stdout).
    """

    def __init__(self, style: str):
        self._style = style
        for stream in (sys.stdout, sys.stderr):
            terminal.prepare(stream)
        self._out = _Results(highlight=False, soft_wrap=True, emoji=False)
        self._err = _Talk(stderr=True, highlight=False, soft_wrap=True, emoji=False)

    def say(self, message: str) -> None:
        """Talk, on stderr; only for people."""
        if self._style == "human":
            self._tell(_safe(message))

    def warn(self, message: str) -> None:
        """A warning, on stderr, in every format."""
        self._tell(f"[yellow]warning:[/] {_safe(message)}")

    def fail(self, message: str) -> None:
        """An error, on stderr, in every format."""
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

    def progress(self, first: Callable[[], None] | None = None) -> "ProgressBars":
        """Bars on stderr, for people and on a terminal; elsewhere a line now and then.

        Args:
            first: called once, when the first step is done or under way.
        """
        return ProgressBars(self._err, shown=self._style == "human", first=first)


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

    def __init__(self, console: rich.console.Console, *, shown: bool, first: Callable[[], None] | None = None):
        self._console = console
        self._first = first
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
        self._spoken: dict[str, float] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._bars.stop()

    def stage(self, name: str, share: float) -> None:
        """See `Progress`."""
        if share > 0:
            self._begin()
        self._update(name, share, 1.0, "")

    def texts(self, done: int, requested: int, tokens: int) -> None:
        """See `Progress`."""
        self._begin()
        now = time.monotonic()
        self._began = self._began or now
        pace = f", {tokens / (now - self._began):.1f} tokens/s" if tokens else ""
        self._update("writing texts", done, requested, f"{done} of {requested} texts{pace}")

    def _begin(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            # tables and bars would overwrite each other
            self._bars.stop()
            first()
            self._bars.start()

    def _update(self, name: str, done: float, total: float, note: str) -> None:
        # as in `Console._tell`
        with contextlib.suppress(OSError):
            self._draw(name, done, total, note)

    def _draw(self, name: str, done: float, total: float, note: str) -> None:
        if self._live:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, note=note)
            self._bars.update(self._tasks[name], completed=done, note=note)
        elif self._shown:
            # where nobody watches a terminal: at the start, every ten seconds, at the end
            now = time.monotonic()
            if name not in self._spoken or done >= total or now - self._spoken[name] > 10:
                self._spoken[name] = now
                self._console.print(f"{name}: {note or f'{done / total:.0%}'}")
