"""Formats: each reader yields the raw values of the wanted columns, row by row (guarantee 9).

- **Malformed rows** (a line that is not a JSON object, a CSV row with the wrong number of fields or a broken quote, an
  item that is not a dict) are rows without any value. A CSV row with a broken quote is one line, and reading goes on at
  the next one. Only where a later quote happens to close it properly are the lines between one row with it: the one
  case in which a row reaches others, and JSONL and Parquet do not have it.
- **Blank lines** of JSONL, CSV and text files are no rows, wherever they stand; nor are the lines of a JSON Lines file
  that hold only the brackets of an array around it. A comma that ends such a line is no part of it.
- **Columns** are decided by form: by the header or the schema; of JSON rows and dicts by whether enough rows have the
  key (`SCARCE`), so that no single row decides. Elsewhere a missing key is a missing value.
- **Separator** of CSV: the option, or by the header: the first of comma (tab in .tsv), semicolon, tab and bar that
  makes the wanted columns.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, TypeAlias

from plainchant.data.arrow import checked_floats, class_names, column_of_arrow, wrong_type
from plainchant.data.encodings import AUTO, bare_suffix, decode, read_bytes
from plainchant.errors import DataError, MissingDependencyError

FORMATS = (
    ".jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .feather (text formats also with .gz or .zst), a directory "
    "of such files of one kind, or a directory that datasets.save_to_disk wrote"
)
# A column of JSON rows or dicts that fewer than one row in so many has is taken for none.
SCARCE = 10
_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
_PLAIN_NAME = re.compile(r"[^\W\d][\w.:-]{0,39}")
_NAMES_SHOWN = 20
# Stands for a carriage return inside a CSV row; no decoded text holds this lone surrogate.
_RETURN = "\udc0d"
_FIELD_SIZE_LIMIT = 2**31 - 1  # the largest that a C long holds on every platform

Wanted: TypeAlias = Mapping[str, str | None]
"""The name of the column for each of the options text_column, label_column and unit_column; None: not asked for."""
Row: TypeAlias = tuple[Any, ...]
"""The raw values of the wanted columns; None stands for a missing one."""


@dataclass(frozen=True)
class Dialect:
    """How files are read.

    Attributes:
        encoding: a character encoding, or auto.
        separator: what stands between the fields of CSV: one character, comma, semicolon, tab, bar, or auto.
        allow_malformed: read a table most of whose rows are malformed or empty.
    """

    encoding: str = AUTO
    separator: str = AUTO
    allow_malformed: bool = False


@dataclass(frozen=True)
class RawTable:
    """The raw values of a table.

    Attributes:
        rows: the wanted columns' values.
        malformed: how many rows are no rows of the format.
        notes: sentences for the holder of the data.
        class_names: for each column of a data set's ClassLabel its names.
    """

    rows: list[Row] = field(repr=False)
    malformed: int = 0
    notes: tuple[str, ...] = ()
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_raw(source: Any, wanted: Wanted, dialect: Dialect) -> RawTable:
    """The wanted columns of any source.

    Raises:
        DataError: the table cannot be read as a whole. No message quotes a cell.
        MissingDependencyError: a data set directory, and the package `datasets` is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        return _of_path(Path(source), wanted, dialect)
    return _of_object(source, wanted, dialect, describe(source))


def describe(source: Any) -> str:
    """A source in words that show nothing of it."""
    is_path = isinstance(source, (str, os.PathLike))
    return f"data {str(source)!r}" if is_path else f"data of type {type(source).__name__}"


def separator_of(name: str) -> str | None:
    """The character that an option names; None where it names none."""
    found = _SEPARATORS.get(name, name)
    return found if len(found) == 1 and found not in '"\r\n' and ord(found) < 128 else None


# Paths


