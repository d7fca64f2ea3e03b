"""Progress reports of a run."""

import contextlib
import sys
import time
from typing import Protocol, TextIO

# What a step must have taken and done, seconds and a share, before anything is said of the rest.
SOONEST, LEAST = 5.0, 0.01


class Progress(Protocol):
    """Progress callbacks. Stages that read private data report fractions, never counts."""

    def stage(self, name: str, share: float) -> None:
        """A preparing step is done by `share`, 0 to 1."""

    def texts(self, done: int, requested: int, tokens: int, work: tuple[float, float] | None = None) -> None:
        """`done` of `requested` texts are written, with `tokens` tokens since the process started.

        `work`: what share of all work that is, and what share the next text takes; None: each takes as much as another.
        """

    def tokens(self, drawn: int) -> None:
        """`drawn` more tokens are written, of texts that may not be finished. Not reported by workers."""


class NoProgress:
    """Shows nothing."""

    def stage(self, name: str, share: float) -> None: ...

    def texts(self, done: int, requested: int, tokens: int, work: tuple[float, float] | None = None) -> None: ...

    def tokens(self, drawn: int) -> None: ...


class Pace:
    """How long a step still takes, from how fast it was since it was first seen here.

    >>> pace = Pace()
    >>> pace.left("texts", 2, 10, now=0.0)
    ''
    >>> pace.left("texts", 4, 10, now=60.0)
    ', about 3 min left'
    >>> pace.left("texts", 10, 10, now=200.0)
    ''
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[float, float]] = {}

    def left(self, name: str, done: float, total: float, *, now: float | None = None) -> str:
        """Words to end a line with; empty where nothing is known yet or nothing is left."""
        now = time.monotonic() if now is None else now
        began, before = self._first.setdefault(name, (now, done))
        if done >= total or done - before < LEAST * (total - before) or now - began < SOONEST:
            return ""
        seconds = (now - began) / (done - before) * (total - done)
        return f", about {seconds:.0f} s left" if seconds < 100 else f", about {seconds / 60:.0f} min left"


class LineProgress:
    """One line that is written over and over, in a terminal or a notebook."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._width = 0
        self._pace = Pace()

    def stage(self, name: str, share: float) -> None:
        """See `Progress`."""
        self._show(f"{name}: {share:.0%}{self._pace.left(name, share, 1.0)}", finished=share >= 1)

    def texts(self, done: int, requested: int, tokens: int, work: tuple[float, float] | None = None) -> None:
        """See `Progress`."""
        left = self._pace.left("texts", *((done, requested) if work is None else (work[0], 1.0)))
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
