"""Text of anybody, made safe to show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.reporting.plain_text import one_line, printable


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("short", "short"),
        ("two\n  lines\t\x00", "two lines \ufffd"),
        ("x" * 20, "x" * 20),
        ("x" * 21, "x" * 17 + "..."),
        (" " * 150 + "x", " x".strip()),
        (" " * 10_000_000 + "x", "..."),
        ("y" * 10_000_000, "y" * 17 + "..."),
    ],
)
def test_one_line_of_a_text(text: str, line: str) -> None:
    assert one_line(text, 20) == line


@given(st.text(), st.integers(3, 50))
def test_a_line_fits_and_moves_nothing(text: str, limit: int) -> None:
    line = one_line(text, limit)

    assert len(line) <= limit
    assert not set(line) & set("\n\r\t\x1b\x00\u202e\u2028")


@given(st.text(st.characters()))
def test_what_is_printable_can_be_encoded_and_stays(text: str) -> None:
    printable(text).encode("utf-8")

    assert printable(printable(text)) == printable(text)
    assert len(printable(text)) == len(text)
