"""Numbers as people write them: $1,234.00, 1.013,50 EUR, 12.3 %, 1 234, (500).

A column has one format, found from its texts and then applied strictly: what does not fit is no number, and never
another one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

# What may stand before or after a number: signs of currencies, ISO 4217 codes in common use, and percent.
SIGNS = "$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba\u20ab\u20aa\u20b4\u20a6\u20b1\u0e3f"
CODES = (
    "USD|EUR|GBP|JPY|CHF|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RON|BGN|TRY|RUB|UAH|BRL|MXN|ARS|CLP|COP|ZAR|NGN"
    "|KES|EGP|ILS|AED|SAR|KRW|TWD|HKD|SGD|THB|VND|IDR|MYR|PHP|PKR"
)
_UNIT = rf"(?:[A-Z]{{0,2}}[{re.escape(SIGNS)}]|{CODES}|kr|z\u0142|Fr\.|Rs\.?|%)"
_SPACES = " \u00a0\u202f\u2009"
_NUMBER = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[+\-\u2212])?\s*(?P<before>{_UNIT})?\s*(?P<inner>[+\-\u2212])?\s*"
    rf"(?P<body>\d[\d.,'\u2019{_SPACES}]*?)\s*(?P<after>{_UNIT})?\s*(?P<close>\))?"
)
_GROUPINGS = {"": "", ",": ",", ".": r"\.", "'": "['\u2019]", " ": f"[{_SPACES}]"}
# Texts that a format is looked for in.
SAMPLE = 10_000


class NumberFormat(TypedDict):
    """`grouping` stands between thousands ("" for nothing), `decimal` before the decimals; `unit` is what stands beside
    the numbers ("" for nothing). Plain numbers have the format {"grouping": "", "decimal": ".", "unit": ""}."""

    grouping: Annotated[str, Field(pattern="^[,.' ]?$")]
    decimal: Annotated[str, Field(pattern="^[,.]$")]
    unit: str


PLAIN: NumberFormat = {"grouping": "", "decimal": ".", "unit": ""}


def detect(texts: Iterable[str]) -> tuple[NumberFormat, bool] | None:
    """The format that all texts have, and whether another reading is as likely ("105,428" alone); None if there is
    none: some text is no number, or they contradict each other (several units, a comma in two roles)."""
    found = []
    for text in texts:
        match = _NUMBER.fullmatch(text.strip())
        if match is None or (match["open"] is None) != (match["close"] is None):
            return None
        found.append(match)
        if len(found) == SAMPLE:
            break
    units = {match["before"] or match["after"] or "" for match in found}
    unit = next((each for each in units if each), "")
    # A percentage beside a plain share is not one quantity; nor are two currencies.
    if not found or len(units - {""}) > 1 or (unit == "%" and "" in units):
        return None
    bodies = [match["body"] for match in found]
    read = _separators(bodies)
    if read is None:
        return None
    grouping, decimal, unsure = read
    pattern = _pattern(grouping, decimal)
    if not all(pattern.fullmatch(body) for body in bodies):
        return None
    return {"grouping": grouping, "decimal": decimal, "unit": unit}, unsure


def _separators(bodies: list[str]) -> tuple[str, str, bool] | None:
    """What groups digits, what stands before decimals, and whether that is only the more usual of two readings."""
    groups: Counter[str] = Counter()
    decimals: Counter[str] = Counter()
    unsure = 0
    for body in bodies:
        if any(space in body for space in _SPACES):
            groups[" "] += 1
        if "'" in body or "\u2019" in body:
            groups["'"] += 1
        comma, point = body.count(","), body.count(".")
        if comma and point:
            last = "," if body.rindex(",") > body.rindex(".") else "."
            decimals[last] += 1
            groups["." if last == "," else ","] += 1
        elif comma > 1 or point > 1:
            groups["," if comma else "."] += 1
        elif comma or point:
            mark = "," if comma else "."
            whole, rest = body.split(mark)
            # One mark before exactly three digits may be either; a lone point is taken for a decimal one.
            if len(rest) == 3 and len(whole) <= 3 and not whole.startswith("0") and mark == ",":
                unsure += 1
            elif not (len(rest) == 3 and len(whole) <= 3 and mark == "."):
                decimals[mark] += 1
    if len(groups) > 1 or len(decimals) > 1 or set(groups) & set(decimals):
        return None
    grouping = next(iter(groups), "")
    decimal = next(iter(decimals), "")
    if unsure and not grouping and not decimal:
        return ",", ".", True
    if unsure and not grouping and decimal == ".":
        grouping = ","
    return grouping, decimal or ("," if grouping == "." else "."), False


def _pattern(grouping: str, decimal: str) -> re.Pattern[str]:
    mark = _GROUPINGS[grouping]
    grouped = rf"\d{{1,3}}(?:{mark}\d{{3}})+|" if grouping else ""
    return re.compile(rf"(?:{grouped}\d+)(?:{re.escape(decimal)}\d*)?")


def parse(text: str, format: NumberFormat) -> float | None:
    """The number that a text says in a format; None if it says none. Percentages stay as written: "12 %" is 12."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match["open"] is None) != (match["close"] is None):
        return None
    unit = match["before"] or match["after"] or ""
    if unit not in ("", format["unit"]) or not _pattern(format["grouping"], format["decimal"]).fullmatch(match["body"]):
        return None
    body = match["body"]
    for mark in {"": "", "'": "'\u2019", " ": _SPACES}.get(format["grouping"], format["grouping"]):
        body = body.replace(mark, "")
    negative = match["open"] is not None or (match["sign"] or match["inner"]) in ("-", "\u2212")
    return (-1 if negative else 1) * float(body.replace(format["decimal"], "."))


def parse_many(values: np.ndarray, format: NumberFormat) -> np.ndarray:
    """A field as float64 (N,): texts in a format, numbers as they are; NaN where a value is missing or no number."""
    known: dict[str, float] = {}
    numbers = np.full(len(values), np.nan)
    for index, value in enumerate(values):
        if isinstance(value, str):
            if value not in known:
                found = parse(value, format)
                known[value] = np.nan if found is None else found
            numbers[index] = known[value]
        elif value is not None:
            numbers[index] = float(value)
    return numbers
