r"""Tables in: rows of any source become records.

One row in, one record out, in order, whatever the row holds: what becomes of a row is a function of that row alone, so
adding or removing one moves no other (guarantee 3.1, 9). The rules:

- **Text**: a string as it is; bytes as UTF-8; a number or a truth value as its `str`; missing (None, NaN, NA, a key
  that the row lacks), a list, a dict and anything else: the empty text, which is a valid record.
- **Label, unit**: the `str` of any value, without surrounding white space; missing or blank: None. A row without a unit
  is a unit by itself.
- **Numbers**: a whole number of a fractional type loses its ".0" (a table that turns integers into floats because
  another row lacks a value must not change this one); strings stay as they are.
- **Characters**, in all three: "\r\n" becomes a newline; other control characters than newline and tab, NUL included,
  become a space; invalid UTF-8 and lone surrogates become the replacement character U+FFFD.
- **Malformed rows** (a line that is not a JSON object, a CSV row with the wrong number of fields or a broken quote, an
  item that is not a dict): empty text, no label, a unit by itself. A CSV row with a broken quote is one line, and
  reading goes on at the next one. Only where a later quote happens to close it properly are the lines between one row
  with it: the one case in which a row reaches others, and JSONL and Parquet do not have it.
- **Blank lines** of JSONL, CSV and text files are no rows, wherever they stand.
"""

import csv
import hashlib
import json
import math
import numbers
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import repeat
from pathlib import Path
from typing import Any, TypeAlias

from plainchant.errors import DataError, MissingDependencyError

_FORMATS = ".jsonl, .ndjson, .csv, .tsv, .parquet, or a directory that datasets.save_to_disk wrote"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PLAIN_NAME = re.compile(r"[^\W\d][\w.:-]{0,39}")
_NAMES_SHOWN = 20
_FIELD_SIZE_LIMIT = 2**31 - 1  # the largest that a C long holds on every platform
Source: TypeAlias = Any
"""A path, a pandas, polars or pyarrow table, a `datasets.Dataset`, or an iterable of dicts."""


