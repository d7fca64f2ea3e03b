"""What a private table holds, for its holder alone: counts, labels as they are written, units, lengths, duplicates.

Everything here is exact and therefore private: no noise is added, and the guarantee covers none of it (guarantee 12).
All of it takes time linear in the table; what is compared in pairs (labels that are nearly the same) is bounded in
number and length.
"""

import dataclasses
import difflib
import hashlib
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plainchant.data.encodings import AUTO
from plainchant.data.formats import read_raw
from plainchant.data.header import Column, columns_of
from plainchant.data.labels import LabelMatcher, loosened, normal_form
from plainchant.data.raw import Dialect, RawTable, role_in_schema
from plainchant.data.schema import Schema
from plainchant.data.segmentation import word_count
from plainchant.data.tables import NO_SCHEMA, read_codes, texts_of
from plainchant.data.values import UnreadableUnit, as_name, is_bool, unit_key
from plainchant.errors import DataError

# Rows whose lengths are measured, drawn at random where there are more.
MEASURED = 20_000
# Characters of a text that are measured at most, where tokens are not counted.
_LONGEST_TEXT = 100_000
# Different values of a column that are counted.
_COUNTED = 100_000
# Labels that are compared in pairs, and how many characters of each.
_COMPARED, _COMPARED_LENGTH = 200, 80
# Similarity (difflib's ratio) from which one label may be meant by another.
_NEAR = 0.6
# A column with fewer different values may be a label or an attribute.
_FEW_VALUES = 50
# Share of values of one kind from which a column is of that kind.
_MOSTLY = 0.95
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}.{0,20})?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_TRUTH = {"true", "false", "yes", "no"}


@dataclass(frozen=True)
class ColumnFacts:
    """A column. Private.

    Attributes:
        name: its name.
        kind: its type: as declared or, where none is, as most values look.
        missing: rows without a value.
        different: different values; at most 100,000 are counted.
        could_be: what it could be in the configuration: text, label, unit, attribute; empty for none of them.
    """

    name: str
    kind: str
    missing: int
    different: int
    could_be: tuple[str, ...]


@dataclass(frozen=True)
class LabelFacts:
    """A label and its rows. Private.

    Attributes:
        label: the label: as named or, where none are, as most rows write it.
        rows: rows that count as this label.
        written: other ways in which rows write it (case, spaces, composed letters), with the number of rows.
        units: about how many units stand for it in a run, which uses one row of each, drawn at random; None where every
            row is a unit or the labels are not named.
    """

    label: str
    rows: int
    written: Mapping[str, int]
    units: float | None = None


@dataclass(frozen=True)
class Lengths:
    """How long texts are. Private.

    Attributes:
        unit: tokens or words.
        measured: number of texts that were measured, drawn at random where the table has more.
        median, high, largest: of their lengths; nine in ten are at most `high`.
        cut: share of them that is longer than the configuration reads; None where that is not known.
    """

    unit: str
    measured: int
    median: float
    high: float
    largest: float
    cut: float | None


