"""MLflow's search grammar: what is read, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest

from otel_scorer.errors import ConfigError
from otel_scorer.model.search_grammar import Comparator, parse_search


@pytest.mark.parametrize(
    ("text", "prefix", "key", "comparator", "value"),
    [
        ("status = 'OK'", "", "status", Comparator.EQUAL, "OK"),
        ('trace.status != "ERROR"', "", "status", Comparator.NOT_EQUAL, "ERROR"),
        ("attributes.execution_time_ms >= 1.5", "", "execution_time_ms", Comparator.GREATER_OR_EQUAL, 1.5),
        ("tags.team LIKE '%a%'", "tag", "team", Comparator.LIKE, "%a%"),
        ("tag.`a key.with dots` is  not null", "tag", "a key.with dots", Comparator.IS_NOT_NULL, None),
        ("tag.other IS NULL", "tag", "other", Comparator.IS_NULL, None),
        ("request_metadata.`mlflow.trace.session` = 's'", "metadata", "mlflow.trace.session", Comparator.EQUAL, "s"),
        ("span.attributes.gen_ai.system rlike '^open'", "span", "attributes.gen_ai.system", Comparator.RLIKE, "^open"),
        ("name IN ('it''s', 'b')", "", "name", Comparator.IN, ("it's", "b")),
        ("name NOT  IN ( 'a' )", "", "name", Comparator.NOT_IN, ("a",)),
        ("feedback.quality<0.5", "feedback", "quality", Comparator.LESS, 0.5),
        ("feedback.safe = TRUE", "feedback", "safe", Comparator.EQUAL, True),
        (r"name = 'a\'b'", "", "name", Comparator.EQUAL, "a'b"),
    ],
)
def test_a_condition_is_taken_apart(text: str, prefix: str, key: str, comparator: Comparator, value: Any) -> None:
    [clause] = parse_search(text)

    assert (clause.prefix, clause.key, clause.comparator, clause.value) == (prefix, key, comparator, value)
    assert clause.text == text


def test_conditions_are_joined_by_and() -> None:
    clauses = parse_search(" status = 'OK' AND name = 'a AND b' and feedback.x > 1 ")

    assert [clause.text for clause in clauses] == ["status = 'OK'", "name = 'a AND b'", "feedback.x > 1"]


def test_an_empty_filter_has_no_conditions() -> None:
    assert parse_search("  ") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("status = 'OK' OR name = 'a'", "joined by AND only"),
        ("NOT status = 'OK'", "joined by AND only"),
        ("(status = 'OK')", "joined by AND only"),
        ("status", "expected a comparator .* at character 7, found the end"),
        ("status = OK", "expected a quoted text, a number, true or false at character 10"),
        ("status = 'OK", "expected a quoted text"),
        ("name IN 'a'", "expected a list in parentheses"),
        ("name IN ('a'", "a closing parenthesis"),
        ("status = 'OK' AND", "expected a condition"),
        ("status = 'OK' name = 'a'", "expected AND or the end"),
        ("= 3", "expected a field"),
        ("feedback.x > 12abc", "expected a quoted text, a number"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_search(text)
