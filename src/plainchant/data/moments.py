"""Points and spans of time as ids: one scale for all libraries, so that equal instants are equal (guarantee 3.1, 9).

A point or span is a whole number of ticks, 10^18 of them per second, with its kind: a point without a time zone is
never one with a time zone, and neither is a date, a time of day, a span or a number.
"""

import datetime
from dataclasses import dataclass
from typing import Any

TICKS = 10**18  # per second, so that every unit of numpy and Arrow is whole
_DAY = 86_400 * TICKS
UNITS = {
    "as": 1, "fs": 10**3, "ps": 10**6, "ns": 10**9, "us": 10**12, "ms": 10**15, "s": TICKS, "m": 60 * TICKS,
    "h": 3600 * TICKS, "D": _DAY, "W": 7 * _DAY,
}  # fmt: skip
_EPOCH = datetime.datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point or span of time.

    Attributes:
        kind: "time" (date and time without a time zone), "instant" (with one), "date", "clock" (a time of day),
            "clock with a time zone" or "span".
        ticks: from 1970-01-01 (UTC where there is a time zone), from midnight, or the length; 10^18 per second.
    """

    kind: str
    ticks: int

    @property
    def key(self) -> str:
        """The identity of a unit, without its mark."""
        return f"{self.kind}:{self.ticks:x}"


def is_numpy_time(value: Any) -> bool:
    """Whether a value is numpy's datetime64 or timedelta64, which numpy also counts among the integers."""
    return type(value).__module__ == "numpy" and type(value).__name__ in ("datetime64", "timedelta64")


def moment_of(value: Any) -> Moment | None:
    """A point or span of time from Python, numpy or pandas; None for anything else and for one without a scale.

    >>> noon = datetime.datetime(1970, 1, 1, 0, 0, 1)
    >>> moment_of(noon)
    Moment(kind='time', ticks=1000000000000000000)
    """
    if is_numpy_time(value):
        return _of_numpy(value, "time" if type(value).__name__ == "datetime64" else "span")
    if isinstance(value, datetime.datetime):
        offset = value.utcoffset()
        kind = "time" if offset is None else "instant"
        if hasattr(value, "asm8"):  # pandas: below a microsecond, and in UTC
            return _of_numpy(value.asm8, kind)
        return Moment(kind, _span(value.replace(tzinfo=None) - _EPOCH) - _span(offset))
    if isinstance(value, datetime.date):
        return Moment("date", (value.toordinal() - _EPOCH.toordinal()) * _DAY)
    if isinstance(value, datetime.time):
        offset = value.utcoffset()
        passed = datetime.timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
        )
        return Moment("clock" if offset is None else "clock with a time zone", _span(passed) - _span(offset))
    if isinstance(value, datetime.timedelta):
        return _of_numpy(value.asm8, "span") if hasattr(value, "asm8") else Moment("span", _span(value))
    return None


def _span(value: datetime.timedelta | None) -> int:
    if value is None:
        return 0
    return ((value.days * 86_400 + value.seconds) * 10**6 + value.microseconds) * UNITS["us"]


def _of_numpy(value: Any, kind: str) -> Moment | None:
    import numpy as np

    unit, count = np.datetime_data(value.dtype)
    if unit in ("Y", "M") and kind != "span":
        days = value.astype("datetime64[D]")
        # the cast wraps around for years that do not fit
        if days.astype(value.dtype) != value:
            return None
        value, unit, count = days, "D", 1
    scale = UNITS.get(unit)
    return None if scale is None else Moment(kind, int(value.astype(np.int64)) * count * scale)
