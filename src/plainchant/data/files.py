"""Writing files atomically (a file appears whole or not at all), and locks on them."""

import datetime
import errno
import glob
import hashlib
import json
import os
import sys
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import filelock

_TEMPORARY = ".tmp"
# Modes of files that anyone may read, and of private files.
SHARED, PRIVATE = 0o644, 0o600


Cells: TypeAlias = Mapping[str, str | float | datetime.date | None]
"""A row by column name."""


def write_jsonl(path: str | Path, rows: Iterable[Cells], *, mode: int | None = None) -> None:
    """Writes one JSON object per line (UTF-8), dates as in ISO 8601; the file appears whole or not at all."""
    with atomic_write(path, mode=mode) as handle:
        for row in rows:
            handle.write(json.dumps(dict(row), ensure_ascii=False, default=str).encode() + b"\n")


def write_parquet(
    path: str | Path, rows: Iterable[Cells], *, types: Mapping[str, str] | None = None, mode: int | None = None
) -> None:
    """Writes a Parquet file with the columns of all rows (null where a row lacks one); whole or not at all.

    Args:
        path: the file.
        rows: its rows.
        types: Arrow's names of the types of columns; others get the type of their values.
        mode: see `atomic_write`.
    """
    import pyarrow  # here and below, so that importing the package stays light
    import pyarrow.parquet

    rows, types = list(rows), types or {}
    columns = dict.fromkeys(name for row in rows for name in row)
    arrays = {name: pyarrow.array([row.get(name) for row in rows]) for name in columns}
    table = pyarrow.table({name: own.cast(types[name]) if name in types else own for name, own in arrays.items()})
    with atomic_write(path, mode=mode) as handle:
        pyarrow.parquet.write_table(table, handle)


@contextmanager
def atomic_write(path: str | Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path`; if the block succeeds, it is flushed to disk and takes that name.

    Args:
        path: the file; if it is a link, the link is replaced and its target stays unchanged.
        mode: its mode, whatever the umask; by default 0644 minus the umask, so that only the owner may write.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
    try:
        # private from its first moment
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SHARED if mode is None else PRIVATE)
        with open(descriptor, "wb") as handle:
            if mode is not None:
                os.fchmod(descriptor, mode)
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        # a full disk names no file, and a refusal the temporary one
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name itself survives a crash
    finally:
        os.close(directory)


def take_lock(lock: filelock.BaseFileLock, *, timeout: float = -1) -> None:
    """Takes a lock that goes with its process, even when that is killed.

    Args:
        lock: from `filelock.FileLock`.
        timeout: seconds to wait for another process; below 0 without end.

    Raises:
        filelock.Timeout: another process has it.
        OSError: the file cannot be locked; ENOLCK where the file system has no such locks.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lock.acquire(timeout=timeout)
    except NotImplementedError:
        raise _no_locks(lock) from None
    if isinstance(lock, filelock.SoftFileLock):
        # filelock's makeshift: a file that stays behind when its process is killed
        lock.release()
        raise _no_locks(lock)


def _no_locks(lock: filelock.BaseFileLock) -> OSError:
    return OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(lock.lock_file))


def remove_leftovers(path: Path) -> None:
    """Removes what killed processes left while writing `path`; nobody else may be writing it."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}{_TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def cache_folder() -> Path:
    """The user's cache for plainchant, as the platform has it; it may not exist."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "plainchant"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plainchant"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, content: str, *, mode: int | None = None) -> None:
    """Writes UTF-8 text; whole or not at all."""
    with atomic_write(path, mode=mode) as file:
        file.write(content.encode())


def write_json(path: Path, content: Mapping[str, Any], *, mode: int | None = None) -> None:
    """Writes a JSON document; whole or not at all."""
    write_text(path, json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n", mode=mode)