@dataclass(frozen=True)
class Survey:
    """What a table holds. Private: nothing of it may be passed on.

    Attributes:
        rows: number of rows.
        malformed: rows that do not fit the format; they count as empty.
        columns: all columns.
        empty: rows without a text; None where the text column is not there.
        duplicates: rows whose text stands in an earlier row too.
        labels: the named labels or, where none are named, those that were found, the most frequent first.
        others: values of the label column that are no named label, with the number of rows.
        unlabelled: rows without a label.
        units: number of units; rows without an id count as one each.
        without_id: rows without a unit's id.
        median_records, most_records: records per unit.
        lengths: of the texts; None where the text column is not there.
        problems: what keeps a run from doing what the configuration says.
        notes: what the holder should know.
    """

    rows: int
    malformed: int
    columns: Sequence[ColumnFacts]
    empty: int | None = None
    duplicates: int = 0
    labels: Sequence[LabelFacts] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    units: int | None = None
    without_id: int = 0
    median_records: float = 1.0
    most_records: int = 1
    lengths: Lengths | None = None
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Asked:
    """What a configuration says about a table.

    Attributes:
        text_column, label_column, unit_column: names of columns; None: not asked for.
        labels: the named labels.
        named: whether the text column was named by the user.
        schema: attributes, and where the text comes from if not from the text column.
        has_text: whether texts are read at all.
    """

    text_column: str
    label_column: str | None
    unit_column: str | None
    labels: Sequence[str]
    named: bool = True
    schema: Schema = NO_SCHEMA
    has_text: bool = True

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The columns that the text comes from."""
        return self.schema.text_fields or (self.text_column,)


def survey(
    source: Any,
    asked: Asked,
    *,
    dialect: Dialect | None = None,
    count_tokens: Callable[[str], int] | None = None,
    most_tokens: int | None = None,
) -> Survey:
    """Looks at a whole table.

    Args:
        source: as for `tables.read_records`; an iterable of dicts is read once.
        asked: columns and labels.
        dialect: encoding and separator.
        count_tokens: tokens of a text, up to one more than `most_tokens`; None: lengths are counted in words.
        most_tokens: tokens that are read of a record.

    Raises:
        DataError: the table cannot be read as a whole.
    """
    dialect = dialect or Dialect()
    if not hasattr(source, "columns") and not hasattr(source, "column_names") and not isinstance(source, Sequence):
        source = list(source) if isinstance(source, Iterable) else source
    columns, separator = columns_of(source, dialect)
    if separator != AUTO:
        dialect = dataclasses.replace(dialect, separator=separator)
    named = Counter(column.name for column in columns)
    flat = [column for column in columns if not column.nested and named[column.name] == 1]
    if not columns:
        raise DataError("data: is empty: give a table with a header, or with names for its values, and rows")
    if not flat and asked.schema.message is None:
        raise DataError("data: has no column that holds single values; give a table with a column of texts")
    # lists of messages are read as text, and are nothing else
    messages = asked.text_fields if asked.schema.message is not None else ()
    # as labels, which may be of any type that holds single values; by number, since errors name the role, and a name is
    # a record's where the header row is missing
    names = {role_in_schema(f"column {place}", "a label"): column.name for place, column in enumerate(flat)}
    nested = [column.name for column in columns if column.nested and column.name in messages]
    names |= {role_in_schema(f"column {name}", "messages"): name for name in nested}
    raw = read_raw(source, names, dialect)
    if not raw.rows:
        raise DataError("data: has no rows: give a table with at least one")
    values = dict(zip(names.values(), map(list, zip(*raw.rows, strict=True)), strict=True))
    facts = [_column_facts(column, None if column.nested else values.get(column.name)) for column in columns]
    twice = [f"{name!r} names {count} columns, which are not looked at" for name, count in named.items() if count > 1]
    found = Survey(len(raw.rows), raw.malformed, facts, notes=(*raw.notes, *twice))
    found = _with_texts(found, values, asked, count_tokens, most_tokens)
    found = _missing_in_schema(found, "columns.attributes", [n for n in asked.schema.attributes if n not in values])
    found = _with_attributes(found, values, asked.schema, raw)
    found = _with_labels(found, values, asked, raw)
    return _with_units(found, values, asked, raw)


# columns


def _column_facts(column: Column, values: Sequence[Any] | None) -> ColumnFacts:
    """A column's facts; None stands for one that holds lists or structs, which nothing reads."""
    if values is None:
        return ColumnFacts(column.name, column.kind, 0, 0, ())
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    missing = words = 0
    for value in values:
        name = as_name(value)
        if name is None:
            missing += 1
            continue
        short = name[: 2 * _COMPARED_LENGTH]
        if len(counts) < _COUNTED or short in counts:
            counts[short] += 1
        kinds[_kind_of(value, short)] += 1
        words += short.count(" ") + short.count("\n") + 1
    there = len(values) - missing
    kind, most = kinds.most_common(1)[0] if there else ("nothing", 0)
    kind = kind if most >= _MOSTLY * there else "mixed"
    shown = column.kind or kind
    return ColumnFacts(
        column.name, shown, missing, len(counts), _could_be(kind, there, len(counts), words / max(1, there))
    )


def _kind_of(value: Any, name: str) -> str:
    if is_bool(value) or name.casefold() in _TRUTH:
        return "truth values"
    if len(name) <= 2 * _COMPARED_LENGTH - 1:
        if _NUMBER.fullmatch(name):
            return "numbers"
        if _DATE.fullmatch(name):
            return "dates"
    return "words"


def _could_be(kind: str, there: int, different: int, words: float) -> tuple[str, ...]:
    """What a column could be: texts are words and mostly differ, labels are few, ids repeat."""
    if not there:
        return ()
    few = 2 <= different <= _FEW_VALUES and different <= max(2, there / 4)
    if kind in ("truth values", "dates"):
        return ("label", "attribute") if few else ("attribute",)
    uses = []
    if kind in ("words", "mixed") and words >= 3 and different > min(there / 4, _FEW_VALUES):
        uses.append("text")
    if few:
        uses += ["label", "attribute"]
    elif words < 3 and different > _FEW_VALUES:
        # a number of each row would protect that row alone
        uses += ["unit"] * (different < there)
        uses += ["attribute"] * (kind == "numbers")
    return tuple(uses)


