"""JSON Lines, JSON arrays, dicts and CSV: text becomes raw values, row by row (guarantee 9).

- **Malformed rows** (a line that is not a JSON object, a CSV row with the wrong number of fields or a broken quote, an
  item that is not a dict) are rows without any value. A CSV row with a broken quote is one line, and reading continues
  with the next one. Only if a later quote happens to close it properly, within 16 million characters, do the lines in
  between become part of that row.
  This is the only case in which one row affects others; it cannot happen in JSONL and Parquet.
- **Blank lines** of JSONL, CSV and text files are not rows. Neither are lines of a JSON Lines file that hold only the
  brackets of an array around it. A comma at the end of such a line is ignored.
- **Columns** are found by the header or the schema. For JSON rows and dicts a column exists if enough rows have the key
  (`SCARCE`), so that no single row decides. In the other rows a missing key is a missing value.
- **Separator** of CSV: the option or, from the header, the first of comma (tab in .tsv), semicolon, tab and bar that
  yields the wanted columns.
"""

import csv
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from plainchant.data.encodings import AUTO
from plainchant.data.raw import (
    SEPARATORS,
    Dialect,
    Keep,
    RawTable,
    Row,
    Wanted,
    check_columns,
    no_column,
    separator_of,
)
from plainchant.errors import DataError

# A key that fewer than one in SCARCE JSON rows or dicts has does not count as a column.
SCARCE = 10
# Stands for a carriage return inside a CSV row; no decoded text holds this lone surrogate.
_RETURN = "\udc0d"
# Lines of a CSV file among which its header is looked for.
HEADER_LINES = 1000
# Lines of JSON that hold no row: those of an array around the others.
_NO_ROWS = ("", "[", "]", ",")
# Characters of a CSV row, about; with more its first line is malformed, so that a broken quote swallows no whole file.
_LONGEST_ROW = 2**24
_FIELD_SIZE_LIMIT = 2**31 - 1  # the largest that a C long holds on every platform


# JSON


def of_json(lines: Iterable[str], suffix: str, wanted: Wanted, dialect: Dialect, where: str, keep: Keep) -> RawTable:
    """The rows of JSON Lines or, for a .json file that begins with a bracket, of its array, which is read whole."""
    array, lines = _array_in(lines, suffix)
    if array is not None:
        return of_dicts(_parse_array(array, where, wanted), wanted, dialect, where, keep)
    rows = (_exact_line(line, wanted) for line in lines if line.strip() not in _NO_ROWS)
    return of_dicts(rows, wanted, dialect, where, keep)


def json_rows(lines: Iterable[str], suffix: str, where: str) -> Iterator[Any]:
    """The rows of JSON Lines or of a JSON array, as they are parsed; None for a malformed one."""
    array, lines = _array_in(lines, suffix)
    if array is not None:
        yield from _parse_array(array, where, {})
    yield from (_parse_line(line) for line in lines if line.strip() not in _NO_ROWS)


def _array_in(lines: Iterable[str], suffix: str) -> tuple[str | None, Iterator[str]]:
    """The text of a .json file that is an array, which is read whole, and else the lines."""
    lines = iter(lines)
    if suffix == ".json":
        begun = next((line for line in lines if line.strip()), "")
        lines = itertools.chain((begun,), lines)
        if begun.lstrip()[:1] == "[":
            return "\n".join(lines), iter(())
    return None, lines


def _parse_array(text: str, where: str, wanted: Wanted) -> Any:
    try:
        return _exact_array(text, wanted)
    except (ValueError, RecursionError):
        raise DataError(f"{where} cannot be parsed as a JSON array: write it again, or give JSONL.") from None


def _exact_line(line: str, wanted: Wanted) -> Any:
    """A line's row, with a fractional id as it is written: as a double, it could be another's."""
    row = _parse_line(line)
    unit = wanted.get("unit_column")
    if isinstance(row, dict) and isinstance(row.get(unit), float):
        row[unit] = (_parse_line(line, decimal=True) or {}).get(unit)
    return row


def _exact_array(text: str, wanted: Wanted) -> Any:
    rows = json.loads(text)
    unit = wanted.get("unit_column")
    inexact = [isinstance(row, dict) and isinstance(row.get(unit), float) for row in rows]
    if any(inexact):
        for row, is_float, exact in zip(rows, inexact, json.loads(text, parse_float=_decimal), strict=True):
            if is_float:
                row[unit] = exact[unit]
    return rows


def _decimal(written: str) -> Decimal:
    try:
        return Decimal(written)
    except ArithmeticError:
        raise ValueError("an exponent out of range") from None


def _parse_line(line: str, *, decimal: bool = False) -> Any:
    """A line's row, without the brackets and the comma of an array around all lines."""
    found = _parse_json(line, decimal)
    if found is None:
        bare = line.strip().removesuffix(",")
        bare = bare[1:] if bare.startswith("[{") else bare
        found = _parse_json(bare.removesuffix("]") if bare.endswith("}]") else bare, decimal)
        if found is None:
            found = _parse_json(bare, decimal)
    return found


def _parse_json(line: str, decimal: bool) -> Any:
    try:
        return json.loads(line, parse_float=_decimal if decimal else None)
    except (ValueError, RecursionError):
        return None


