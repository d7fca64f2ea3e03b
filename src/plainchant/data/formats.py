"""Formats: the reader for a source, by its extension or its library (guarantee 9)."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from plainchant.data.arrow import checked_floats, class_names, column_of_arrow, unit_kind, wrong_type
from plainchant.data.encodings import Lines, bare_suffix
from plainchant.data.raw import (
    Dialect,
    Keep,
    RawTable,
    Readers,
    Row,
    RowFilter,
    Wanted,
    check_columns,
    check_path,
    describe,
    purpose_of,
)
from plainchant.data.textual import of_csv, of_dicts, of_json
from plainchant.errors import DataError, MissingDependencyError

FORMATS = (
    ".jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .feather (text formats also with .gz or .zst), a directory "
    "of such files of one kind, or a directory that datasets.save_to_disk wrote"
)


COLUMNAR = (".parquet", ".arrow", ".feather", ".ipc")
CSV = (".csv", ".tsv")
JSON = (".jsonl", ".ndjson", ".json")
# Rows of a table with columns that are looked at together where only some are kept.
_SLICE = 2**16


def read_raw(
    source: Any, wanted: Wanted, dialect: Dialect, keep: Keep = None, readers: Readers | None = None
) -> RawTable:
    """The wanted columns of any source; with `keep` of some of its rows, and no others are held in memory.

    Two sources are in memory as a whole in any case: objects, and a .json file that is one array. The files of a
    directory are read by `readers`, or one after the other.

    Raises:
        DataError: the table cannot be read as a whole. No message quotes a cell.
        MissingDependencyError: the source is a data set directory, and the package `datasets` is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        check_path(path)
        return (_of_directory(path, wanted, dialect, keep, readers) if path.is_dir()
                else _of_file(path, wanted, dialect, keep))  # fmt: skip
    return _of_object(source, wanted, dialect, describe(source), keep)


def lines_of(path: Path, dialect: Dialect) -> Lines:
    """The lines of a text file."""
    check_path(path)
    return Lines(
        path, dialect.encoding, describe(path), hint=dialect.hint, allow_malformed=dialect.allow_malformed
    )  # fmt: skip


# Paths


def _of_file(path: Path, wanted: Wanted, dialect: Dialect, keep: Keep) -> RawTable:
    suffix = bare_suffix(path)
    if suffix in COLUMNAR:
        return _of_columnar_file(path, suffix, wanted, keep)
    readers = dict.fromkeys(JSON, of_json) | dict.fromkeys(CSV, of_csv)
    reader = readers.get(suffix)
    if reader is None:
        raise DataError(f"{describe(path)} has the extension {path.suffix!r}: convert it to one of {FORMATS}.")
    lines = lines_of(path, dialect)
    found = reader(lines, suffix, wanted, dialect, describe(path), keep)
    return RawTable(found.rows, found.malformed, (*lines.notes, *found.notes))


def shards_of(path: Path) -> list[Path]:
    """The files of a directory that are read as one table; none where `datasets.save_to_disk` wrote it.

    Raises:
        DataError: they are of several formats.
    """
    saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    shards = [] if saved else sorted(child for child in path.iterdir() if child.is_file() and child.name[0] not in "._")
    known = [child for child in shards if bare_suffix(child) in (*COLUMNAR, *CSV, *JSON)]
    if len({bare_suffix(child) for child in known}) > 1:
        raise DataError(f"{describe(path)} holds tables of several formats: give a directory of one kind, or one file.")
    return known


def _of_directory(path: Path, wanted: Wanted, dialect: Dialect, keep: Keep, readers: Readers | None) -> RawTable:
    known = shards_of(path)
    if not known:
        return _of_object(table_of(path), wanted, dialect, describe(path), keep)
    if readers is None:
        # one after the other, in the order of their names: `keep` counts the rows of all
        tables = [_of_file(child, wanted, dialect, keep) for child in known]
    else:
        tables = _by_readers(readers, known, wanted, dialect, keep)
    kinds = {table.unit_kind for table in tables} - {None}
    if len(kinds) > 1:
        raise DataError(
            f"unit_column: the files of {describe(path)} have ids of different types "
            f"({', '.join(sorted(map(str, kinds)))}), so that one unit may be several: write them all as one type."
        )
    if any(table.class_names != tables[0].class_names for table in tables):
        raise DataError(
            f"{describe(path)} has files whose ClassLabel columns have different names, so that one number may mean "
            "several labels: write them all with the same names, or the names in place of numbers."
        )
    rest = sum(1 for child in path.iterdir() if child not in known)
    left_out = f" {rest} other entries in it (of another kind, hidden, or folders) are not read." if rest else ""
    notes = (f"{describe(path)} is read as the {len(known)} files in it, in the order of their names.{left_out}",)
    return RawTable(
        [row for table in tables for row in table.rows],
        sum(table.malformed for table in tables),
        notes + tuple(note for table in tables for note in table.notes),
        tables[0].class_names,
    )