# texts


def _with_texts(
    found: Survey,
    values: Mapping[str, Sequence[Any]],
    asked: Asked,
    count_tokens: Callable[[str], int] | None,
    most_tokens: int | None,
) -> Survey:
    if not asked.has_text:
        return found
    missing = [name for name in asked.text_fields if name not in values]
    if missing and asked.schema.text is not None:
        return _missing_in_schema(found, "columns.text", missing)
    if missing:
        return _missing_column(found, "text_column", asked.text_column, "text", named=asked.named)
    texts = texts_of(asked.schema, {name: values[name] for name in asked.text_fields}, found.rows)
    empty = sum(not text or text.isspace() for text in texts)
    seen: set[bytes] = set()
    duplicates = 0
    for text in texts:
        if text and not text.isspace():
            digest = hashlib.blake2b(text.strip().encode("utf-8", "replace"), digest_size=16).digest()
            duplicates += digest in seen
            seen.add(digest)
    # a fixed seed: nothing of this is released
    chosen = np.random.default_rng(0).permutation(len(texts))[:MEASURED].tolist()
    lengths = _lengths([texts[place] for place in chosen], count_tokens, most_tokens)
    problems = list(found.problems)
    if 2 * empty > len(texts):
        problems.append(f"text_column = {asked.text_column!r}: most rows have no text in it; name another column")
    return dataclasses.replace(found, empty=empty, duplicates=duplicates, lengths=lengths, problems=problems)


def _lengths(texts: Sequence[str], count_tokens: Callable[[str], int] | None, most: int | None) -> Lengths:
    if count_tokens is None:
        sizes = np.array([word_count(text[:_LONGEST_TEXT]) for text in texts])
        return Lengths("words", len(texts), *_quantiles(sizes), cut=None)
    sizes = np.array([count_tokens(text) for text in texts])
    cut = None if most is None else float((sizes > most).mean())
    return Lengths("tokens", len(texts), *_quantiles(sizes), cut=cut)


def _quantiles(sizes: Any) -> tuple[float, float, float]:
    return float(np.median(sizes)), float(np.quantile(sizes, 0.9)), float(sizes.max())


# labels


def _with_labels(found: Survey, values: Mapping[str, Sequence[Any]], asked: Asked, raw: RawTable) -> Survey:
    column = asked.label_column
    if column is None:
        return found
    if column not in values:
        return _missing_column(found, "label_column", column, "label")
    own = values[column]
    if not asked.labels:
        return _with_found_labels(found, own)
    matcher, names = LabelMatcher(asked.labels), raw.class_names.get(column)
    written: dict[str, Counter[str]] = {label: Counter() for label in asked.labels}
    others: Counter[str] = Counter()
    unlabelled = 0
    for value in own:
        name, label = as_name(value), matcher.match(value, names)
        if label is not None:
            written[label][_as_written(value)] += 1
        elif name is None:
            unlabelled += 1
        elif len(others) < _COUNTED or _shown(name) in others:
            others[_shown(name)] += 1
    labels = [_label_facts(label, counts) for label, counts in written.items()]
    return dataclasses.replace(
        found,
        labels=labels,
        others=dict(others.most_common()),
        unlabelled=unlabelled,
        problems=[*found.problems, *_empty_labels(labels, others)],
        notes=[*found.notes, *_near_labels(labels, others)],
    )


def _with_found_labels(found: Survey, values: Sequence[Any]) -> Survey:
    """Where no labels are named: those in the column, the most frequent spelling first."""
    groups: dict[str, Counter[str]] = {}
    for value in values:
        if as_name(value) is not None:
            key = normal_form(_shown(_as_written(value))).casefold()
            if len(groups) < _COUNTED or key in groups:
                groups.setdefault(key, Counter())[_as_written(value)] += 1
    labels = [_label_facts(counts.most_common(1)[0][0].strip(), counts) for counts in groups.values()]
    labels.sort(key=lambda facts: -facts.rows)
    unlabelled = sum(as_name(value) is None for value in values)
    notes = (*found.notes, "labels: none are named; the label set is public, so name those that may be known")
    return dataclasses.replace(found, labels=labels, unlabelled=unlabelled, notes=notes)


def _label_facts(label: str, written: Counter[str]) -> LabelFacts:
    return LabelFacts(label, written.total(), {name: count for name, count in written.most_common() if name != label})


def _as_written(value: Any) -> str:
    return _shown(value if isinstance(value, str) else as_name(value) or "")


def _shown(name: str) -> str:
    return name[:_COMPARED_LENGTH]


