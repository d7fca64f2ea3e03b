"""A process that has everything imported and forks a command line for each order: signals and streams, fast.

An order is a JSON line on standard input; the answer is a line with the exit status, below 0 for a signal.
"""

import importlib
import json
import os
import resource
import signal
import sys
import time
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import plainchant.cli.main
import plainchant.run.synthesis
from doubles.quick import make_quick
from plainchant.__main__ import entry

LOADED = (torch, transformers, plainchant.cli.main, plainchant.run.synthesis)


def warmed(model: Path) -> None:
    """Does what every command does first, so that the forked ones need not."""
    make_quick(pytest.MonkeyPatch(), model)
    torch.set_num_threads(1)


def strike(order: dict[str, Any]) -> None:
    """Makes a function send this process a signal when it is called: before its work or after it, once or twice."""
    module, place = order["at"].split(":")
    *above, name = place.split(".")
    owner = reduce(getattr, above, importlib.import_module(module))
    original, left = getattr(owner, name), [order.get("skip", 0)]
    # the tests may run under nohup, which passes on that this one is ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def struck(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            return original(*arguments, **named)
        if order.get("after"):
            original(*arguments, **named)
        try:
            os.kill(os.getpid(), order["signal"])
            time.sleep(20)
        finally:
            if order.get("twice"):
                os.kill(os.getpid(), order["signal"])
                time.sleep(20)

    setattr(owner, name, struck)


def stream(number: int, place: str, encoding: str) -> Any:
    """A standard stream that goes to a file, to a pipe that nobody reads, or nowhere."""
    if place == "pipe":
        reading, descriptor = os.pipe()
        os.close(reading)
    elif place == "closed":
        os.close(number)
        return None
    else:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, number)
    # as Python does: a terminal or not, errors appear at once
    return open(number, "w", buffering=1 if number == 2 else -1, encoding=encoding, closefd=False)


def obey(order: dict[str, Any]) -> None:
    """What the forked process does; never returns."""
    code: Any = 1
    try:
        os.chdir(order["folder"])
        os.environ.update(order["environment"])
        encoding = order.get("encoding", "utf-8")
        sys.stdout = stream(1, order["stdout"], encoding)
        sys.stderr = stream(2, order["stderr"], encoding)
        sys.argv = ["plainchant", *order["words"]]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if "files" in order:
            resource.setrlimit(resource.RLIMIT_NOFILE, (order["files"], order["files"]))
        if "at" in order:
            strike(order)
        entry()
    except SystemExit as done:
        code = done.code
    finally:
        try:
            # as the interpreter ends
            sys.stdout.flush()
        except (OSError, ValueError):
            code = code or 120
        os._exit(code if isinstance(code, int) else 1 if code else 0)


def main() -> None:
    """Reads orders until there are no more; the argument is the tiny model."""
    warmed(Path(sys.argv[1]))
    for line in sys.stdin:
        child = os.fork()
        if not child:
            obey(json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