def _by_readers(
    readers: Readers, files: Sequence[Path], wanted: Wanted, dialect: Dialect, keep: Keep
) -> list[RawTable]:
    """Files that are read at the same time. Each of them knows the number of its first row, by which rows are drawn."""
    if keep is None:
        return list(readers(functools.partial(_of_file, wanted=wanted, dialect=dialect, keep=None), files))
    rows = list(readers(functools.partial(_rows_of, wanted, dialect), files))
    firsts = [0, *itertools.accumulate(rows)][: len(files)]
    return list(readers(functools.partial(_part, wanted, dialect, keep), list(zip(files, firsts, strict=True))))


def _part(wanted: Wanted, dialect: Dialect, keep: RowFilter, part: tuple[Path, int]) -> RawTable:
    path, first = part
    return _of_file(path, wanted, dialect, keep.starting_at(first))


class _Counted:
    """A filter that counts rows and keeps none."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, unit: Any) -> bool:
        self.rows += 1
        return False

    def starting_at(self, row: int) -> "_Counted":
        return self


def _rows_of(wanted: Wanted, dialect: Dialect, path: Path) -> int:
    """The number of a file's rows; of a file with columns no value is read."""
    counted = _Counted()
    _of_file(path, {"unit_column": None} if bare_suffix(path) in COLUMNAR else wanted, dialect, counted)
    return counted.rows


def _of_columnar_file(path: Path, suffix: str, wanted: Wanted, keep: Keep) -> RawTable:
    schema, tables = open_columnar(path, suffix, list(wanted.values()))
    check_columns(schema.names, wanted, describe(path))
    return _of_arrow(tables, wanted, describe(path), class_names(schema), keep)


def open_columnar(path: Path, suffix: str, names: Sequence[str | None]) -> tuple[Any, Iterator[Any]]:
    """The schema of a Parquet or Arrow file, and its rows in tables: of Parquet, the named columns that there are."""
    if not path.is_file():
        raise DataError(f"{describe(path)} does not exist as a file: check the path.")
    parts = _parquet(path, names) if suffix == ".parquet" else _arrow(path)
    faithful = _refusing(parts, path, suffix)
    return next(faithful), faithful


def _refusing(parts: Iterator[Any], path: Path, suffix: str) -> Iterator[Any]:
    try:
        yield from parts
    except Exception:  # parsers raise anything; from None, here and below: their messages may quote what they read
        raise DataError(
            f"{describe(path)} cannot be parsed as {suffix[1:].capitalize()}: write it again, or give JSONL or CSV."
        ) from None


def _parquet(path: Path, names: Sequence[str | None]) -> Iterator[Any]:
    """The schema, then tables of some rows each; one without rows at least."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        yield schema
        there = [name for name in names if name in schema.names]
        batches = 0
        for batch in file.iter_batches(_SLICE, columns=there):
            batches += 1
            yield pyarrow.Table.from_batches([batch])
        if not batches:
            yield file.read(columns=there)


def _arrow(path: Path) -> Iterator[Any]:
    """The schema, then tables of some rows each; one without rows at least."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            reader = pyarrow.ipc.open_file(source)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        except pyarrow.ArrowInvalid:
            source.seek(0)
            reader = pyarrow.ipc.open_stream(source)
            batches = iter(reader)
        yield reader.schema
        yield reader.schema.empty_table()
        for batch in batches:
            yield pyarrow.Table.from_batches([batch])


def table_of(path: Path) -> Any:
    """The data set in a directory of `datasets.save_to_disk`."""
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
            f"{describe(path)} cannot be loaded as a data set: save it again, or give JSONL, CSV or Parquet."
        ) from None


# Objects


def _of_object(source: Any, wanted: Wanted, dialect: Dialect, where: str, keep: Keep) -> RawTable:
    libraries = {base.__module__.partition(".")[0] for base in type(source).__mro__}
    if "polars" in libraries and hasattr(source, "collect"):
        source = source.collect()
    if "pandas" in libraries and hasattr(source, "columns"):

        def of_pandas(part: Any) -> list[Row]:
            return _of_columns(
                part.columns, len(part), lambda i, role: _of_pandas(part.iloc[:, i], role, where), wanted, where
            )

        parts = [source] if keep is None else _slices(len(source), lambda a, b: source.iloc[a:b])
        return RawTable(_kept(map(of_pandas, parts), wanted, keep))
    if "polars" in libraries and hasattr(source, "to_series"):

        def of_polars(part: Any) -> list[Row]:
            return _of_columns(
                part.columns, len(part), lambda i, role: _of_polars(part.to_series(i), role, where), wanted, where
            )

        parts = [source] if keep is None else _slices(len(source), lambda a, b: source[a:b])
        return RawTable(_kept(map(of_polars, parts), wanted, keep))
    if "pyarrow" in libraries and hasattr(source, "column_names"):
        return _of_arrow(
            _slices(len(source), lambda a, b: source[a:b]), wanted, where, class_names(source.schema), keep
        )
    if "datasets" in libraries and hasattr(source, "select"):
        names = {name: kind.names for name, kind in source.features.items() if type(kind).__name__ == "ClassLabel"}
        table = source.with_format("arrow")
        return _of_arrow(_slices(len(table), lambda a, b: table[a:b]), wanted, where, names, keep)
    if isinstance(source, (Mapping, bytes)) or not isinstance(source, Iterable):
        raise DataError(
            f"{where} is not a table: give a path, a data frame, one split of a data set, or an iterable of dicts."
        )
    return of_dicts(source, wanted, dialect, where, keep)