def _empty_labels(labels: Sequence[LabelFacts], others: Counter[str]) -> list[str]:
    """Named labels that no row has, with what they may be a typing error for."""
    candidates = [name for name, _ in others.most_common(_COMPARED)]
    said = []
    for facts in labels:
        if not facts.rows:
            near = _nearest(facts.label, candidates)
            meant = f"; did you mean {near!r} ({others[near]:,} rows)?" if near is not None else ""
            said.append(f"labels: no row has {facts.label!r}{meant}")
    return said


def _near_labels(labels: Sequence[LabelFacts], others: Counter[str]) -> list[str]:
    """Values that are nearly a named label that some rows have, and therefore take no part."""
    known = [facts.label for facts in labels if facts.rows][:_COMPARED]
    said = []
    for name, count in others.most_common(_COMPARED):
        near = _nearest(name, known)
        if near is not None:
            said.append(f"labels: {count:,} rows have {name!r}, which is not {near!r}, so they take no part")
    return said


def _nearest(name: str, candidates: Sequence[str]) -> str | None:
    """The candidate that is nearly the same, the earlier of equals, bounded in time; None where there is none."""
    loose = loosened(_shown(name))
    same = next((other for other in candidates if loosened(_shown(other)) == loose and loose), None)
    if same is not None:
        return same
    folded: dict[str, str] = {}
    for other in candidates[:_COMPARED]:
        # of several spellings the first, which most rows have
        folded.setdefault(_shown(other).casefold(), other)
    near = difflib.get_close_matches(_shown(name).casefold(), list(folded), n=1, cutoff=_NEAR)
    return folded[near[0]] if near else None


# units


def _with_units(found: Survey, values: Mapping[str, Sequence[Any]], asked: Asked, raw: RawTable) -> Survey:
    column = asked.unit_column
    if column is None:
        return dataclasses.replace(found, units=found.rows)
    if column not in values:
        return _missing_column(found, "unit_column", column, "unit")
    try:
        keys = [unit_key(value) for value in values[column]]
    except (UnreadableUnit, RecursionError, OverflowError, ValueError):
        problem = f"unit_column = {column!r}: has ids that cannot be told apart; write them as strings or whole numbers"
        return dataclasses.replace(found, problems=[*found.problems, problem])
    counts = Counter(key for key in keys if key is not None)
    without = sum(key is None for key in keys)
    sizes = [*counts.values(), *[1] * without]
    labels = found.labels
    named = asked.label_column
    if asked.labels and named is not None and named in values:
        matcher, names = LabelMatcher(asked.labels), raw.class_names.get(named)
        units = dict.fromkeys(asked.labels, 0.0)
        for key, value in zip(keys, values[named], strict=True):
            label = matcher.match(value, names)
            if label is not None:
                units[label] += 1.0 if key is None else 1.0 / counts[key]
        labels = [dataclasses.replace(facts, units=units[facts.label]) for facts in labels]
    return dataclasses.replace(
        found,
        labels=labels,
        units=len(sizes),
        without_id=without,
        median_records=float(statistics.median(sizes)),
        most_records=max(sizes),
    )


def _missing_column(found: Survey, field_name: str, column: str, use: str, *, named: bool = True) -> Survey:
    fitting = [facts.name for facts in found.columns if use in facts.could_be]
    option = "--" + field_name.replace("_", "-")
    advice = f"; it could be {' or '.join(map(repr, fitting))} ({option})" if fitting else f"; name another ({option})"
    said = f"{field_name} = {column!r}: is not a column of the table{advice}"
    if column in [facts.name for facts in found.columns]:
        said = (
            f"{field_name} = {column!r}: holds lists or structs{advice}. Lists of chat messages are read with a "
            'template in the configuration, such as [columns] message = "{role}: {content}\\n"'
        )
    if not named:
        return dataclasses.replace(found, notes=[*found.notes, said])
    return dataclasses.replace(found, problems=[*found.problems, said])


def _with_attributes(found: Survey, values: Mapping[str, Sequence[Any]], schema: Schema, raw: RawTable) -> Survey:
    """How the values of attributes will be read."""
    problems, notes = list(found.problems), list(found.notes)
    for name, kind in schema.attributes.items():
        if name in values:
            look = read_codes(values[name], kind, raw.class_names.get(name))[1]
            said = [f"columns.attributes.{name}: {note}" for note in look.notes]
            (problems if look.hardly_any else notes).extend(said)
    return dataclasses.replace(found, problems=problems, notes=notes)


def _missing_in_schema(found: Survey, part: str, names: Sequence[str]) -> Survey:
    """Columns that a schema names and the table does not have."""
    said = [f"{part}: {name!r} is not a column of the table that could be one; name another" for name in names]
    return dataclasses.replace(found, problems=[*found.problems, *said])
