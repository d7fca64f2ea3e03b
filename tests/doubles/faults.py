"""Faults that the machine, the disk or a clumsy user has: each is a function that is called before a command."""

import errno
import fcntl
import io
import os
import re
import resource
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import pytest

import plainchant.data.files
from doubles.tables import MARKER
from plainchant.run.store import RunDirectory


@dataclass
class Place:
    """Where a command works, and how to spoil it; `undo` is called when the command is done."""

    folder: Path
    patch: pytest.MonkeyPatch
    undo: list[Callable[[], Any]] = field(default_factory=list)


Fault = Callable[[Place], object]


# files


def put(name: str, content: bytes | str) -> Fault:
    """A file with this content, in place of what is there."""

    def fault(place: Place) -> None:
        path = place.folder / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return fault


def gone(name: str) -> Fault:
    """A file or folder that is not there any more."""

    def fault(place: Place) -> None:
        path = place.folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    return fault


def cut(name: str, size: int) -> Fault:
    """A file of which only the beginning is left."""
    return lambda place: os.truncate(place.folder / name, size)


def overwritten(name: str, offset: int, content: bytes) -> Fault:
    """A file in whose middle stands something else."""

    def fault(place: Place) -> None:
        with open(place.folder / name, "r+b") as file:
            file.seek(offset)
            file.write(content)

    return fault


def replaced(name: str, pattern: str, by: str) -> Fault:
    """A text file in which someone has written."""

    def fault(place: Place) -> None:
        path = place.folder / name
        found = re.sub(pattern, by, path.read_text(), count=1)
        assert found != path.read_text(), f"nothing like {pattern} in {name}"
        path.write_text(found)

    return fault


def folder(name: str) -> Fault:
    """A folder in place of what is there."""

    def fault(place: Place) -> None:
        if (place.folder / name).exists():
            gone(name)(place)
        (place.folder / name).mkdir(parents=True)

    return fault


def fifo(name: str) -> Fault:
    """A pipe with a name."""
    return lambda place: os.mkfifo(place.folder / name)


def link(name: str, target: str) -> Fault:
    """A symbolic link in place of what is there."""

    def fault(place: Place) -> None:
        if (place.folder / name).exists():
            gone(name)(place)
        (place.folder / name).symlink_to(target)

    return fault


def hard_link(name: str, target: str) -> Fault:
    """One more name of a file."""
    return lambda place: os.link(place.folder / target, place.folder / name)


def copied(name: str, target: str) -> Fault:
    """A copy of a file or folder."""

    def fault(place: Place) -> None:
        source, to = place.folder / name, place.folder / target
        shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to)

    return fault


# what the system refuses


def _name(path: Any) -> str:
    return os.fsdecode(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)


def refuse(call: str, pattern: str, number: int) -> Fault:
    """A function of `os` that refuses the paths that fit a pattern."""

    def fault(place: Place) -> None:
        original = getattr(os, call)

        def refused(path: Any, *more: Any, **named: Any) -> Any:
            name = _name(path)
            if fnmatch(name, pattern):
                # as of a descriptor, fsync names no file
                raise OSError(number, os.strerror(number), *[] if isinstance(path, int) else [name])
            return original(path, *more, **named)

        place.patch.setattr(os, call, refused)

    return fault


class _FullFile(io.BufferedWriter):
    def write(self, content: Any, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full(pattern: str) -> Fault:
    """A disk that is full as soon as something is written to a file of such a name."""

    def fault(place: Place) -> None:
        def opened(descriptor: int, mode: str) -> Any:
            if fnmatch(_name(descriptor), pattern):
                return _FullFile(io.FileIO(descriptor, mode))
            return open(descriptor, mode)

        place.patch.setattr(plainchant.data.files, "open", opened, raising=False)

    return fault


def largest_file(size: int) -> Fault:
    """The kernel's own limit: no file grows beyond so many bytes."""

    def fault(place: Place) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        place.undo.append(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    return fault


def locks(number: int | None) -> Fault:
    """A file system whose locks fail with this error; None: as older versions of filelock say that there are none."""

    def refused(*_: Any) -> None:
        raise OSError(number, os.strerror(number or 0))

    def missing(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no flock")

    def fault(place: Place) -> None:
        if number is None:
            place.patch.setattr(filelock.FileLock, "acquire", missing)
        else:
            place.patch.setattr(fcntl, "flock", refused)

    return fault


def busy(name: str) -> Fault:
    """Another process works in a run's directory."""

    def fault(place: Place) -> None:
        held = RunDirectory(place.folder / name).locked()
        held.__enter__()
        place.undo.append(lambda: held.__exit__(None, None, None))

    return fault


def umask(value: int) -> Fault:
    """A umask."""
    return lambda place: place.undo.append(partial(os.umask, os.umask(value)))


def unreadable(pattern: str) -> Fault:
    """Files that fit a pattern and that the system does not let anybody open, not even root."""

    def fault(place: Place) -> None:
        original = Path.open

        def refused(path: Path, *more: Any, **named: Any) -> Any:
            if fnmatch(path.name, pattern):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return original(path, *more, **named)

        place.patch.setattr(Path, "open", refused)

    return fault


def raises(target: str, error: BaseException) -> Fault:
    """A function that raises."""

    def fault(place: Place) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise error

        place.patch.setattr(target, fails)

    return fault


def interrupted(target: str) -> Fault:
    """Ctrl-C while a function works."""
    return raises(target, KeyboardInterrupt())


def does(call: Callable[[Path], object]) -> Fault:
    """Whatever else."""
    return lambda place: call(place.folder)


# the database: what SQLite itself says


def database(statement: str, how: str) -> Fault:
    """The database of a run refuses the first statement that begins so: the disk is "full", or it is "read-only"."""

    def fault(place: Place) -> None:
        class Spoilt(sqlite3.Connection):
            def _spoil(self, text: str) -> None:
                if text.strip().startswith(statement):
                    if how == "read-only":
                        super().execute("PRAGMA query_only = 1")
                    else:
                        super().execute("PRAGMA max_page_count = 1")
                        super().execute("CREATE TABLE IF NOT EXISTS filler (content)")
                        super().execute("INSERT INTO filler VALUES (?)", ("x" * 100_000,))

            def execute(self, text: str, *more: Any) -> Any:
                self._spoil(text)
                return super().execute(text, *more)

            def executemany(self, text: str, *more: Any) -> Any:
                self._spoil(text)
                return super().executemany(text, *more)

            def executescript(self, text: str) -> Any:
                self._spoil(text)
                return super().executescript(text)

        connect = sqlite3.connect
        place.patch.setattr(sqlite3, "connect", lambda path, **named: connect(path, factory=Spoilt, **named))

    return fault


def held(name: str) -> Fault:
    """Another program holds a database, and nobody waits for it."""

    def fault(place: Place) -> None:
        connect = sqlite3.connect
        other = connect(place.folder / name)
        other.execute("BEGIN EXCLUSIVE")
        place.undo.append(other.close)
        place.patch.setattr(sqlite3, "connect", partial(connect, timeout=0))

    return fault


# tables


def table(name: str, line: str, count: int = 80, end: str = "\n", encoding: str = "utf-8", head: str = "") -> Fault:
    """A text file of numbered lines, the marker in each: {n} stands for the number, {label} for red or blue."""
    lines = [
        line.replace("{n}", str(n)).replace("{label}", ("red", "blue")[n % 2]).replace("{marker}", MARKER)
        for n in range(count)
    ]
    return put(name, (head + end.join(lines) + end).encode(encoding))


# broken pipes and the like have no name on other systems
HERE = sys.platform == "linux"
