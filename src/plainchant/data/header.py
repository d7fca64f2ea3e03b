"""Which columns a source has, by its header, its schema or the keys of its rows; values are not looked at."""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plainchant.data.encodings import AUTO, bare_suffix
from plainchant.data.formats import COLUMNAR, CSV, JSON, lines_of, open_columnar, shards_of, table_of
from plainchant.data.raw import SEPARATORS, Dialect, check_path, describe, separator_of
from plainchant.data.textual import HEADER_LINES, SCARCE, header_of, json_rows
from plainchant.errors import DataError

_NESTED = ("list", "large_list", "fixed_size_list", "struct", "map", "array", "object", "dense_union", "sparse_union")


@dataclass(frozen=True)
class Column:
    """A column: its name and its declared type, in words; a CSV or JSON file declares none.

    Attributes:
        name: its name.
        kind: its type as the schema says, "" where there is none.
    """

    name: str
    kind: str

    @property
    def nested(self) -> bool:
        """Whether it holds lists or structs: they are read as lists of chat messages, or not at all."""
        return self.kind.lower().partition("<")[0].partition("(")[0].strip() in _NESTED


def columns_of(source: Any, dialect: Dialect | None = None) -> tuple[list[Column], str]:
    """The columns of a table, and the separator of its fields.

    Args:
        source: as for `tables.read_records`; an iterator is used up.
        dialect: encoding and separator.

    Returns:
        The columns in order, and for CSV the separator that gives the header the most fields; else "auto".

    Raises:
        DataError: the table cannot be read as a whole.
    """
    dialect = dialect or Dialect()
    if not isinstance(source, (str, os.PathLike)):
        return _of_object(source), AUTO
    path = Path(source)
    check_path(path)
    if path.is_dir():
        shards = shards_of(path)
        return columns_of(shards[0], dialect) if shards else (_of_object(table_of(path)), AUTO)
    suffix = bare_suffix(path)
    if suffix in COLUMNAR:
        schema, _ = open_columnar(path, suffix, [])
        return [Column(name, str(schema.field(place).type)) for place, name in enumerate(schema.names)], AUTO
    if suffix in CSV:
        return _of_csv(list(itertools.islice(lines_of(path, dialect), HEADER_LINES)), suffix, dialect)
    if suffix in JSON:
        return _of_rows(json_rows(lines_of(path, dialect), suffix, describe(path))), AUTO
    raise DataError(f"{describe(path)} has the extension {path.suffix!r}: convert it to JSONL, CSV or Parquet.")


def _of_csv(lines: Sequence[str], suffix: str, dialect: Dialect) -> tuple[list[Column], str]:
    usual = "\t" if suffix == ".tsv" else ","
    given = None if dialect.separator == AUTO else separator_of(dialect.separator)
    tried = [given] if given else list(dict.fromkeys((usual, *SEPARATORS.values())))
    headers = {separator: header_of(lines, separator) for separator in tried}
    best = max(tried, key=lambda separator: len(headers[separator]))
    return [Column(name, "") for name in headers[best]], best


def _of_rows(rows: Iterable[Any]) -> list[Column]:
    """The keys that enough rows have, so that no single row names one."""
    counts: Counter[str] = Counter()
    total = 0
    for row in rows:
        total += 1
        if isinstance(row, Mapping):
            counts.update(str(key) for key in row)
    return [Column(name, "") for name, count in counts.items() if SCARCE * count >= total]


def _of_object(source: Any) -> list[Column]:
    schema: Any = getattr(source, "schema", None)
    if hasattr(source, "column_names") and hasattr(schema, "names"):  # pyarrow
        return [Column(name, str(schema.field(place).type)) for place, name in enumerate(schema.names)]
    if hasattr(source, "features"):  # datasets
        return [Column(name, str(getattr(kind, "dtype", kind))) for name, kind in source.features.items()]
    if hasattr(source, "columns") and hasattr(source, "dtypes"):  # pandas, polars
        return [
            Column(str(name), "" if str(kind) in ("object", "str") else str(kind))
            for name, kind in zip(source.columns, source.dtypes, strict=True)
        ]
    if isinstance(source, (Mapping, bytes)) or not isinstance(source, Iterable):
        raise DataError(f"{describe(source)} is not a table: give a path, a data frame or an iterable of dicts.")
    return _of_rows(source)