_Row: TypeAlias = tuple[Any, ...]
"""The raw values of the wanted columns; None stands for a missing one."""


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One private row. Its `repr` shows nothing of it, so that no log or traceback can.

    Attributes:
        text: The text, possibly empty.
        label: The label, or None.
        unit: The id of the unit that the row belongs to; None: a unit by itself.
    """

    text: str
    label: str | None
    unit: str | None

    def __repr__(self) -> str:
        return "Record(private)"


def read_records(
    source: Source, *, text_column: str = "text", label_column: str | None = None, unit_column: str | None = None
) -> list[Record]:
    """Reads a private table: one record a row, in order, by the rules of this module.

    Args:
        source: A path to .jsonl, .ndjson, .csv, .tsv, .parquet or to a directory of `datasets.save_to_disk`; a pandas,
            polars or pyarrow table; a `datasets.Dataset`; or an iterable of dicts.
        text_column: Name of the column with the text.
        label_column: Name of the column with the label; None: no record has one.
        unit_column: Name of the column with the unit's id; None: every record is a unit by itself.

    Returns:
        As many records as the table has rows.

    Raises:
        DataError: The table cannot be read as a whole: missing, empty, of an unknown kind, unparsable, or without a
            named column. No message quotes a cell.
        MissingDependencyError: A data set directory, and the package `datasets` is not installed.

    >>> rows = [{"text": "the bus was late", "label": "transport"}, {"text": None}]
    >>> records = read_records(rows, label_column="label")
    >>> [(record.text, record.label) for record in records]
    [('the bus was late', 'transport'), ('', None)]
    >>> records[0]  # shows nothing of a record
    Record(private)
    """
    rows = _read_rows(source, {"text_column": text_column, "label_column": label_column, "unit_column": unit_column})
    return [Record(_as_text(text), _as_name(label), _as_name(unit)) for text, label, unit in rows]


def read_texts(source: Source, *, text_column: str = "text") -> list[str]:
    """Reads the texts of a public corpus that are not blank; a .txt file holds one text a line.

    Args:
        source: As for `read_records`, or a path to a .txt file.
        text_column: Name of the column with the text; of no meaning for .txt.

    Raises:
        DataError: As for `read_records`, or no text is left.
    """
    rows: Iterable[_Row]
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".txt":
        rows = ((line,) for line in re.split("\r*\n", _read_decoded(Path(source))))
    else:
        rows = _read_rows(source, {"text_column": text_column})
    texts = [text for (value,) in rows if (text := _as_text(value)).strip()]
    if not texts:
        raise DataError(f"{_describe(source)} has no text that is not blank: give a corpus with at least one.")
    return texts


def fingerprint(records: Iterable[Record]) -> str:
    """SHA-256 (hex) of all texts, labels and units in order: whether a resumed run has the same data.

    It depends on private data: it belongs into private/ only. Fields are prefixed by their lengths, so that no two
    different lists have one encoding.

    >>> fingerprint(read_records([{"text": "a"}])) == fingerprint(read_records([{"text": "b"}]))
    False
    """
    digest = hashlib.sha256()
    for record in records:
        for field in (record.text, record.label, record.unit):
            if field is None:
                digest.update(b"\x00")
            else:
                encoded = field.encode("utf-8", "surrogatepass")
                digest.update(b"\x01" + len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


# Values: each a function of one cell.


def _as_text(value: Any) -> str:
    is_numpy_bool = type(value).__name__ in ("bool", "bool_")
    return _clean(_scalar(value)) if is_numpy_bool or isinstance(value, (str, bytes, numbers.Number)) else ""


def _as_name(value: Any) -> str | None:
    return _clean(_scalar(value)).strip() or None


def _scalar(value: Any) -> str:
    if type(value).__name__ in ("NAType", "NaTType", "NoneType"):  # pandas' missing values, without importing pandas
        return ""
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, (numbers.Real, Decimal)) and not isinstance(value, numbers.Integral):
            if math.isnan(value):
                return ""
            if math.isfinite(value) and value == (whole := round(value)):
                return str(whole)
        return str(value)
    except Exception:  # a signalling NaN, an integer too long for str, an object whose __str__ raises: no row may raise
        return ""


def _clean(text: str) -> str:
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text.replace("\r\n", "\n")))


# Tables: each reader yields the raw values of the wanted columns, row by row.


def _read_rows(source: Source, wanted: Mapping[str, str | None]) -> list[_Row]:
    if isinstance(source, (str, os.PathLike)):
        rows = _rows_of_path(Path(source), wanted)
    else:
        rows = _rows_of_object(source, wanted)
    if not rows:
        raise DataError(f"{_describe(source)} has no rows: give a table with at least one.")
    return rows


def _rows_of_path(path: Path, wanted: Mapping[str, str | None]) -> list[_Row]:
    if path.is_dir():
        return _rows_of_object(_load_dataset(path), wanted, where=_describe(path))
    readers = {".jsonl": _rows_of_jsonl, ".ndjson": _rows_of_jsonl, ".parquet": _rows_of_parquet}
    readers |= {".csv": _rows_of_csv, ".tsv": _rows_of_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{_describe(path)} has the extension {path.suffix!r}: convert it to one of {_FORMATS}.")
    return reader(path, wanted)


def _rows_of_object(source: Any, wanted: Mapping[str, str | None], *, where: str | None = None) -> list[_Row]:
    where = where or _describe(source)
    libraries = {base.__module__.partition(".")[0] for base in type(source).__mro__}
    if "polars" in libraries and hasattr(source, "collect"):
        source = source.collect()
    if "pandas" in libraries and hasattr(source, "columns"):
        return _rows_of_columns(source.columns, lambda index: source.iloc[:, index].tolist(), wanted, where)
    if "polars" in libraries and hasattr(source, "to_series"):
        return _rows_of_columns(source.columns, lambda index: source.to_series(index).to_list(), wanted, where)
    if "pyarrow" in libraries and hasattr(source, "column_names"):
        return _rows_of_arrow(source, wanted, where)
    if "datasets" in libraries and hasattr(source, "select"):
        return _rows_of_arrow(source.with_format("arrow")[:], wanted, where)
    if isinstance(source, (Mapping, bytes)) or not isinstance(source, Iterable):
        raise DataError(
            f"{where} is not a table: give a path, a data frame, one split of a data set, or an iterable of dicts."
        )
    return _rows_of_dicts(source, wanted, where)


def _rows_of_jsonl(path: Path, wanted: Mapping[str, str | None]) -> list[_Row]:
    lines = _read_decoded(path).split("\n")  # not splitlines: U+2028 may stand inside a JSON string
    return _rows_of_dicts((_parse_json(line) for line in lines if line.strip()), wanted, _describe(path))


def _parse_json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _rows_of_dicts(items: Iterable[Any], wanted: Mapping[str, str | None], where: str) -> list[_Row]:
    items = list(items)
    mappings = [item for item in items if isinstance(item, Mapping)]
    if items and not mappings:
        raise DataError(f'{where} has no row that is a JSON object or dict: write each as {{"text": ...}} (UTF-8).')
    if items:
        _check_columns(dict.fromkeys(str(name) for item in mappings for name in item), wanted, where)
    names = list(wanted.values())
    empty: Mapping[str, Any] = {}
    rows = (item if isinstance(item, Mapping) else empty for item in items)
    return [tuple(None if name is None else row.get(name) for name in names) for row in rows]


def _rows_of_csv(path: Path, wanted: Mapping[str, str | None]) -> list[_Row]:
    rows = _split_csv(_read_decoded(path), "\t" if path.suffix.lower() == ".tsv" else ",")
    header = next(rows, [])
    if header is None:
        raise DataError(f"{_describe(path)} has no header row that can be parsed: name the columns in its first line.")
    if not header:
        return []
    # a file without a header row has a record in its first line, so its names are not shown
    hidden = (
        f"{len(header)} other names in its header row (not shown: where the header is missing, they are a record's)"
    )
    _check_columns(header, wanted, _describe(path), hidden)
    missing = [None] * len(header)
    body = [row if row is not None and len(row) == len(header) else missing for row in rows]
    return _rows_of_columns(header, lambda index: [row[index] for row in body], wanted, _describe(path))


def _split_csv(text: str, delimiter: str) -> Iterator[list[str] | None]:
    """The rows of a CSV text; None for a line at which no row can be parsed, after which the next line is tried."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_SIZE_LIMIT))
    # A carriage return by itself is no end of a row: the csv module would refuse it outside quotes.
    lines = [line + "\n" for line in re.sub("\r+\n", "\n", text).replace("\r", " ").split("\n")]
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


