from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import ConfigError
from otel_scorer.scorers.passing import parse_condition, verdict


@pytest.mark.parametrize(
    ("text", "value", "passed"),
    [
        (">= 0.7", 0.7, True),
        (">= 0.7", 0.69, False),
        (">=0.7", 1, True),
        ("< 2", 3, False),
        ("> -1", 0, True),
        ("<= 5e2", 500, True),
        ("== False", False, True),
        ("== false", True, False),
        ("!= True", False, True),
        ("== 'good'", "good", True),
        ('!= "good"', "good", False),
        ("in ['good', 'fair']", "fair", True),
        ("not in ['bad', 0]", 0, False),
        ("not in ['bad', 0]", False, True),
        # A bool is no number, so such a condition says nothing of it, and it is its own verdict.
        (">= 0.7", False, False),
        ("== 1", True, True),
        ("== 0", False, False),
        (">= 0.7", "yes", True),
        (">= 0.7", "high", None),
        ("== False", 0, None),
        (">= 0.7", None, None),
        (">= 0.7", [1.0], None),
    ],
)
def test_conditions_written_as_text(text: str, value: object, passed: bool | None) -> None:
    assert verdict(value, parse_condition(text)) is passed


@pytest.mark.parametrize(
    ("value", "passed"),
    [(True, True), (False, False), ("yes", True), (" NO ", False), ("maybe", None), (1, None), (0.0, None), ({}, None)],
)
def test_without_a_condition_only_bool_and_yes_and_no_say_something(value: object, passed: bool | None) -> None:
    assert verdict(value, None) is passed


def test_a_callable_decides_whatever_the_type() -> None:
    assert verdict({"a": 1}, lambda value: value["a"] == 1) is True
    assert verdict("no", lambda value: value == "no") is True
    assert verdict(None, lambda value: True) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.7",
        ">= ",
        ">= high",
        "=> 1",
        ">= 'a'",
        "> True",
        "== __import__('os')",
        "== [1]",
        "in 3",
        "in [[1]]",
        "== None",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Cannot read pass_if"):
        parse_condition(text)


@given(st.sampled_from(["==", "!=", ">=", "<=", ">", "<"]), st.integers() | st.floats(allow_nan=False), st.integers())
def test_conditions_on_numbers_are_those_of_python(operator: str, operand: Any, value: int) -> None:
    text = f"{operator} {operand!r}".replace("inf", "1e999")

    assert verdict(value, parse_condition(text)) is eval(f"value {operator} operand")  # noqa: S307 - our own text
