"""Arrow columns: which types can be a text, a label, a unit's id or an attribute, and their values (guarantee 9).

The type in the schema alone decides: a list, a struct or a map can be none of these, but for lists of messages; bytes
and points in time cannot be a text. A unit's id keeps every bit of its value, whatever the type.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from plainchant.data.moments import UNITS, Moment
from plainchant.data.raw import purpose_of
from plainchant.data.values import UnreadableUnit, check_exact
from plainchant.errors import DataError

_SIGNIFICANT_BITS = {16: 11, 32: 24, 64: 53}


def wrong_type(role: str, where: str, kind: str, purpose: str = "") -> DataError:
    """The error of a column whose type does not fit."""
    purpose = purpose or purpose_of(role)
    return DataError(
        f"{role}: the column of {where} is of type {kind}, which cannot be {purpose}: write it as "
        f"{'a string' if role != 'unit_column' else 'strings or whole numbers'}, or name another column."
    )


def class_names(schema: Any) -> Mapping[str, Sequence[str]]:
    """The names of each ClassLabel column, as the package datasets recorded them in a schema."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted.get("info", {}).get("features", {})
        return {
            str(name): [str(one) for one in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel" and "names" in feature
        }
    except (ValueError, AttributeError, TypeError):  # foreign metadata
        return {}


def column_of_arrow(column: Any, role: str, where: str) -> list[Any]:
    """The values of a column for a role.

    Raises:
        DataError: the type does not fit the role, or the column holds values that cannot be read.
    """
    import pyarrow

    types = pyarrow.types
    try:
        column = _plain(column)
    except pyarrow.ArrowException:
        raise wrong_type(role, where, _type_name(column.type)) from None
    kind = column.type
    if not _is_fit(kind, purpose_of(role)):
        raise wrong_type(role, where, _type_name(kind))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        # one string of invalid UTF-8 must not stop the others
        return [_text(value) for value in column.cast(pyarrow.large_binary()).to_pylist()]
    if role == "unit_column":
        return _exact(column, role, where)
    return [_lenient(scalar) for scalar in column]


def checked_floats(values: Sequence[Any], width: int, role: str, where: str) -> list[Any]:
    """The numbers of a floating-point column; refuses ids that are too large to be distinguished.

    Args:
        values: its numbers.
        width: bits of the column's type.
        role: the column option.
        where: the table, in words.
    """
    bits = _SIGNIFICANT_BITS.get(width)
    if role == "unit_column" and bits is not None:
        try:
            for value in values:
                check_exact(value, bits)
        except UnreadableUnit:
            raise DataError(
                f"{role}: the column of {where} is of a floating-point type and holds ids beyond 2^{bits}, which it "
                "cannot distinguish: write them as strings or whole numbers."
            ) from None
    return list(values)


def unit_kind(kind: Any) -> str | None:
    """What the ids of an Arrow type are compared with: ids of two kinds are never equal; None: all are missing."""
    import pyarrow

    types = pyarrow.types
    kind = _plain(pyarrow.array([], kind)).type
    if types.is_null(kind):
        return None
    if types.is_boolean(kind):
        return "truth value"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if _is_binary(kind):
        return "bytes"
    return _time_kind(kind) if types.is_temporal(kind) else _type_name(kind).removeprefix("large_").partition("_")[0]


def _time_kind(kind: Any) -> str:
    import pyarrow

    types = pyarrow.types
    if types.is_timestamp(kind):
        return "time" if kind.tz is None else "instant"
    return "date" if types.is_date(kind) else "clock" if types.is_time(kind) else "span"


def _plain(column: Any) -> Any:
    """A column without Arrow's wrappers (extension types, dictionaries, run-end encoding)."""
    import pyarrow
    import pyarrow.compute

    for _ in range(4):
        if isinstance(column.type, pyarrow.BaseExtensionType):
            chunks = column.chunks if isinstance(column, pyarrow.ChunkedArray) else [column]
            column = pyarrow.chunked_array([chunk.storage for chunk in chunks], column.type.storage_type)
        elif pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        elif pyarrow.types.is_run_end_encoded(column.type):
            column = pyarrow.compute.run_end_decode(column)
        else:
            break
    return column


def _is_fit(kind: Any, purpose: str) -> bool:
    """Whether a column of an Arrow type can be what it is wanted for."""
    import pyarrow

    types = pyarrow.types
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
    if types.is_nested(kind):
        lists = types.is_list(kind) or types.is_large_list(kind)
        return purpose == "messages" and lists and types.is_struct(kind.value_type)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if purpose == "a date":
        return bool(text or types.is_date(kind) or types.is_timestamp(kind))
    if purpose in ("a number", "a truth value"):
        return bool(text or number or types.is_boolean(kind))
    if purpose in ("a label", "a unit's id"):
        return True
    return not (_is_binary(kind) or types.is_temporal(kind))


def _is_binary(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    views = getattr(types, "is_binary_view", lambda _: False)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or views(kind))


def _type_name(kind: Any) -> str:
    """A type's name without the names of its fields."""
    return str(kind).partition("<")[0].partition("[")[0]


def _text(value: bytes | None) -> str | bytes | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _exact(column: Any, role: str, where: str) -> list[Any]:
    """Ids with every bit; points and spans of time are read from the whole numbers that they are stored as."""
    import pyarrow

    types, kind = pyarrow.types, column.type
    try:
        if types.is_temporal(kind) and not types.is_interval(kind):
            stored = column.cast(pyarrow.int32() if kind.bit_width == 32 else pyarrow.int64()).to_pylist()
            unit = "D" if types.is_date32(kind) else "ms" if types.is_date64(kind) else kind.unit
            name, scale = _time_kind(kind), UNITS[unit]
            return [None if ticks is None else Moment(name, ticks * scale) for ticks in stored]
        values = column.to_pylist()
    except Exception:
        raise wrong_type(role, where, _type_name(kind)) from None
    if types.is_floating(kind):
        return checked_floats(values, kind.bit_width, role, where)
    return list(values)


def _lenient(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except Exception:  # a value that Python cannot hold, like a date in the year 20000
        return None