def of_dicts(items: Iterable[Any], wanted: Wanted, dialect: Dialect, where: str, keep: Keep = None) -> RawTable:
    """The rows of dicts; an item that is not a dict is a row without values."""
    place, empty = list(wanted).index("unit_column") if keep is not None else 0, dict[str, Any]()
    rows: list[Row] = []
    mappings, present = 0, dict.fromkeys(wanted, 0)
    for item in items:
        found: Mapping[str, Any] = item if isinstance(item, Mapping) else empty
        row = tuple(None if name is None else found.get(name) for name in wanted.values())
        if keep is not None and not keep(row[place]):
            continue
        rows.append(row)
        mappings += isinstance(item, Mapping)
        for role, name in wanted.items():
            present[role] += name in found
    if rows and not mappings:
        raise DataError(
            f'{where} has no row that is a JSON object or dict: write each as {{"text": ...}}, one per line (UTF-8, '
            "or with --encoding)."
        )
    for role, name in wanted.items():
        scarce = SCARCE * present[role] < len(rows) and not dialect.allow_malformed
        if rows and name is not None and (not present[role] or scarce):
            # other keys are not named: they may occur in single rows only
            listed = f"whose keys plainchant check lists (one in fewer than one row in {SCARCE} does not count)"
            raise no_column(role, name, f"{where}, {listed}")
    return RawTable(rows, len(rows) - mappings)


# CSV


def of_csv(lines: Iterable[str], suffix: str, wanted: Wanted, dialect: Dialect, where: str, keep: Keep) -> RawTable:
    """The rows of CSV; of .tsv with tabs."""
    ended = map(_ended, lines)
    # enough for a header; the separator is chosen by it alone
    first = list(itertools.islice(ended, HEADER_LINES))
    separator, notes = _choose_separator(first, suffix, wanted, dialect, where)
    rows = _split_csv(itertools.chain(first, ended), separator)
    header = next(rows, [])
    if header is None:
        raise DataError(f"{where} has no valid header row: name the columns in its first line.")
    if not header:
        return RawTable([])
    # a file without a header row has a record in its first line, so its names are not shown
    hidden = (
        f"{len(header)} other names in its header row, read with the separator {separator!r} (not shown: where the "
        "header is missing, they are a record's; another separator: --separator)"
    )
    check_columns(header, wanted, where, hidden)
    places = [None if name is None else header.index(name) for name in wanted.values()]
    unit, malformed = list(wanted).index("unit_column") if keep is not None else 0, 0
    values: list[Row] = []
    for row in rows:
        fits = row is not None and len(row) == len(header)
        # CSV cannot tell a missing value from an empty one
        found = tuple(
            None if row is None or not fits or place is None else row[place].replace(_RETURN, "\r") or None
            for place in places
        )
        if keep is None or keep(found[unit]):
            values.append(found)
            malformed += not fits
    return RawTable(values, malformed, notes)


def header_of(lines: Sequence[str], separator: str) -> list[str]:
    """The fields of a CSV file's header, by its first lines; none where it has no valid one."""
    return next(_split_csv(map(_ended, lines), separator), None) or []


def _choose_separator(
    lines: Sequence[str], suffix: str, wanted: Wanted, dialect: Dialect, where: str
) -> tuple[str, tuple[str, ...]]:
    """The separator and a note about it; both depend on the options and the header only."""
    if dialect.separator != AUTO:
        given = separator_of(dialect.separator)
        if given is None:
            raise DataError(f"separator = {dialect.separator!r}: give one character, {', '.join(SEPARATORS)} or auto.")
        return given, ()
    usual = "\t" if suffix == ".tsv" else ","
    for separator in dict.fromkeys((usual, *SEPARATORS.values())):
        header = next(_split_csv(lines, separator), None) or []
        if all(name is None or name in header for name in wanted.values()):
            note = f"{where} is read with the separator {separator!r}, by its header; set separator to choose another."
            return separator, (() if separator == usual else (note,))
    return usual, ()


def _ended(line: str) -> str:
    """A line with its end. A carriage return alone ends no row: the csv module would refuse it outside quotes."""
    if "\r" not in line:
        return line + "\n"
    one = line.rstrip("\r")
    return one.replace("\r", _RETURN) + ("\n" if len(one) == len(line) else "\r\n")


class _TooLongError(Exception):
    """A row of more than `_LONGEST_ROW` characters."""


def _split_csv(lines: Iterable[str], delimiter: str) -> Iterator[list[str] | None]:
    """The rows of CSV lines; None for a line at which no row can be parsed, after which the next line is tried."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_SIZE_LIMIT))
    source = iter(lines)
    # lines that are to be read again, and those of the row that is being read
    again: deque[str] = deque()
    taken: list[str] = []

    def feed() -> Iterator[str]:
        length = 0
        while (line := again.popleft() if again else next(source, None)) is not None:
            length = length + len(line) if taken else len(line)
            taken.append(line)
            if length > _LONGEST_ROW:
                raise _TooLongError
            yield line

    while True:
        reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                taken.clear()
                if row:
                    yield row
            return
        except (csv.Error, _TooLongError):
            yield None
            again.extendleft(reversed(taken[1:]))
            taken.clear()
