"""The one place that prints: data on stdout, talk and progress on stderr."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self

import rich.console
import rich.markup
import rich.progress
import rich.table


class Console:
    """Shows results and progress in one of three formats.

    Args:
        style: "human" (tables and bars), "json" (one document on stdout) or "quiet" (the bare result on stdout).
    """

    def __init__(self, style: str):
        self._style = style
        self._out = rich.console.Console(highlight=False, soft_wrap=True)
        self._err = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, message: str) -> None:
        """Talk, on stderr; only for people."""
        if self._style == "human":
            self._err.print(rich.markup.escape(message))

    def warn(self, message: str) -> None:
        """A warning, on stderr, in every format."""
        self._err.print(f"[yellow]warning:[/] {rich.markup.escape(message)}")

    def fail(self, message: str) -> None:
        """An error, on stderr, in every format."""
        self._err.print(f"[red]error:[/] {rich.markup.escape(message)}")

    def table(self, title: str, rows: Iterable[tuple[str, Any]]) -> None:
        """Names and values for people."""
        if self._style != "human":
            return
        table = rich.table.Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(name, rich.markup.escape(_plain(value)))
        self._out.print(table)

    def grid(self, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        """A table with a header for people."""
        if self._style != "human":
            return
        table = rich.table.Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(rich.markup.escape(_plain(value)) for value in row))
        self._out.print(table)

    def result(self, document: Mapping[str, Any], bare: str | None = None) -> None:
        """The result of a command: a JSON document, or where the format is quiet its bare value."""
        if self._style == "json":
            print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201
        elif self._style == "quiet" and bare is not None:
            print(bare)  # noqa: T201

    def text(self, content: str) -> None:
        """Text that is data, on stdout in every format."""
        print(content)  # noqa: T201

    def progress(self) -> "ProgressBars":
        """Bars on stderr, for people and on a terminal; elsewhere a line now and then."""
        return ProgressBars(self._err, shown=self._style == "human")


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


class ProgressBars:
    """Implements `synthesis.Progress`: shares of private work as percentages, counts only of what is released."""

    def __init__(self, console: rich.console.Console, *, shown: bool):
        self._console = console
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
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def stage(self, name: str, share: float) -> None:
        """See `synthesis.Progress`."""
        self._update(name, share, 1.0, "")

    def texts(self, done: int, requested: int, tokens: int) -> None:
        """See `synthesis.Progress`."""
        now = time.monotonic()
        self._began = self._began or now
        pace = f", {tokens / (now - self._began):.1f} tokens/s" if tokens else ""
        self._update("writing texts", done, requested, f"{done} of {requested} texts{pace}")

    def _update(self, name: str, done: float, total: float, note: str) -> None:
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