def _rows_of_parquet(path: Path, wanted: Mapping[str, str | None]) -> list[_Row]:
    import pyarrow
    import pyarrow.parquet

    _check_file(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            found = file.schema_arrow.names
            table = file.read(columns=[name for name in wanted.values() if name in found])
    except (pyarrow.ArrowException, OSError):  # from None, here and below: a parser's message may quote what it read
        raise DataError(
            f"{_describe(path)} cannot be parsed as Parquet: write it anew, or give JSONL or CSV."
        ) from None
    _check_columns(found, wanted, _describe(path))
    return _rows_of_arrow(table, wanted, _describe(path))


def _rows_of_arrow(table: Any, wanted: Mapping[str, str | None], where: str) -> list[_Row]:
    return _rows_of_columns(table.column_names, lambda index: _arrow_values(table.column(index)), wanted, where)


def _arrow_values(column: Any) -> list[Any]:
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string(column.type) or types.is_large_string(column.type) or types.is_string_view(column.type):
        column = column.cast(pyarrow.large_binary())  # one string of invalid UTF-8 must not stop the others
    return [_arrow_value(scalar) for scalar in column]


def _arrow_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except Exception:  # a value that Python cannot hold, like a date in the year 20000
        return None


def _rows_of_columns(
    found: Iterable[Any], column_at: Callable[[int], Iterable[Any]], wanted: Mapping[str, str | None], where: str
) -> list[_Row]:
    names = [str(name) for name in found]
    _check_columns(names, wanted, where)
    columns = (repeat(None) if name is None else column_at(names.index(name)) for name in wanted.values())
    return list(zip(*columns, strict=False))  # a column that was not asked for repeats None for ever


def _load_dataset(path: Path) -> Any:
    splits = path / "dataset_dict.json"
    if splits.is_file():
        names = ", ".join(sorted(str(child) for child in path.iterdir() if (child / "state.json").is_file()))
        raise DataError(f"{_describe(path)} holds several splits: give the directory of one of them: {names}.")
    if not (path / "state.json").is_file():
        raise DataError(f"{_describe(path)} is a directory without a data set: give a file or directory: {_FORMATS}.")
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            f"{_describe(path)} needs the package datasets: run `pip install datasets`, or give JSONL, CSV or Parquet."
        ) from None
    try:
        return datasets.load_from_disk(str(path))
    except Exception:
        raise DataError(
            f"{_describe(path)} cannot be loaded as a data set: save it anew, or give JSONL, CSV or Parquet."
        ) from None


# Errors: of the table, never of a cell.


def _check_columns(found: Iterable[str], wanted: Mapping[str, str | None], where: str, listed: str = "") -> None:
    found = list(found)
    for field, name in wanted.items():
        if name is not None and name not in found:
            option = "--" + field.replace("_", "-")
            has = listed or _list_names(found)
            raise DataError(f"{field}={name!r} is no column of {where}, which has {has}: set {field} ({option}).")


def _list_names(names: Sequence[str]) -> str:
    """The column names that look like names."""
    plain = [name for name in names if _PLAIN_NAME.fullmatch(name)]
    shown = ", ".join(plain[:_NAMES_SHOWN])
    hidden = len(names) - len(plain[:_NAMES_SHOWN])
    if not hidden:
        return f"the columns {shown}" if shown else "no columns"
    counted = f"{hidden} whose names are not shown (more than one word, or many; is the header row missing?)"
    return f"the columns {shown} and {counted}" if shown else counted


def _describe(source: Any) -> str:
    is_path = isinstance(source, (str, os.PathLike))
    return f"data {str(source)!r}" if is_path else f"data of type {type(source).__name__}"


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{_describe(path)} does not exist as a file: check the path.")


def _read_decoded(path: Path) -> str:
    _check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{_describe(path)} cannot be read ({error.strerror}): check its permissions.") from None
    return content.decode("utf-8-sig", "replace")
