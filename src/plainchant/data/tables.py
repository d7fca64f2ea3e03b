"""Reading tables: rows of any source become records.

Each row becomes one record, in order, whatever it holds. A record depends on its row alone, so adding or removing a row
changes no other record (guarantee 3.1, 9). The rules for cells are in `values`, those for labels in `labels`, those for
formats and malformed rows in `textual` and `encodings`.

Errors and notes about a table are shown only to its holder, before any budget is spent; the guarantee page lists where
they depend on private rows. Notes are warnings of the class `DataNote`.
"""

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from plainchant.data.encodings import bare_suffix
from plainchant.data.formats import lines_of, read_raw
from plainchant.data.labels import LabelMatcher, difference
from plainchant.data.raw import Dialect, RawTable, Readers, describe, role_in_schema
from plainchant.data.sample import Sample
from plainchant.data.schema import Attribute, Category, Code, Schema
from plainchant.data.values import UnreadableUnit, as_name, as_text, unit_key
from plainchant.errors import DataError, DataNote

Source: TypeAlias = Any
"""A path, a pandas, polars or pyarrow table, a `datasets.Dataset`, or an iterable of dicts."""
# A table is refused if fewer than one in this many rows has a named label: its labels are probably others. The same
# goes for the values of an attribute.
FEWEST_LABELLED = 100
# More than one value in this many beyond the ends of an attribute are told: its ends are probably others.
MANY_BEYOND = 20
# Labels without a row that a note names.
NAMED = 5
NO_SCHEMA = Schema()


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One private row. Its `repr` shows none of its content, so that logs and tracebacks cannot either.

    Attributes:
        text: The text, possibly empty.
        label: The label, or None; if it matches a named label, that one.
        unit: The identity of the unit that the row belongs to (see `values.unit_key`); None: the row is its own unit.
        attributes: For each attribute of the schema its code or, where values are found in the data, its value or None.
    """

    text: str
    label: str | None
    unit: str | None
    attributes: tuple[Code, ...] = ()

    def __repr__(self) -> str:
        return "Record(private)"


def read_records(
    source: Source,
    *,
    text_column: str | None = "text",
    label_column: str | None = None,
    unit_column: str | None = None,
    labels: Sequence[str] = (),
    schema: Schema = NO_SCHEMA,
    dialect: Dialect | None = None,
    sample: Sample | None = None,
    readers: Readers | None = None,
) -> list[Record]:
    """Reads a private table: one record per row, in order, by the rules of this package.

    With a sample, only rows of its units become records; all others are dropped as they are read. Of them nothing is
    looked at but the id, and where a row ends; notes and errors are about the sample alone.

    Args:
        source: A path to .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow or .feather, to a directory of such files
            or of `datasets.save_to_disk`; a pandas, polars or pyarrow table; a `datasets.Dataset`; or an iterable of
            dicts.
        text_column: Name of the column with the text; None: no text is read, and every record's is empty.
        label_column: Name of the column with the label; None: no record has one.
        unit_column: Name of the column with the unit's id; None: every record is its own unit.
        labels: The named labels, with which each record's label is matched; empty: labels stay as they are.
        schema: Attributes, and where the text comes from if not from `text_column`.
        dialect: Encoding, separator, and whether a mostly malformed table is read.
        sample: Which units are read; None: all.
        readers: Read the files of a directory, all of which they must see; None: this process does.

    Returns:
        As many records as the table has rows; with a sample, as it has rows of units in it.

    Raises:
        DataError: The table cannot be read as a whole: missing, empty, of an unknown kind, unparsable, without a named
            column or with one of a wrong type, mostly malformed or empty, or without the named labels. No message
            quotes a cell.
        MissingDependencyError: The source is a data set directory, and the package `datasets` is not installed.

    >>> rows = [{"text": "the bus was late", "label": "transport"}, {"text": None}]
    >>> records = read_records(rows, label_column="label")
    >>> [(record.text, record.label) for record in records]
    [('the bus was late', 'transport'), ('', None)]
    >>> records[0]  # shows nothing of a record
    Record(private)
    """
    dialect = dialect or Dialect()
    fields: tuple[str, ...] = ()
    if text_column is not None:
        fields = (text_column,) if schema.text is None else schema.text_fields
    wanted: dict[str, str | None] = {_text_role(schema, name): name for name in fields}
    wanted |= {"label_column": label_column, "unit_column": unit_column}
    wanted |= {_attribute_role(schema, name): name for name in schema.attributes}
    raw = _read(source, wanted, dialect, sample, readers)
    _check_well_formed(raw, source, dialect)
    columns = dict(zip(wanted, zip(*raw.rows, strict=True), strict=True))
    texts = texts_of(schema, {name: columns[_text_role(schema, name)] for name in fields}, len(raw.rows))
    if fields:
        _check_not_blank(texts, source, dialect)
    found = _labels(columns["label_column"], raw, label_column, labels, source, dialect)
    units = _units(columns["unit_column"], describe(source))
    codes = [
        _codes(columns[_attribute_role(schema, name)], raw, schema, name, source, dialect) for name in schema.attributes
    ]
    attributes = zip(*codes, strict=True) if codes else [()] * len(texts)
    return [Record(*row) for row in zip(texts, found, units, attributes, strict=True)]


def read_texts(source: Source, *, text_column: str = "text", dialect: Dialect | None = None) -> list[str]:
    """Reads the texts of a public corpus that are not blank; a .txt file holds one text per line.

    Args:
        source: As for `read_records`, or a path to a .txt file.
        text_column: Name of the column with the text; ignored for .txt.
        dialect: Encoding, separator, and whether a mostly malformed table is read.

    Raises:
        DataError: As for `read_records`, or no text is left.
    """
    dialect = dialect or Dialect(options=False)
    values: Iterable[Any]
    if isinstance(source, (str, os.PathLike)) and bare_suffix(Path(source)) == ".txt":
        lines = lines_of(Path(source), dialect)
        values = [line.rstrip("\r") for line in lines]
        _tell(lines.notes)
    else:
        raw = _read(source, {"text_column": text_column}, dialect)
        _check_well_formed(raw, source, dialect)
        values = (value for (value,) in raw.rows)
    texts = [text for value in values if (text := as_text(value)).strip()]
    if not texts:
        raise DataError(f"{describe(source)} has no text that is not blank: give a corpus with at least one.")
    return texts


def fingerprint(records: Iterable[Record]) -> str:
    """SHA-256 (hex) of all texts, labels and units in order: whether a resumed run has the same data.

    It depends on private data: it belongs in private/ only. Fields are prefixed by their lengths, so that two
    different lists never have the same encoding.

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
        for code in record.attributes:
            encoded = repr(code).encode()
            digest.update(b"\x02" + len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _read(
    source: Source,
    wanted: dict[str, str | None],
    dialect: Dialect,
    sample: Sample | None = None,
    readers: Readers | None = None,
) -> RawTable:
    raw = read_raw(source, wanted, dialect, None if sample is None else _InSample(sample, describe(source)), readers)
    if not raw.rows and sample is not None:
        raise DataError(f"{describe(source)} has no rows in the sample of its units: set a larger sample_rate.")
    if not raw.rows:
        raise DataError(f"{describe(source)} has no rows: give a table with at least one.")
    _tell(raw.notes)
    return raw


class _InSample:
    """Whether the unit of a row is in the sample; called for each row, in order."""

    def __init__(self, sample: Sample, where: str, first: int = 0):
        self._sample, self._where, self._next = sample, where, first

    def __call__(self, unit: Any) -> bool:
        (key,) = _units((unit,), self._where)
        row, self._next = self._next, self._next + 1
        return self._sample.holds(key, row)

    def starting_at(self, row: int) -> "_InSample":
        return _InSample(self._sample, self._where, row)


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        warnings.warn(DataNote(note), stacklevel=4)


def _check_well_formed(raw: RawTable, source: Source, dialect: Dialect) -> None:
    options = "; see also --separator and --encoding, or set allow_malformed to read it anyway"
    options = options if dialect.options else ""
    if 2 * raw.malformed > len(raw.rows) and not dialect.allow_malformed:
        raise DataError(
            f"most rows of {describe(source)} are malformed: JSONL needs one object per line, CSV as many fields in "
            f"each row as in its header{options}."
        )


def _text_role(schema: Schema, name: str) -> str:
    """The role of a column that the text comes from."""
    if schema.message is not None:
        return role_in_schema(f"columns.message {{{name}}}", "messages")
    return "text_column" if schema.text is None else role_in_schema(f"columns.text {{{name}}}", "a text")


def _attribute_role(schema: Schema, name: str) -> str:
    """The role of an attribute's column."""
    return role_in_schema(f"columns.attributes.{name}", schema.attributes[name].purpose)


def texts_of(schema: Schema, cells: Mapping[str, Sequence[Any]], rows: int) -> list[str]:
    """The text of each row, from the cells of that row alone."""
    if not cells:
        return [""] * rows
    if schema.text is None:
        (only,) = cells.values()
        return [schema.text_of(cell) for cell in only]
    parts = {name: [schema.text_of(cell) for cell in own] for name, own in cells.items()}
    return [schema.filled({name: own[row] for name, own in parts.items()}) for row in range(rows)]


def _check_not_blank(texts: Sequence[str], source: Source, dialect: Dialect) -> None:
    blank = sum(not text or text.isspace() for text in texts)
    if 2 * blank > len(texts) and not dialect.allow_malformed:
        raise DataError(
            f"text_column: most rows of {describe(source)} have no text in it: name the column that holds the texts "
            "(--text-column), or set allow_malformed to read it anyway."
        )


def _labels(
    values: Sequence[Any],
    raw: RawTable,
    column: str | None,
    labels: Sequence[str],
    source: Source,
    dialect: Dialect,
) -> list[str | None]:
    if not labels or column is None:
        return [as_name(value) for value in values]
    matcher, names = LabelMatcher(labels), raw.class_names.get(column)
    matched = [matcher.match(value, names) for value in values]
    count = sum(label is not None for label in matched)
    if not count or (FEWEST_LABELLED * count < len(values) and not dialect.allow_malformed):
        kind = "" if names is None else f", of a ClassLabel with {len(names)} names,"
        raise DataError(
            f"labels = {', '.join(labels)}: hardly any row of {describe(source)} has one of them; the values of "
            f"{column!r}{kind} {difference(matcher, values)}: name the labels as written there, or another "
            "label_column. Nothing was spent."
        )
    if missing := [label for label in labels if label not in set(matched)]:
        shown = ", ".join(map(repr, missing[:NAMED])) + (" and others" if len(missing) > NAMED else "")
        _tell([f"labels: no row has {shown}; plainchant check says whether it is spelled as in the table."])
    # a label that is not named stays unchanged: its row is left out later
    return [as_name(value) if label is None else label for value, label in zip(values, matched, strict=True)]


def _codes(
    cells: Sequence[Any], raw: RawTable, schema: Schema, name: str, source: Source, dialect: Dialect
) -> list[Code]:
    """The code of each cell of an attribute, from that cell alone."""
    kind = schema.attributes[name]
    codes, look = read_codes(cells, kind, raw.class_names.get(name))
    if look.hardly_any and not dialect.allow_malformed:
        raise DataError(
            f"columns.attributes.{name}: hardly any value of this column of {describe(source)} is {look.wanted} "
            f"({kind.form}): correct its type or its values in [columns], or set allow_malformed to read them as "
            "missing. Nothing was spent."
        )
    _tell(f"columns.attributes.{name}: {note}." for note in look.notes)
    return codes


@dataclass(frozen=True)
class Look:
    """How the cells of an attribute are read. Exact and private.

    Attributes:
        kind: what the column is.
        given: cells that are not blank.
        unread: those among them that count as missing.
        beyond: those that lie beyond the ends.
    """

    kind: Attribute
    given: int
    unread: int
    beyond: int

    @property
    def wanted(self) -> str:
        """What a value should be."""
        return "one of its values" if isinstance(self.kind, Category) and self.kind.values else self.kind.purpose

    @property
    def hardly_any(self) -> bool:
        """Whether so few values can be read that the column or its type must be wrong."""
        return bool(self.given) and FEWEST_LABELLED * (self.given - self.unread) < self.given

    @property
    def notes(self) -> list[str]:
        """Sentences for the holder of the data."""
        said = []
        if self.unread:
            said.append(
                f"{self.unread:,} of {self.given:,} values are not {self.wanted}; read as missing ({self.kind.form})"
            )
        if MANY_BEYOND * self.beyond > self.given:
            said.append(
                f"{self.beyond:,} of {self.given:,} values lie beyond the ends, and count as if they were just within "
                "them (the last cut point of numbers lies beyond)"
            )
        return said


def read_codes(cells: Sequence[Any], kind: Attribute, names: Sequence[str] | None) -> tuple[list[Code], Look]:
    """The code of each cell of an attribute, from that cell alone, and how they were read."""
    read = kind.reader(names)
    codes = [read(cell) for cell in cells]
    missing: Code = None if isinstance(kind, Category) and kind.values is None else kind.size - 1
    given = [not _is_blank(cell) for cell in cells]
    unread = sum(own and code == missing for own, code in zip(given, codes, strict=True))
    return codes, Look(kind, sum(given), unread, sum(map(kind.beyond, cells)))


def _is_blank(cell: Any) -> bool:
    """Whether a cell is missing or blank."""
    return cell is None or (isinstance(cell, str) and (not cell or cell.isspace())) or as_name(cell) is None


def _units(values: Sequence[Any], where: str) -> list[str | None]:
    try:
        return [unit_key(unit) for unit in values]
    except (UnreadableUnit, RecursionError, OverflowError, ValueError) as error:
        kind = str(error) if isinstance(error, UnreadableUnit) else "that is too deep or too large"
        raise DataError(
            f"unit_column: {where} has ids of a type ({kind}) that cannot be distinguished: write them as "
            "strings or whole numbers."
        ) from None
