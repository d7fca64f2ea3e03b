"""Input and output of all readers: a dialect, raw values, and errors about the table, never about a cell."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from plainchant.data.encodings import AUTO
from plainchant.errors import DataError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
_PLAIN_NAME = re.compile(r"[^\W\d][\w.:-]{0,39}")
_NAMES_SHOWN = 20

Wanted: TypeAlias = Mapping[str, str | None]
"""The name of the column for each role; None: not asked for.

A role is one of the options text_column, label_column and unit_column, or a part of a schema (`role_in_schema`).
"""
Row: TypeAlias = tuple[Any, ...]
"""The raw values of the wanted columns; None means a missing one."""
Readers: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Calls a function for each item, at once or on several machines, and gives the results in order, as `map` does."""


class RowFilter(Protocol):
    """Whether a row is read, by the raw value of its unit column; called once for each row, in order."""

    def __call__(self, unit: Any) -> bool: ...

    def starting_at(self, row: int) -> "RowFilter":
        """The same for a part of the table that begins with that row."""


Keep: TypeAlias = RowFilter | None
"""Which rows are read; None: all are."""


@dataclass(frozen=True)
class Dialect:
    """How files are read.

    Attributes:
        encoding: a character encoding, or auto.
        separator: the separator of CSV fields: one character, comma, semicolon, tab, bar, or auto.
        allow_malformed: read a table even if most of its rows are malformed or empty.
        options: whether the user has options for these three, so that errors may name them.
    """

    encoding: str = AUTO
    separator: str = AUTO
    allow_malformed: bool = False
    options: bool = True

    @property
    def hint(self) -> str:
        """What to do about a file in another encoding."""
        return "set encoding (--encoding) to what it was saved in" if self.options else "save it as UTF-8"


@dataclass(frozen=True)
class RawTable:
    """The raw values of a table, or of the part of it that is kept.

    Attributes:
        rows: the wanted columns' values.
        malformed: number of rows among them that do not fit the format.
        notes: sentences for the holder of the data.
        class_names: for each ClassLabel column of a data set, its names.
        unit_kind: what the ids of a typed unit column are compared with (`arrow.unit_kind`); None: untyped or missing.
    """

    rows: list[Row] = field(repr=False)
    malformed: int = 0
    notes: tuple[str, ...] = ()
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unit_kind: str | None = None


def describe(source: Any) -> str:
    """A description of a source that shows none of its content."""
    is_path = isinstance(source, (str, os.PathLike))
    return f"data {str(source)!r}" if is_path else f"data of type {type(source).__name__}"


def separator_of(name: str) -> str | None:
    """The character that an option names; None if it names none."""
    found = SEPARATORS.get(name, name)
    return found if len(found) == 1 and found not in '"\r\n' and ord(found) < 128 else None


_PURPOSES = {"text_column": "a text", "label_column": "a label", "unit_column": "a unit's id"}


def role_in_schema(part: str, purpose: str) -> str:
    """The role of a column that a schema names.

    Args:
        part: the part of the configuration, such as columns.attributes.price.
        purpose: what the column is to be, such as "a number".
    """
    return f"{part} ({purpose})"


def purpose_of(role: str) -> str:
    """What a column is to be: "a text", "messages", "a label", "a unit's id", what the schema says, or "a column"."""
    if role in _PURPOSES:
        return _PURPOSES[role]
    return role[role.rindex("(") + 1 : -1] if role.endswith(")") else "a column"


def check_path(path: Path) -> None:
    """Refuses a path that the file system cannot look up; the reader handles one that does not exist."""
    try:
        path.stat()
    except FileNotFoundError:
        return
    except ValueError:
        raise DataError(f"{describe(path)} is not a valid path: check it.") from None
    except OSError as error:
        raise DataError(f"{describe(path)} cannot be read ({error.strerror}): check the path.") from None


def check_columns(found: Iterable[str], wanted: Wanted, where: str, listed: str = "") -> None:
    """Refuses a table whose header or schema lacks a wanted column."""
    found = list(found)
    for role, name in wanted.items():
        if name is not None and name not in found:
            raise no_column(role, name, f"{where}, which has {listed or _list_names(found)}")
        if name is not None and found.count(name) > 1:
            raise DataError(f"{role}={name!r} names {found.count(name)} columns of {where}: rename all but one.")


def no_column(role: str, name: str, where: str) -> DataError:
    """The error of a column that a table does not have."""
    remedy = f"set {role} (--{role.replace('_', '-')})" if role in _PURPOSES else "name one in [columns]"
    return DataError(f"{role}={name!r} is not a column of {where}: {remedy}.")


def _list_names(names: Sequence[str]) -> str:
    """The column names that look like names."""
    plain = [name for name in names if _PLAIN_NAME.fullmatch(name)]
    shown = ", ".join(plain[:_NAMES_SHOWN])
    hidden = len(names) - len(plain[:_NAMES_SHOWN])
    if not hidden:
        return f"the columns {shown}" if shown else "no columns"
    counted = f"{hidden} whose names are not shown (more than one word, or many; is the header row missing?)"
    return f"the columns {shown} and {counted}" if shown else counted