def _slices(rows: int, part: Callable[[int, int], Any]) -> Iterator[Any]:
    """A table in parts of some rows each; one without rows at least."""
    return (part(first, first + _SLICE) for first in range(0, max(1, rows), _SLICE))


def _kept(parts: Iterable[list[Row]], wanted: Wanted, keep: Keep) -> list[Row]:
    """The rows of all parts that are kept."""
    if keep is None:
        return list(itertools.chain.from_iterable(parts))
    place = list(wanted).index("unit_column")
    return [row for part in parts for row in part if keep(row[place])]


def _of_pandas(series: Any, role: str, where: str) -> list[Any]:
    kind = str(getattr(series.dtype, "kind", "O"))
    # times can be labels and ids; of attributes, points in time are dates, and dates are nothing else but strings
    unfit = {"a label": "", "a unit's id": "", "a date": "biufcm"}.get(purpose_of(role), "mM")
    if kind in unfit and kind:
        raise wrong_type(role, where, str(series.dtype))
    if role == "unit_column" and hasattr(series.dtype, "pyarrow_dtype"):
        return column_of_arrow(series.array.__arrow_array__(), role, where)
    # of a categorical, what it holds; of a nullable or sparse type, the one behind it
    inner = getattr(getattr(series.dtype, "categories", series), "dtype", series.dtype)
    inner = getattr(inner, "numpy_dtype", getattr(inner, "subtype", inner))
    if getattr(inner, "kind", "O") == "f":
        return checked_floats(series.tolist(), 8 * inner.itemsize, role, where)
    return list(series.tolist())


def _of_polars(series: Any, role: str, where: str) -> list[Any]:
    try:
        if str(series.dtype) == "Object":  # Arrow would hold the addresses of Python's objects
            raise TypeError
        column = series.to_arrow()
    except Exception:  # a type that Arrow does not have
        raise wrong_type(role, where, str(series.dtype), "a column") from None
    return column_of_arrow(column, role, where)


def _of_arrow(
    tables: Iterable[Any], wanted: Wanted, where: str, names: Mapping[str, Sequence[str]], keep: Keep
) -> RawTable:
    rows: list[Row] = []
    column, kind = wanted.get("unit_column"), None
    for table in tables:
        if column is not None and column in table.column_names:
            kind = unit_kind(table.schema.field(table.column_names.index(column)).type)
        kept = table if keep is None else _kept_of_arrow(table, column, where, keep)
        rows += _of_columns(kept.column_names, len(kept), functools.partial(_column_of, kept, where), wanted, where)
    return RawTable(rows, class_names=names, unit_kind=kind)


def _column_of(table: Any, where: str, index: int, role: str) -> list[Any]:
    return column_of_arrow(table.column(index), role, where)


def _kept_of_arrow(table: Any, column: str | None, where: str, keep: RowFilter) -> Any:
    """The rows of a table that are kept, before any other value is taken out of Arrow."""
    import pyarrow

    units: Iterable[Any] = repeat(None, len(table))
    if column is not None and column in table.column_names:
        units = column_of_arrow(table.column(table.column_names.index(column)), "unit_column", where)
    kept = [row for row, unit in enumerate(units) if keep(unit)]
    try:
        return table.take(pyarrow.array(kept, pyarrow.int64()))
    except pyarrow.ArrowNotImplementedError:  # a type of which Arrow cannot pick rows
        return pyarrow.concat_tables([table.slice(0, 0), *(table.slice(row, 1) for row in kept)])


def _of_columns(
    found: Iterable[Any], size: int, column_at: Callable[[int, str], Iterable[Any]], wanted: Wanted, where: str
) -> list[Row]:
    """The rows of a table with these columns and so many rows."""
    names = [str(name) for name in found]
    check_columns(names, wanted, where)
    columns = (
        repeat(None, size) if name is None else column_at(names.index(name), role) for role, name in wanted.items()
    )
    return list(zip(*columns, strict=True))