def _of_path(path: Path, wanted: Wanted, dialect: Dialect) -> RawTable:
    if path.is_dir():
        return _of_directory(path, wanted, dialect)
    suffix = bare_suffix(path)
    if suffix == ".parquet" or suffix in (".arrow", ".feather", ".ipc"):
        return _of_columnar_file(path, suffix, wanted)
    readers = dict.fromkeys((".jsonl", ".ndjson", ".json"), _of_json) | dict.fromkeys((".csv", ".tsv"), _of_csv)
    reader = readers.get(suffix)
    if reader is None:
        raise DataError(f"{describe(path)} has the extension {path.suffix!r}: convert it to one of {FORMATS}.")
    text = decode(
        read_bytes(path, describe(path)), dialect.encoding, describe(path), allow_malformed=dialect.allow_malformed
    )
    found = reader(text.text, suffix, wanted, dialect, describe(path))
    return RawTable(found.rows, found.malformed, (*text.notes, *found.notes))


def _of_directory(path: Path, wanted: Wanted, dialect: Dialect) -> RawTable:
    saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    shards = [] if saved else sorted(child for child in path.iterdir() if child.is_file() and child.name[0] not in "._")
    known = [
        child for child in shards if bare_suffix(child) in (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
    ]
    if not known:
        return _of_object(_load_dataset(path), wanted, dialect, describe(path))
    if len({bare_suffix(child) for child in known}) > 1:
        raise DataError(f"{describe(path)} holds tables of several formats: give a directory of one kind, or one file.")
    tables = [_of_path(child, wanted, dialect) for child in known]
    notes = (f"{describe(path)} is read as the {len(known)} files in it, in the order of their names.",)
    return RawTable(
        [row for table in tables for row in table.rows],
        sum(table.malformed for table in tables),
        notes + tuple(note for table in tables for note in table.notes),
        tables[0].class_names,
    )


def _of_columnar_file(path: Path, suffix: str, wanted: Wanted) -> RawTable:
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    if not path.is_file():
        raise DataError(f"{describe(path)} does not exist as a file: check the path.")
    try:
        if suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                table = file.read(columns=[name for name in wanted.values() if name in schema.names])
        else:
            table = _read_arrow(path)
            schema = table.schema
    except (pyarrow.ArrowException, OSError):  # from None, here and below: a parser's message may quote what it read
        raise DataError(
            f"{describe(path)} cannot be parsed as {suffix[1:].capitalize()}: write it anew, or give JSONL or CSV."
        ) from None
    check_columns(schema.names, wanted, describe(path))
    return _of_arrow(table, wanted, describe(path), class_names(schema))


def _read_arrow(path: Path) -> Any:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            return pyarrow.ipc.open_file(source).read_all()
        except pyarrow.ArrowInvalid:
            source.seek(0)
            return pyarrow.ipc.open_stream(source).read_all()


def _load_dataset(path: Path) -> Any:
    splits = path / "dataset_dict.json"
    if splits.is_file():
        names = ", ".join(sorted(str(child) for child in path.iterdir() if (child / "state.json").is_file()))
        raise DataError(f"{describe(path)} holds several splits: give the directory of one of them: {names}.")
    if not (path / "state.json").is_file():
        raise DataError(f"{describe(path)} is a directory without a data set: give a file or directory: {FORMATS}.")
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            f"{describe(path)} needs the package datasets: run `pip install datasets`, or give JSONL, CSV or Parquet."
        ) from None
    try:
        return datasets.load_from_disk(str(path))
    except Exception:
        raise DataError(
            f"{describe(path)} cannot be loaded as a data set: save it anew, or give JSONL, CSV or Parquet."
        ) from None


# Objects


def _of_object(source: Any, wanted: Wanted, dialect: Dialect, where: str) -> RawTable:
    libraries = {base.__module__.partition(".")[0] for base in type(source).__mro__}
    if "polars" in libraries and hasattr(source, "collect"):
        source = source.collect()
    if "pandas" in libraries and hasattr(source, "columns"):
        return RawTable(
            _of_columns(source.columns, lambda i, role: _of_pandas(source.iloc[:, i], role, where), wanted, where)
        )
    if "polars" in libraries and hasattr(source, "to_series"):
        return RawTable(
            _of_columns(source.columns, lambda i, role: _of_polars(source.to_series(i), role, where), wanted, where)
        )
    if "pyarrow" in libraries and hasattr(source, "column_names"):
        return _of_arrow(source, wanted, where, class_names(source.schema))
    if "datasets" in libraries and hasattr(source, "select"):
        names = {name: kind.names for name, kind in source.features.items() if type(kind).__name__ == "ClassLabel"}
        return _of_arrow(source.with_format("arrow")[:], wanted, where, names)
    if isinstance(source, (Mapping, bytes)) or not isinstance(source, Iterable):
        raise DataError(
            f"{where} is not a table: give a path, a data frame, one split of a data set, or an iterable of dicts."
        )
    return _of_dicts(source, wanted, dialect, where)


