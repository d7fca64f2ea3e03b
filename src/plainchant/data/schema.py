"""The schema of a table: what its columns are, by public rules alone (guarantee 14.1).

An attribute is a column beside the text. Each of its cells becomes a *code*: a small integer that is a function of this
cell and of the public schema, whatever the other rows hold. The last code is the missing one. It also stands for cells
that cannot be read and for values that no list names. Numbers and dates beyond the ends count to the outermost code.
"""

import bisect
import datetime
import functools
import json
import math
import numbers
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from plainchant.data.labels import LabelMatcher, normal_form
from plainchant.data.values import as_name, as_text, is_bool, is_missing
from plainchant.errors import ConfigError

# An attribute with more codes is refused: hardly any of them would have a record.
MOST_CODES = 5_000
# Longer values of a category that is found in the data count as missing.
LONGEST_KEY = 100
# Numbers, dates and truth values that are written with more characters cannot be read.
_LONGEST_SCALAR = 64
_FIELD = re.compile(r"\{([^{}]+)\}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_TRUE = ("true", "yes", "on", "1", "1.0", "t", "y")
_FALSE = ("false", "no", "off", "0", "0.0", "f", "n")
# What a prompt shows for a missing value.
UNKNOWN = "unknown"

Code: TypeAlias = int | str | None
"""A cell of an attribute: a code or, for a category that is found in the data, its value or None."""
Draw: TypeAlias = Callable[[int], int]
"""An integer uniform below a bound, as of a `RandomSource`."""
Value: TypeAlias = str | int | float | bool | datetime.date | None
"""A cell of a release."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Kind(_Frozen):
    """What all kinds of attributes share."""

    def revived(self, value: Any) -> "Value":
        """A value of a release, from JSON."""
        found: Value = value
        return found

    def beyond(self, cell: Any) -> bool:
        """Whether a cell lies beyond the ends, so that it counts to the outermost code."""
        return False

    def code_of(self, value: str | None) -> int:
        """The code of a value that was read before the values were found; only categories have such."""
        raise ConfigError(f"type = {getattr(self, 'type', None)!r}: its values are not found in the data")


# Made once for a list of values, which may have thousands and is asked for each record.
@functools.lru_cache(maxsize=64)
def _codes_of(values: tuple[str, ...]) -> Mapping[str, int]:
    return {value: code for code, value in enumerate(values)}


@functools.lru_cache(maxsize=64)
def _matcher_of(values: tuple[str, ...]) -> LabelMatcher:
    return LabelMatcher(values)


class Category(_Kind):
    """A category. Without a list its values are found in the data, at a share of the budget and of δ (guarantee 14.3).

    >>> Category(values=("low", "high")).reader()("High"), Category(values=("low", "high")).reader()("medium")
    (1, 2)
    """

    purpose: ClassVar[str] = "a category"
    form: ClassVar[str] = "a value is one of the list, in upper or lower case"
    column_type: ClassVar[str] = "string"

    type: Literal["category"] = "category"
    """Kind of the attribute."""
    values: tuple[str, ...] | None = None
    """The values, a public list; any other counts as missing. Unset: values that many records have are found, with \
noise."""
    meaning: str = ""
    """Description for the data dictionary."""

    @model_validator(mode="after")
    def _check(self) -> "Category":
        forms = [normal_form(value) for value in self.values or ()]
        if self.values is not None and (not forms or not all(forms) or len(set(forms)) != len(forms)):
            raise ConfigError(f"values = {list(self.values)}: name at least one value, none blank and each once")
        _check_size(self.size, "values")
        return self

    @property
    def size(self) -> int:
        """Number of codes; the last one is the missing value."""
        return len(self.values or ()) + 1

    def reader(self, names: Sequence[str] | None = None) -> Callable[[Any], Code]:
        """The function from a cell to its code.

        Args:
            names: the names of a ClassLabel, where the column is one.
        """
        if self.values is None:
            return lambda cell: _key(cell, names)
        matcher, codes = _matcher_of(self.values), _codes_of(self.values)
        return lambda cell: codes.get(matcher.match(cell, names) or "", len(codes))

    def code_of(self, value: str | None) -> int:
        """The code of a value that was read before the values were found; the missing one where it is none of them."""
        codes = _codes_of(self.values or ())
        return codes.get(value or "", len(codes))

    def shown(self, code: int) -> str:
        """A code in a prompt."""
        values = self.values or ()
        return values[code] if code < len(values) else UNKNOWN

    def drawn(self, code: int, draw: Draw) -> Value:
        """A value of this code."""
        values = self.values or ()
        return values[code] if code < len(values) else None

    def described(self) -> str:
        """Its values, for the data dictionary."""
        return ", ".join(self.values or ())


class Number(_Kind):
    """A number, by public cut points: a code for each interval between two of them.

    >>> price = Number(cuts=(0, 10, 100))
    >>> [price.reader()(cell) for cell in (3, "12.5", 1000, "n/a")]
    [0, 1, 1, 2]
    """

    purpose: ClassVar[str] = "a number"
    form: ClassVar[str] = "numbers have a point before decimals and nothing between thousands, as in 1234.5"

    type: Literal["number"] = "number"
    """Kind of the attribute."""
    cuts: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    """Cut points, rising: each interval reaches from one to just below the next. Numbers beyond the ends count to the \
outermost interval. Five stars are 1, 2, 3, 4, 5, 6."""
    whole: bool | None = None
    """Whether the numbers are whole. Unset: if all cut points are."""
    meaning: str = ""
    """Description for the data dictionary."""

    @model_validator(mode="after")
    def _check(self) -> "Number":
        if len(self.cuts) < 2 or sorted(set(self.cuts)) != list(self.cuts):
            raise ConfigError(f"cuts = {list(self.cuts)}: give two cut points or more, rising")
        if self.whole and not all(cut.is_integer() for cut in self.cuts):
            raise ConfigError(f"cuts = {list(self.cuts)}: must be whole numbers with whole = true")
        if self.is_whole and max(map(abs, self.cuts)) >= 2**63:
            raise ConfigError(
                f"cuts = {list(self.cuts)}: whole numbers of a release lie between -2^63 and 2^63; set whole = false"
            )
        _check_size(self.size, "cuts")
        return self

    @property
    def size(self) -> int:
        """Number of codes; the last one is the missing value."""
        return len(self.cuts)

    @property
    def is_whole(self) -> bool:
        """Whether the numbers of a release are whole."""
        return all(cut.is_integer() for cut in self.cuts) if self.whole is None else self.whole

    @property
    def column_type(self) -> str:
        """Arrow's name for the type of the released column."""
        return "int64" if self.is_whole else "double"

    def reader(self, names: Sequence[str] | None = None) -> Callable[[Any], Code]:
        """The function from a cell to its code."""
        return self._code

    def _code(self, cell: Any) -> int:
        number = _number(cell)
        if number is None:
            return self.size - 1
        return min(max(bisect.bisect_right(self.cuts, number) - 1, 0), self.size - 2)

    def beyond(self, cell: Any) -> bool:
        """See `_Kind`; the last cut point lies beyond."""
        number = _number(cell)
        return number is not None and not self.cuts[0] <= number < self.cuts[-1]

    def shown(self, code: int) -> str:
        """A code in a prompt."""
        if code == self.size - 1:
            return UNKNOWN
        low, high = self.cuts[code], self.cuts[code + 1] - self.is_whole
        return f"{low:.12g}" if self.is_whole and low == high else f"{low:.12g} to {high:.12g}"

    def drawn(self, code: int, draw: Draw) -> Value:
        """A value of this code: uniform in its interval, in about three digits of its width."""
        if code == self.size - 1:
            return None
        low, high = self.cuts[code], self.cuts[code + 1]
        if self.is_whole:
            return int(low) + draw(int(high) - int(low))
        digits = 2 - math.floor(math.log10(high - low))
        drawn = round(low + (high - low) * draw(2**53) / 2**53, digits)
        return drawn if low <= drawn < high else low

    def described(self) -> str:
        """Its values, for the data dictionary."""
        if not self.is_whole:
            between = ", ".join(f"{cut:.12g}" for cut in self.cuts)
            return f"{self.cuts[0]:.12g} to {self.cuts[-1]:.12g}, uniform between {between}"
        said = f"whole numbers {self.cuts[0]:.12g} to {self.cuts[-1] - 1:.12g}"
        within = [self.shown(code) for code in range(self.size - 1)]
        return said + (f", uniform within {', '.join(within)}" if any(" to " in own for own in within) else "")


class Date(_Kind):
    """A date, by a public grain between public bounds.

    >>> opened = Date(first="2024-01-01", last="2024-12-31", grain="month")
    >>> opened.size, opened.reader()("2024-03-09 12:00"), opened.shown(2)
    (13, 2, '2024-03')
    """

    purpose: ClassVar[str] = "a date"
    form: ClassVar[str] = "dates begin with year, month and day, as in 2024-03-09"
    column_type: ClassVar[str] = "timestamp[us]"

    type: Literal["date"] = "date"
    """Kind of the attribute."""
    first: datetime.date
    """First day. Earlier dates count to its year, month, week or day."""
    last: datetime.date
    """Last day. Later dates count to its year, month, week or day."""
    grain: Literal["year", "month", "week", "day"] = "month"
    """How finely dates are read. A release has a day drawn uniformly from its year, month or week."""
    meaning: str = ""
    """Description for the data dictionary."""

    @model_validator(mode="after")
    def _check(self) -> "Date":
        if self.first > self.last:
            raise ConfigError(f"first = {self.first}: must not be after last = {self.last}")
        _check_size(self.size, "grain")
        return self

    @property
    def size(self) -> int:
        """Number of codes; the last one is the missing value."""
        return self._grain(self.last) - self._grain(self.first) + 2

    def revived(self, value: Any) -> Value:
        """A value of a release, from JSON."""
        return None if value is None else datetime.date.fromisoformat(value)

    def _grain(self, day: datetime.date) -> int:
        """The number of a day's year, month, week (from Monday) or day."""
        if self.grain == "year":
            return day.year
        if self.grain == "month":
            return 12 * day.year + day.month - 1
        return (day.toordinal() - 1) // (7 if self.grain == "week" else 1)

    def _begin(self, code: int) -> datetime.date:
        """The first day of a code, before the bounds cut it."""
        number = self._grain(self.first) + code
        if self.grain == "year":
            return datetime.date(number, 1, 1)
        if self.grain == "month":
            return datetime.date(number // 12, number % 12 + 1, 1)
        return datetime.date.fromordinal(max(1, number * (7 if self.grain == "week" else 1) + 1))

    def reader(self, names: Sequence[str] | None = None) -> Callable[[Any], Code]:
        """The function from a cell to its code."""
        return self._code

    def _code(self, cell: Any) -> int:
        day = _day(cell)
        if day is None:
            return self.size - 1
        return self._grain(min(max(day, self.first), self.last)) - self._grain(self.first)

    def beyond(self, cell: Any) -> bool:
        """See `_Kind`."""
        day = _day(cell)
        return day is not None and not self.first <= day <= self.last

    def shown(self, code: int) -> str:
        """A code in a prompt."""
        if code == self.size - 1:
            return UNKNOWN
        begin = self._begin(code)
        written = {"year": f"{begin.year:04}", "month": begin.isoformat()[:7], "week": f"week of {begin.isoformat()}"}
        return written.get(self.grain, begin.isoformat())

    def drawn(self, code: int, draw: Draw) -> Value:
        """A value of this code: a day drawn uniformly from it, within the bounds."""
        if code == self.size - 1:
            return None
        begin = max(self._begin(code), self.first)
        end = self.last if code == self.size - 2 else self._begin(code + 1) - datetime.timedelta(1)
        return begin + datetime.timedelta(draw((end - begin).days + 1))

    def described(self) -> str:
        """Its values, for the data dictionary."""
        return f"{self.first} to {self.last}" + f", uniform in its {self.grain}" * (self.grain != "day")


class Boolean(_Kind):
    """A truth value: true or false, yes or no, on or off, 1 or 0.

    >>> [Boolean().reader()(cell) for cell in (False, "Yes", 1.0, "perhaps")]
    [0, 1, 1, 2]
    """

    purpose: ClassVar[str] = "a truth value"
    form: ClassVar[str] = "truth values are true and false, yes and no, on and off, or 1 and 0"
    column_type: ClassVar[str] = "bool"
    size: ClassVar[int] = 3

    type: Literal["boolean"] = "boolean"
    """Kind of the attribute."""
    meaning: str = ""
    """Description for the data dictionary."""

    def reader(self, names: Sequence[str] | None = None) -> Callable[[Any], Code]:
        """The function from a cell to its code."""
        return self._code

    def _code(self, cell: Any) -> int:
        name = _short_name(cell)
        word = "" if name is None else name.casefold()
        return 0 if word in _FALSE else 1 if word in _TRUE else 2

    def shown(self, code: int) -> str:
        """A code in a prompt."""
        return ("no", "yes", UNKNOWN)[code]

    def drawn(self, code: int, draw: Draw) -> Value:
        """A value of this code."""
        return (False, True, None)[code]

    def described(self) -> str:
        """Its values, for the data dictionary."""
        return "true, false"


Attribute: TypeAlias = Annotated[Category | Number | Date | Boolean, Field(discriminator="type")]
"""What a column beside the text is."""


class Schema(_Frozen):
    """What the columns of the private table are. A column that it does not name is not read.

    >>> schema = Schema(text="{subject}: {body}", attributes={"stars": {"type": "number", "cuts": [1, 2, 3, 4, 5]}})
    >>> schema.text_fields, schema.filled({"subject": "Lamp", "body": "It is broken."})
    (('subject', 'body'), 'Lamp: It is broken.')
    """

    text: str | None = None
    """Template of the text from several columns, such as "{subject}\\n\\n{body}". Unset: the text column."""
    message: str | None = None
    """Template of one message where a text column holds lists of chat messages, such as "{role}: {content}\\n". A \
message that lacks one of these fields is left out."""
    attributes: Mapping[str, Attribute] = {}
    """Columns beside the text, by name: categories, numbers, dates and truth values."""
    of_label: Mapping[str, Mapping[str, str]] = {}
    """Columns of the release that follow from the label, such as the domain of an intent: by name, the value for each \
label. They are public, so they are not read and cost nothing."""

    @model_validator(mode="after")
    def _check(self) -> "Schema":
        if self.text is not None and not self.text_fields:
            raise ConfigError(f"columns.text = {self.text!r}: names no column; write each as {{column}}")
        if self.message is not None and not _FIELD.search(self.message):
            raise ConfigError(f"columns.message = {self.message!r}: names no field; write each as {{field}}")
        return self

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The columns that the template of the text names, each once."""
        return tuple(dict.fromkeys(_FIELD.findall(self.text or "")))

    def following(self, label: str | None) -> dict[str, str]:
        """The values that follow from a label.

        >>> Schema(of_label={"domain": {"transfer": "bank", "alarm": "home"}}).following("alarm")
        {'domain': 'home'}
        """
        return {name: values[label or ""] for name, values in self.of_label.items()}

    @property
    def found(self) -> tuple[str, ...]:
        """The attributes whose values are found in the data."""
        return tuple(
            name for name, kind in self.attributes.items() if isinstance(kind, Category) and kind.values is None
        )

    def codes_of(self, read: Sequence[Code]) -> tuple[int, ...]:
        """The codes of a record, once the values that are found in the data are known."""
        kinds = self.attributes.values()
        return tuple(
            code if isinstance(code, int) else kind.code_of(code) for code, kind in zip(read, kinds, strict=True)
        )

    def shown(self, codes: Sequence[int]) -> str:
        r"""Attributes as a prompt shows them, a line each.

        >>> schema = Schema(attributes={"stars": {"type": "number", "cuts": [1, 3, 5]}, "open": {"type": "boolean"}})
        >>> schema.shown((1, 2))
        'Stars: 3 to 4\nOpen: unknown\n'
        """
        kinds = zip(self.attributes.items(), codes, strict=True)
        return "".join(_line(name, kind.shown(code)) for (name, kind), code in kinds)

    @property
    def fields(self) -> tuple[str, ...]:
        """How each of these lines begins: the attribute's name as shown, with its colon."""
        return tuple(_line(name, "").rstrip() for name in self.attributes)

    @property
    def begins(self) -> str | None:
        """How the first of these lines begins; None where there are no attributes."""
        return next(iter(self.fields), None)

    def made_up(self, number: int) -> str:
        """The same for a made-up row, where none is drawn yet; public, and the same for the same number."""
        chance = np.random.default_rng(number)
        # any but a missing value, which is the only one where values are found in the data
        codes = [int(chance.integers(max(1, kind.size - 1))) for kind in self.attributes.values()]
        return self.shown(codes)

    def shown_of(self, cells: Mapping[str, Any]) -> str:
        """The same for the cells of a public example; nothing where it has none."""
        if not cells:
            return ""
        shown = []
        for name, kind in self.attributes.items():
            code = kind.reader()(cells.get(name))
            shown.append(_line(name, kind.shown(code) if isinstance(code, int) else code or UNKNOWN))
        return "".join(shown)

    def filled(self, cells: Mapping[str, str]) -> str:
        """The text of a row: nothing where all its cells are blank."""
        if not any(text.strip() for text in cells.values()):
            return ""
        return _filled(self.text or "", cells.get)

    def text_of(self, cell: Any) -> str:
        """The text of one cell: a string, or a list of chat messages by their template."""
        messages = None if self.message is None else _messages(cell)
        if self.message is None or messages is None:
            return as_text(cell)
        fields = _FIELD.findall(self.message)
        # a message without one of the fields, such as a call of a tool, is left out
        whole = [own for own in messages if all(own.get(name) is not None for name in fields)]
        return "".join(_filled(self.message, {name: _plain(own[name]) for name in fields}.get) for own in whole).strip()


def _messages(cell: Any) -> list[Mapping[str, Any]] | None:
    """The messages in a cell: a list of them, an array, or JSON text; None where there is no such list."""
    if isinstance(cell, str) and cell.lstrip()[:1] == "[":
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    elif isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if not isinstance(cell, Sequence) or isinstance(cell, str | bytes):
        return None
    return [item for item in cell if isinstance(item, Mapping)]


def _plain(value: Any) -> Any:
    """What a message says, where that is a list of parts: those that are text."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list | tuple):
        return value
    return "".join(as_text(part.get("text")) for part in value if isinstance(part, Mapping))


def _line(name: str, value: str) -> str:
    return f"{name[:1].upper()}{name[1:]}: {value}\n"


def _filled(template: str, field: Callable[[str], Any]) -> str:
    """A template with its fields, in one pass: what a cell holds is never taken for a field."""
    return _FIELD.sub(lambda found: as_text(field(found[1])), template)


def _check_size(size: int, name: str) -> None:
    if size > MOST_CODES:
        raise ConfigError(f"{name}: makes {size} different values; at most {MOST_CODES} can be counted; use fewer")


def _short_name(cell: Any, longest: int = _LONGEST_SCALAR) -> str | None:
    """A cell as a word; None where it is missing, too long to be read, or holds several values."""
    if isinstance(cell, str | bytes):
        return as_name(cell) if len(cell) <= longest else None
    return None if isinstance(cell, Collection) else as_name(cell)


def _key(cell: Any, names: Sequence[str] | None) -> str | None:
    name = _short_name(cell, LONGEST_KEY)
    if name is not None and names is not None and name.isdecimal() and len(name) < 10 and int(name) < len(names):
        name = names[int(name)]
    # cut before work: composing a long word is not linear
    return None if name is None or len(name) > LONGEST_KEY else normal_form(name) or None


def _number(cell: Any) -> float | None:
    if is_missing(cell):
        return None
    try:
        if isinstance(cell, str):
            # float() reads more than numbers as they are written: 1_000, infinity
            number = float(cell) if len(cell) <= _LONGEST_SCALAR and _NUMBER.fullmatch(cell) else math.nan
        elif is_bool(cell) or isinstance(cell, numbers.Real | Decimal):
            number = float(cell)
        else:
            return None
    except OverflowError:
        return math.inf if cell > 0 else -math.inf
    except (ValueError, TypeError, ArithmeticError):
        return None
    return None if math.isnan(number) else number


def _day(cell: Any) -> datetime.date | None:
    if is_missing(cell):
        return None
    try:
        if isinstance(cell, datetime.datetime):
            return cell.date()
        if isinstance(cell, datetime.date):
            return cell
        if type(cell).__name__ == "datetime64":
            found = cell.astype("datetime64[D]").item()
            return found if isinstance(found, datetime.date) else None
        written = _DAY.match(cell.strip()) if isinstance(cell, str) and len(cell) <= _LONGEST_SCALAR else None
        return None if written is None else datetime.date.fromisoformat(written[0])
    except (ValueError, TypeError, OverflowError):
        return None
