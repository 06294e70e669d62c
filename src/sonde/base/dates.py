"""Dates as people write them: 2024-05-31, 31.05.2024, Jan 1 2000, 1 January 2000, 5/31/2024 3:05 PM, Mar 2021.

Formats are strptime's. Those in `FORMATS` say one date only; whether 05/03/2024 is in March or in May shows from other
dates of its column, if at all.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_DAYS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%b %d %Y",
    "%b %d, %Y",
    "%d %b %Y",
    "%d %b, %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %y",
    "%b-%d-%Y",
    "%Y-%b-%d",
    "%Y %b %d",
)
_TIMES = ("%H:%M:%S", "%H:%M", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p")
MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%b-%Y", "%b, %Y", "%Y %b")
# A date, a date with a time of day, a month. Texts go through `plain` first.
FORMATS = (
    *_DAYS,
    *(f"{day}{between}{time}" for day in _DAYS for between in (" ", "T", ", ") for time in _TIMES),
    "%b %d %H:%M:%S %Y",
    *MONTHS,
)
# Which of the two is the month shows only where some day is past the twelfth: the month first, the day first.
AMBIGUOUS = tuple(
    (f"%m{mark}%d{mark}{year}{time}", f"%d{mark}%m{mark}{year}{time}")
    for mark in "/-"
    for year in ("%Y", "%y")
    for time in ("", *(f" {time}" for time in _TIMES), *(f", {time}" for time in _TIMES))
)
_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_WEEKDAYS = "mon|tue|wed|thu|fri|sat|sun"
_TIME = r"([ T,]+\d{1,2}:\d{2}.*)?"
# What looks like a date from afar; nothing else is tried. Regular expressions that polars knows, too.
LIKE = (
    rf"(?i)^\s*((({_WEEKDAYS})[a-z]*,? +)?({_NAMES})[a-z]*\.?[-, ]+\d.*\d\d"
    rf"|(({_WEEKDAYS})[a-z]*,? +)?\d{{1,4}}[-, ]+({_NAMES})[a-z]*\.?([-, ]+\d{{1,4}}{_TIME})?"
    rf"|\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}{_TIME}"
    r"|\d{4}[-/]\d{1,2}|\d{1,2}/\d{4})\s*$"
)
WEEKDAY = rf"(?i)^\s*({_WEEKDAYS})[a-z]*,? +"
MONTH_NAME = rf"(?i)\b({_NAMES})[a-z]*\.?"
ZONE = r"(:\d{2}(?:\.\d+)?)\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2})$"
# Without zeros in front, 1.2.3 is rather a chapter or a version.
SHORT_GERMAN, PADDED = "%d.%m.%y", r"^\d{2}\.\d{2}\.\d{2}\b"
# A month has a year of these centuries, else 1200/5 were one.
YEARS = (1500, 2200)


def plain(text: str) -> str:
    """A date as `FORMATS` are for: without the name of the weekday, the month's name by three letters."""
    return re.sub(MONTH_NAME, r"\1", re.sub(WEEKDAY, "", text)).strip()


def parse(text: str) -> datetime:
    """The moment that a text says, in UTC without a zone where it gives one.

    Raises:
        ValueError: it is no date, or may be two.
    """
    written, offset = _without_zone(text.strip())
    if not re.match(LIKE, written):
        return datetime.fromisoformat(written) - offset
    written = plain(written)
    for each in FORMATS:
        if (moment := _parsed(written, each)) is not None:
            return moment - offset
    found = {moment for pair in AMBIGUOUS for each in pair if (moment := _parsed(written, each)) is not None}
    if len(found) != 1:
        raise ValueError(f"{text!r} may be several dates" if found else f"{text!r} is no date")
    return found.pop() - offset


def _parsed(text: str, format: str) -> datetime | None:
    try:
        moment = datetime.strptime(text, format)
    except ValueError:
        return None
    if format.startswith(SHORT_GERMAN) and not re.match(PADDED, text):
        return None
    return None if format in MONTHS and not YEARS[0] <= moment.year < YEARS[1] else moment


def _without_zone(text: str) -> tuple[str, timedelta]:
    """A time without the zone at its end, and what that is before UTC."""
    found = re.search(ZONE, text)
    if found is None:
        return text, timedelta()
    return text[: found.start(2)].rstrip(), timedelta(minutes=minutes(found[2]))


def minutes(zone: str) -> int:
    """The minutes that a zone ("Z", "+02:00", "-0730") is before UTC."""
    if zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    return (-1 if zone[0] == "-" else 1) * (60 * int(digits[:2]) + int(digits[2:]))