def _of_pandas(series: Any, role: str, where: str) -> list[Any]:
    kind = str(getattr(series.dtype, "kind", "O"))
    if role == "text_column" and kind in "mM":
        raise wrong_type(role, where, str(series.dtype))
    return checked_floats(series.tolist(), role, where) if kind == "f" else list(series.tolist())


def _of_polars(series: Any, role: str, where: str) -> list[Any]:
    try:
        column = series.to_arrow()
    except Exception:  # a type that Arrow does not have
        raise wrong_type(role, where, str(series.dtype), "a column") from None
    return column_of_arrow(column, role, where)


def _of_arrow(table: Any, wanted: Wanted, where: str, names: Mapping[str, Sequence[str]]) -> RawTable:
    rows = _of_columns(
        table.column_names, lambda index, role: column_of_arrow(table.column(index), role, where), wanted, where
    )
    return RawTable(rows, class_names=names)


def _of_columns(
    found: Iterable[Any], column_at: Callable[[int, str], Iterable[Any]], wanted: Wanted, where: str
) -> list[Row]:
    names = [str(name) for name in found]
    check_columns(names, wanted, where)
    columns = (repeat(None) if name is None else column_at(names.index(name), role) for role, name in wanted.items())
    return list(zip(*columns, strict=False))  # a column that was not asked for repeats None for ever


# JSON


def _of_json(text: str, suffix: str, wanted: Wanted, dialect: Dialect, where: str) -> RawTable:
    if suffix == ".json" and text.lstrip()[:1] == "[":
        try:
            return _of_dicts(json.loads(text), wanted, dialect, where)
        except (ValueError, RecursionError):
            raise DataError(f"{where} cannot be parsed as a JSON array: write it anew, or give JSONL.") from None
    lines = text.split("\n")  # not splitlines: U+2028 may stand inside a JSON string
    rows = (_parse_line(line) for line in lines if line.strip() not in ("", "[", "]", ","))
    return _of_dicts(rows, wanted, dialect, where)


def _parse_line(line: str) -> Any:
    """A line's row; brackets and the comma of an array around all lines are no part of it."""
    found = _parse_json(line)
    if found is None:
        bare = line.strip().removesuffix(",")
        bare = bare[1:] if bare.startswith("[{") else bare
        found = _parse_json(bare.removesuffix("]") if bare.endswith("}]") else bare)
        if found is None:
            found = _parse_json(bare)
    return found


def _parse_json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _of_dicts(items: Iterable[Any], wanted: Wanted, dialect: Dialect, where: str) -> RawTable:
    rows = [item if isinstance(item, Mapping) else None for item in items]
    mappings = [row for row in rows if row is not None]
    if rows and not mappings:
        raise DataError(
            f'{where} has no row that is a JSON object or dict: write each as {{"text": ...}}, one a line (UTF-8, or '
            "with --encoding)."
        )
    for role, name in wanted.items():
        present = sum(name in row for row in mappings)
        if (
            rows
            and name is not None
            and (not present or (SCARCE * present < len(rows) and not dialect.allow_malformed))
        ):
            # which other keys there are is not said: they are single rows' own
            raise DataError(f"{role}={name!r} is no column of {where}: set {role} ({_option(role)}).")
    empty: Mapping[str, Any] = {}
    values = [
        tuple(None if name is None else (empty if row is None else row).get(name) for name in wanted.values())
        for row in rows
    ]
    return RawTable(values, len(rows) - len(mappings))


