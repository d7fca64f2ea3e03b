r"""Cells: what a text, a label and a unit's id are, each a function of one cell (guarantee 3.1, 9).

- **Text**: a string as it is; bytes as UTF-8; a number or a truth value as its `str`; missing (None, NaN, NA, a key
  that the row lacks), a list, a dict and anything else: the empty text, which is a valid record.
- **Label**: the `str` of any value, without surrounding white space; missing or blank: None. A whole number of a
  fractional type loses its ".0": a table that turns integers into floats because another row lacks a value must not
  change this one.
- **Characters** of texts and labels: "\r\n" becomes a newline; other control characters than newline and tab, NUL
  included, become a space; invalid UTF-8 and lone surrogates become the replacement character U+FFFD.
- **Unit**: the value itself. Two different values never become one and one never becomes many, so nothing is trimmed,
  cleaned or cut. Numbers are the same where they are equal (1 and 1.0, whatever their types); a string is never a
  number, and a truth value is neither. Points in time are the same where they are the same instant. Missing (None, NA,
  NaN, NaT): None, which makes the row its own unit. Refused: lists, dicts, and floating-point numbers beyond what
  their type can count to, since two ids may have become one.
"""

import math
import numbers
import re
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

from plainchant.data.moments import Moment, is_numpy_time, moment_of

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SPACES = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Ids that are not strings begin with it; a string that begins with it is marked as well.
_MARK = "\x00"
# Powers of ten up to which a decimal number is compared with the other kinds of numbers.
_LARGEST_EXPONENT = 10_000
_LARGEST_BITS = 33_000  # fewer than in 10^_LARGEST_EXPONENT
_DOUBLE_BITS = 53  # significant bits of a double
_MISSING_TYPES = ("NAType", "NaTType", "NoneType")  # pandas' missing values, without importing pandas


class UnreadableUnit(ValueError):
    """A value of a type that cannot serve as an id; the message has the type's name, never the value."""


def as_text(value: Any) -> str:
    """The text of a cell."""
    if isinstance(value, str):
        return clean(value)
    return clean(_scalar(value)) if is_bool(value) or isinstance(value, (bytes, numbers.Number)) else ""


def as_name(value: Any) -> str | None:
    """The label of a cell, as written there."""
    return clean(value if isinstance(value, str) else _scalar(value)).strip() or None


def clean(text: str) -> str:
    """Text without control characters and surrogates, in time proportional to its length."""
    text = text.replace("\r\n", "\n")
    if _CONTROL.search(text):
        text = text.translate(_SPACES)
    return _SURROGATE.sub("\ufffd", text)


def is_bool(value: Any) -> bool:
    """Whether a cell is a truth value, numpy's included."""
    return type(value).__name__ in ("bool", "bool_")


def is_missing(value: Any) -> bool:
    """Whether a cell is None, or pandas' or numpy's missing value; NaN is a number."""
    return type(value).__name__ in _MISSING_TYPES or (is_numpy_time(value) and bool(value != value))


def _scalar(value: Any) -> str:
    if is_missing(value):
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


def unit_key(value: Any) -> str | None:
    """The identity of a unit as a string: equal for equal values and different for different ones; None: missing.

    A string is its own identity. Anything else begins with NUL and its kind.

    Raises:
        UnreadableUnit: the value's type cannot serve as an id.
    """
    if isinstance(value, str):
        return f"{_MARK}str:{value}" if value.startswith(_MARK) else str.__str__(value)
    if is_missing(value):
        return None
    if is_bool(value):
        return f"{_MARK}bool:{bool(value)}"
    moment = value if isinstance(value, Moment) else moment_of(value)
    if moment is not None:
        return f"{_MARK}{moment.key}"
    if is_numpy_time(value):
        raise UnreadableUnit(f"{type(value).__name__} without a fixed scale")
    if isinstance(value, (numbers.Number, Decimal)):
        return _number_key(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{_MARK}bytes:{bytes(value).hex()}"
    if isinstance(value, uuid.UUID):
        return f"{_MARK}uuid:{value.hex}"
    raise UnreadableUnit(type(value).__name__)


def check_exact(value: Any, bits: int) -> None:
    """Refuses a number from which a floating-point type cannot distinguish the next whole one.

    Args:
        value: a floating-point number, or anything else, which passes.
        bits: significant bits of the type that it was stored as.

    Raises:
        UnreadableUnit: the number is finite and at least 2^bits.
    """
    if isinstance(value, numbers.Real) and math.isfinite(value) and abs(value) >= 2**bits:
        raise UnreadableUnit(f"floating-point type, with ids beyond 2^{bits}")


def _significant_bits(value: Any) -> int:
    if type(value).__module__ != "numpy":
        return _DOUBLE_BITS
    import numpy as np

    return int(np.finfo(type(value)).nmant) + 1


def _number_key(value: Any) -> str | None:
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        if value != value:
            return None
        if value.imag != 0:
            return f"{_MARK}complex:{_number_key(value.real)}:{_number_key(value.imag)}"
        value = value.real
    if isinstance(value, Decimal):
        return _decimal_key(value)
    if isinstance(value, numbers.Rational):
        return _ratio_key(int(value.numerator), int(value.denominator))
    if value != value:
        return None
    if not math.isfinite(value):
        return f"{_MARK}number:{'inf' if value > 0 else '-inf'}"
    check_exact(value, _significant_bits(value))
    return _ratio_key(*value.as_integer_ratio())


def _decimal_key(value: Decimal) -> str | None:
    if value.is_nan():
        return None
    if value.is_infinite():
        return f"{_MARK}number:{'inf' if value > 0 else '-inf'}"
    if value and abs(value.adjusted()) > _LARGEST_EXPONENT:
        # its fraction would not fit into memory
        trimmed = "".join(map(str, value.as_tuple().digits)).strip("0")
        return f"{_MARK}decimal:{int(value.is_signed())}:{trimmed}:{value.adjusted()}"
    return _ratio_key(*value.as_integer_ratio())


def _ratio_key(numerator: int, denominator: int) -> str:
    ratio = Fraction(numerator, denominator)
    if ratio.denominator.bit_length() > _LARGEST_BITS:
        raise UnreadableUnit("Fraction of too many digits")
    if ratio.denominator == 1 and ratio.numerator.bit_length() > _LARGEST_BITS:
        whole = Decimal(ratio.numerator)
        if whole.adjusted() > _LARGEST_EXPONENT:
            return str(_decimal_key(whole))
    # hexadecimal: Python refuses decimals of very long integers
    return f"{_MARK}number:{ratio.numerator:x}/{ratio.denominator:x}"
