"""Ctrl-C and SIGTERM: exit code 130 and one line, whenever they come. Imports next to nothing, to be set up first."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

INTERRUPTED = 130
# SIGTERM is how a scheduler or a container asks for the end
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"
_seen = False


def install() -> None:
    """Makes both leave at once with one line; called before anything slow is imported."""
    for number in _SIGNALS:
        # where it is ignored, the shell started this process in the background and keeps Ctrl-C from it
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    sys.unraisablehook = _unraisable


@contextlib.contextmanager
def as_exception() -> Iterator[None]:
    """While a command runs: the first one raises KeyboardInterrupt, so that it can clean up; the next one leaves."""
    # none where somebody calls the command from Python
    installed = [number for number in _SIGNALS if signal.getsignal(number) is _leave]
    for number in installed:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in installed:
            signal.signal(number, _leave)


def seen() -> bool:
    """Whether one came while a command ran. What it interrupts may report it as an error of another kind."""
    return _seen


def _raise(number: int, frame: FrameType | None) -> None:
    global _seen
    _seen = True
    for number in _SIGNALS:
        if signal.getsignal(number) is _raise:
            signal.signal(number, _leave_again)
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