# CSV


def _of_csv(text: str, suffix: str, wanted: Wanted, dialect: Dialect, where: str) -> RawTable:
    lines = _csv_lines(text)
    separator, notes = _choose_separator(lines, suffix, wanted, dialect, where)
    rows = _split_csv(lines, separator)
    header = next(rows, [])
    if header is None:
        raise DataError(f"{where} has no header row that can be parsed: name the columns in its first line.")
    if not header:
        return RawTable([])
    # a file without a header row has a record in its first line, so its names are not shown
    hidden = (
        f"{len(header)} other names in its header row, read with the separator {separator!r} (not shown: where the "
        "header is missing, they are a record's; another separator: --separator)"
    )
    check_columns(header, wanted, where, hidden)
    body = [row if row is not None and len(row) == len(header) else None for row in rows]
    places = [None if name is None else header.index(name) for name in wanted.values()]
    # CSV cannot tell a missing value from an empty one
    values = [
        tuple(None if row is None or place is None else row[place].replace(_RETURN, "\r") or None for place in places)
        for row in body
    ]
    return RawTable(values, sum(row is None for row in body), notes)


def _choose_separator(
    lines: Sequence[str], suffix: str, wanted: Wanted, dialect: Dialect, where: str
) -> tuple[str, tuple[str, ...]]:
    """The separator and what to say of it: a function of the options and of the header."""
    if dialect.separator != AUTO:
        given = separator_of(dialect.separator)
        if given is None:
            raise DataError(f"separator = {dialect.separator!r}: give one character, {', '.join(_SEPARATORS)} or auto.")
        return given, ()
    usual = "\t" if suffix == ".tsv" else ","
    for separator in dict.fromkeys((usual, *_SEPARATORS.values())):
        header = next(_split_csv(lines, separator), None) or []
        if all(name is None or name in header for name in wanted.values()):
            note = f"{where} is read with the separator {separator!r}, by its header; set separator to say so."
            return separator, (() if separator == usual else (note,))
    return usual, ()


def _csv_lines(text: str) -> list[str]:
    lines = text.split("\n")
    if "\r" not in text:
        return [line + "\n" for line in lines]
    # a carriage return by itself is no end of a row: the csv module would refuse it outside quotes
    bare = [line.rstrip("\r") for line in lines]
    return [
        one.replace("\r", _RETURN) + ("\n" if len(one) == len(line) else "\r\n")
        for one, line in zip(bare, lines, strict=True)
    ]


def _split_csv(lines: Sequence[str], delimiter: str) -> Iterator[list[str] | None]:
    """The rows of CSV lines; None for a line at which no row can be parsed, after which the next line is tried."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_SIZE_LIMIT))
    start = 0
    while start < len(lines):
        row_start = start
        reader = csv.reader(map(lines.__getitem__, range(start, len(lines))), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                row_start = start + reader.line_num
                if row:
                    yield row
            return
        except csv.Error:
            yield None
            start = row_start + 1


# Errors: of the table, never of a cell.


def check_columns(found: Iterable[str], wanted: Wanted, where: str, listed: str = "") -> None:
    """Refuses a table whose header or schema lacks a wanted column."""
    found = list(found)
    for role, name in wanted.items():
        if name is not None and name not in found:
            has = listed or _list_names(found)
            raise DataError(f"{role}={name!r} is no column of {where}, which has {has}: set {role} ({_option(role)}).")


def _option(role: str) -> str:
    return "--" + role.replace("_", "-")


def _list_names(names: Sequence[str]) -> str:
    """The column names that look like names."""
    plain = [name for name in names if _PLAIN_NAME.fullmatch(name)]
    shown = ", ".join(plain[:_NAMES_SHOWN])
    hidden = len(names) - len(plain[:_NAMES_SHOWN])
    if not hidden:
        return f"the columns {shown}" if shown else "no columns"
    counted = f"{hidden} whose names are not shown (more than one word, or many; is the header row missing?)"
    return f"the columns {shown} and {counted}" if shown else counted
