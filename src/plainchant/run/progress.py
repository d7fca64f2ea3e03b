"""Progress reports of a run."""

import contextlib
import sys
import time
from typing import Protocol, TextIO


class Progress(Protocol):
    """Progress callbacks. Stages that read private data report fractions, never counts."""

    def stage(self, name: str, share: float) -> None:
        """A preparing step is done by `share`, 0 to 1."""

    def texts(self, done: int, requested: int, tokens: int) -> None:
        """`done` of `requested` texts are written, with `tokens` tokens since the process started."""

    def tokens(self, drawn: int) -> None:
        """`drawn` more tokens are written, of texts that may not be finished. Not reported by workers."""


class NoProgress:
    """Shows nothing."""

    def stage(self, name: str, share: float) -> None: ...

    def texts(self, done: int, requested: int, tokens: int) -> None: ...

    def tokens(self, drawn: int) -> None: ...


class LineProgress:
    """One line that is written over and over, in a terminal or a notebook."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._width = 0
        self._first: tuple[float, int] | None = None

    def stage(self, name: str, share: float) -> None:
        """See `Progress`."""
        self._show(f"{name}: {share:.0%}", finished=share >= 1)

    def texts(self, done: int, requested: int, tokens: int) -> None:
        """See `Progress`."""
        now = time.monotonic()
        began, before = self._first = self._first or (now, done)
        written, left = done - before, ""
        if written and done < requested:
            seconds = (now - began) / written * (requested - done)
            left = f", about {seconds:.0f} s left" if seconds < 100 else f", about {seconds / 60:.0f} min left"
        self._show(f"writing texts: {done} of {requested}{left}", finished=done >= requested)

    def tokens(self, drawn: int) -> None:
        """See `Progress`."""

    def _show(self, line: str, *, finished: bool) -> None:
        # a stream that is gone must not end a run
        with contextlib.suppress(OSError, ValueError):
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if finished else ""))
            self._stream.flush()
        self._width = 0 if finished else len(line)


def default_progress() -> Progress:
    """A line where somebody watches: on a terminal or in a notebook; elsewhere nothing."""
    stream = sys.stderr
    watched = stream is not None and (stream.isatty() or _in_notebook())
    return LineProgress(stream) if watched else NoProgress()


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
