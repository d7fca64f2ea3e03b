"""Ctrl-C: exit code 130 and one line, whenever it comes. Imports next to nothing, so that it can be set up first."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

INTERRUPTED = 130
_SHOW_CURSOR = "\x1b[?25h"
_seen = False


def install() -> None:
    """Makes Ctrl-C leave at once with one line; called before anything slow is imported."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return  # the shell started this process in the background and keeps Ctrl-C from it
    signal.signal(signal.SIGINT, _leave)
    sys.unraisablehook = _unraisable


@contextlib.contextmanager
def as_exception() -> Iterator[None]:
    """While a command runs: the first Ctrl-C raises KeyboardInterrupt, so that it can clean up; the next one leaves."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield  # not installed: somebody calls the command from Python
        return
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)


def seen() -> bool:
    """Whether Ctrl-C came while a command ran. What it interrupts may report it as an error of another kind."""
    return _seen


def _raise(number: int, frame: FrameType | None) -> None:
    global _seen
    _seen = True
    signal.signal(signal.SIGINT, _leave_again)
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> None:
    _exit("interrupted")


def _leave_again(number: int, frame: FrameType | None) -> None:
    _exit("interrupted again, stopped at once; finished texts are kept, and --resume continues a run")


def _exit(message: str) -> None:
    with contextlib.suppress(OSError):
        # not print: the handler may have come in the middle of one
        os.write(2, f"{_SHOW_CURSOR if os.isatty(2) else ''}\nerror: {message}\n".encode())
    os._exit(INTERRUPTED)


def _unraisable(problem: Any) -> None:
    if problem.exc_type is KeyboardInterrupt:
        _exit("interrupted")  # it came inside a destructor or a callback, which cannot raise it
    sys.__unraisablehook__(problem)
