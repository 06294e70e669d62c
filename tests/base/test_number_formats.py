"""Numbers as people write them: one format for a column, found from its texts, applied strictly."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as some

from sonde.base.number_formats import detect, parse, parse_many


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["$1,234.00", "$5.50", "-$3.25"], [1234.0, 5.5, -3.25]),
        (["1.013,50 EUR", "7,10 EUR"], [1013.5, 7.1]),
        (["\u20ac 1.013,50", "\u20ac 12.000.000,00"], [1013.5, 12e6]),
        (["12.3%", "0.5 %"], [12.3, 0.5]),
        (["1 234,5", "12 345 678,0"], [1234.5, 12345678.0]),
        (["1'234.50", "12"], [1234.5, 12.0]),
        (["(1,500)", "2,345,678"], [-1500.0, 2345678.0]),
        (["US$5", "US$ 10"], [5.0, 10.0]),
        (["USD 1,000.50", "2,000 USD"], [1000.5, 2000.0]),
        (["1,5", "2,25", "10"], [1.5, 2.25, 10.0]),
        (["0,125", "0,375"], [0.125, 0.375]),
        (["105,428", "99.5"], [105428.0, 99.5]),
        (["3.141", "2.718"], [3.141, 2.718]),
        (["1.234.567", "1.234"], [1234567.0, 1234.0]),
    ],
)
def test_a_column_is_read_as_it_is_meant(texts, numbers):
    format, unsure = detect(texts)
    assert not unsure
    assert [parse(text, format) for text in texts] == numbers
    np.testing.assert_array_equal(
        parse_many(np.array([*texts, None, 4.5], dtype=object), format)[: len(texts)], numbers
    )


def test_what_may_be_either_is_said():
    format, unsure = detect(["105,428", "12,500"])
    assert unsure
    assert parse("105,428", format) == 105428.0


@pytest.mark.parametrize(
    "texts",
    [
        ["$5", "\u20ac5"],
        ["12%", "0.12"],
        ["1,234.5", "1.234,5"],
        ["moss", "$5"],
        ["1,23,4"],
        ["12-05-2020"],
        ["5 kg"],
        ["(5"],
        ["1,2;3"],
        [],
        ["a1", "b2"],
        ["192.168.0.1"],
    ],
)
def test_what_is_no_one_format_stays_text(texts):
    assert detect(texts) is None


def test_a_format_is_applied_strictly():
    format, _ = detect(["1.013,50 EUR", "7,10 EUR"])
    assert parse("1,013.50 EUR", format) is None
    assert parse("5,0 USD", format) is None
    assert parse("moss", format) is None
    assert parse("1.013", format) == 1013.0


@hypothesis.given(
    some.lists(some.integers(-(10**12), 10**12), min_size=3, max_size=20),
    some.sampled_from([(",", "."), (".", ","), (" ", ","), ("'", ".")]),
    some.sampled_from(["$", "\u20ac", "EUR", "%"]),
    some.booleans(),
)
def test_whatever_is_written_is_read_back(cents, marks, unit, before):
    grouping, decimal = marks
    texts = []
    for each in cents:
        plain = f"{abs(each) / 100:,.2f}".replace(",", "_").replace(".", decimal).replace("_", grouping)
        texts.append(("-" if each < 0 else "") + (f"{unit} {plain}" if before else f"{plain} {unit}"))
    found = detect(texts)
    assert found is not None
    assert [parse(text, found[0]) for text in texts] == pytest.approx([each / 100 for each in cents], rel=1e-12)
