"""Dates and lengths of time: their text and their arithmetic."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from fractions import Fraction

__all__ = ["DateError", "Duration", "parse_datetime", "parse_duration", "shifted"]


class DateError(ValueError):
    """A text that is no date, or no length of time."""


@dataclass(frozen=True, order=True, slots=True)
class Duration:
    """A length of time: months, which are as long as the date makes them, and nanoseconds."""

    months: int
    nanoseconds: int

    @classmethod
    def of(cls, delta: timedelta) -> Duration:
        """A `timedelta` as a duration."""
        return cls(0, delta // timedelta(microseconds=1) * 1000)

    def __add__(self, other: Duration) -> Duration:
        return Duration(self.months + other.months, self.nanoseconds + other.nanoseconds)

    def __sub__(self, other: Duration) -> Duration:
        return Duration(self.months - other.months, self.nanoseconds - other.nanoseconds)

    def __neg__(self) -> Duration:
        return Duration(-self.months, -self.nanoseconds)

    def __mul__(self, factor: int) -> Duration:
        return Duration(self.months * factor, self.nanoseconds * factor)

    __rmul__ = __mul__

    def __str__(self) -> str:
        seconds, rest = divmod(abs(self.nanoseconds), 10**9)
        fraction = f".{rest:09}".rstrip("0") if rest else ""
        time = f"T{seconds}{fraction}S" if self.nanoseconds else "0D"
        sign = "-" if self.nanoseconds < 0 else ""
        return (f"R{self.months}MO " if self.months else "") + f"{sign}P{time}"


def shifted(when: datetime, by: Duration) -> datetime:
    """A date so much later; a day that the month does not have becomes its last one.

    Raises:
        OverflowError: beyond the years 1 to 9999.
    """
    if by.months:
        year, month = divmod(when.year * 12 + when.month - 1 + by.months, 12)
        if not 1 <= year <= 9999:
            raise OverflowError("beyond the years 1 to 9999")
        day = min(when.day, calendar.monthrange(year, month + 1)[1])
        when = when.replace(year=year, month=month + 1, day=day)
    return when + timedelta(microseconds=by.nanoseconds // 1000)


_UNIX = re.compile(r"[0-9]{10}|[0-9]{13}|[0-9]{19}")
_CHINESE = str.maketrans({"年": "-", "月": "-", "日": " ", "时": ":", "分": ":", "秒": " "})
_ZONES = {"EDT": -4, "EST": -5, "CDT": -5, "CST": -6, "MDT": -6, "MST": -7, "PDT": -7, "PST": -8}


def _zone(name: str | None, offset: int | None) -> tzinfo | None:
    if offset is None and name is not None:
        if name.upper() not in _ZONES:
            raise DateError(f"unknown time zone {name}")
        offset = _ZONES[name.upper()] * 3600
    return None if offset is None else timezone(timedelta(seconds=offset))


def parse_datetime(text: str) -> datetime:
    """A date in any usual format, in UTC.

    Where there is no time it is midnight, where there is no date it is today, where there is no
    year it is this one, and where there is no zone it is UTC.

    Raises:
        DateError: if the text is no date.
    """
    try:
        if _UNIX.fullmatch(text):
            since = timedelta(microseconds=int(text) * 10**6 // 10 ** (len(text) - 10))
            return datetime(1970, 1, 1, tzinfo=UTC) + since
        when = _parsed(text.translate(_CHINESE).strip())
        return when.replace(tzinfo=when.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise DateError(text) from None


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    from dateutil import parser  # it takes a third of a second, and few programs have dates

    # What two readings with different defaults disagree on is not in the text.
    first, second = (
        parser.parse(text, default=default, tzinfos=_zone)
        for default in (datetime(2000, 1, 1), datetime(2004, 2, 2, 1))
    )
    if first.date() == second.date():
        return first
    now = datetime.now(UTC)
    if (first.month, first.day) == (second.month, second.day):
        return first.replace(year=now.year)
    if first.hour == second.hour and first.year != second.year and first.month != second.month:
        return first.replace(year=now.year, month=now.month, day=now.day)
    raise DateError(text)


_SECOND = 10**9
# An abbreviation is the first of these that it begins; so "m" and "mi" are minutes.
_UNITS = {
    "minutes": 60 * _SECOND,
    "mins": 60 * _SECOND,
    "nanoseconds": 1,
    "nsecs": 1,
    "microseconds": 10**3,
    "usecs": 10**3,
    "μsecs": 10**3,
    "milliseconds": 10**6,
    "msecs": 10**6,
    "seconds": _SECOND,
    "secs": _SECOND,
    "hours": 3600 * _SECOND,
    "hrs": 3600 * _SECOND,
    "days": 86400 * _SECOND,
    "weeks": 7 * 86400 * _SECOND,
    "wks": 7 * 86400 * _SECOND,
    # Of the mean Gregorian year, for parts of one.
    "months": 2_629_746 * _SECOND,
    "years": 12 * 2_629_746 * _SECOND,
    "yrs": 12 * 2_629_746 * _SECOND,
}
_MONTHS = {"months": 1, "years": 12, "yrs": 12}
_NUMBER = re.compile(r"[^\w-]*(-?[0-9]+)[^\w-]*")
_PART = re.compile(
    r"(?P<number>-?[0-9]+(\.[0-9]+)?)\.?(e(?P<exponent>[-+]?[0-9]{1,2}))?(\W*(?P<unit>[^\W0-9]+))?",
    re.IGNORECASE,
)


def parse_duration(text: str) -> Duration:
    """A length of time: numbers with units, such as `3 days 2 hours`, `1.5h`, `-10 secs`.

    Units may be cut short (`d`, `secs`; `m` is minutes, `M` months). A lone number is seconds.
    Whole months and years are months; of others the mean length is taken.

    Raises:
        DateError: if the text is no length of time.
    """
    if alone := _NUMBER.fullmatch(text):
        return Duration(0, int(alone[1]) * _SECOND)
    months, nanoseconds = 0, 0
    parts = list(_PART.finditer(text))
    for part in parts:
        unit = _unit(part["unit"] or "")
        if unit is None:
            raise DateError(text)
        number, exponent = part["number"], part["exponent"]
        if unit in _MONTHS and exponent is None and "." not in number:
            months += int(number) * _MONTHS[unit]
        else:
            nanoseconds += int(Fraction(number) * Fraction(10) ** int(exponent or 0) * _UNITS[unit])
    if not parts:
        raise DateError(text)
    return Duration(months, nanoseconds)


def _unit(word: str) -> str | None:
    if word == "M":
        return "months"
    return next((unit for unit in _UNITS if word and unit.startswith(word.lower())), None)
