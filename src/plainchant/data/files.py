"""Files that appear whole or not at all."""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, str | int | None]]) -> None:
    """Writes one JSON object a line (UTF-8); the file appears whole or not at all."""
    with atomic_write(path) as handle:
        for row in rows:
            handle.write(json.dumps(dict(row), ensure_ascii=False).encode() + b"\n")


def write_parquet(path: str | Path, rows: Iterable[Mapping[str, str | int | None]]) -> None:
    """Writes a Parquet file with the columns of all rows (null where a row lacks one); whole or not at all."""
    import pyarrow  # here and below, so that importing the package stays light
    import pyarrow.parquet

    rows = list(rows)
    columns = dict.fromkeys(name for row in rows for name in row)
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    with atomic_write(path) as handle:
        pyarrow.parquet.write_table(table, handle)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` that takes its name, flushed to the disk, when the block ends well."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name itself survives a crash
    finally:
        os.close(directory)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text; whole or not at all."""
    with atomic_write(path) as file:
        file.write(content.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON document; whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
