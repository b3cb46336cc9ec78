"""MLflow's search grammar is read as MLflow reads it, and refused with the reason where it is not."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import ConfigError
from otel_scorer.stores.search_filter import Clause, Subject, like_pattern, parse_filter


def clause(text: str) -> Clause:
    [found] = parse_filter(text)
    return found


@pytest.mark.parametrize(
    ("text", "subject", "key", "comparator", "value"),
    [
        ("status = 'OK'", Subject.ATTRIBUTE, "status", "=", "OK"),
        ("trace.status != 'ERROR'", Subject.ATTRIBUTE, "status", "!=", "ERROR"),
        ("attributes.name like 'chat%'", Subject.ATTRIBUTE, "name", "LIKE", "chat%"),
        ("`name` = 'a'", Subject.ATTRIBUTE, "name", "=", "a"),
        ("trace_id = 'tr-00'", Subject.ATTRIBUTE, "request_id", "=", "tr-00"),
        ("timestamp >= 1700000000000", Subject.ATTRIBUTE, "timestamp_ms", ">=", 1_700_000_000_000),
        ("execution_time_ms<2.5", Subject.ATTRIBUTE, "execution_time_ms", "<", 2.5),
        ("request_id NOT  IN ('a', \"b\")", Subject.ATTRIBUTE, "request_id", "NOT IN", ("a", "b")),
        ("tags.team = 'it''s'", Subject.TAG, "team", "=", "it's"),
        ("tag.`mlflow.trace name` = 'x'", Subject.TAG, "mlflow.trace name", "=", "x"),
        ('tag."service.name" ILIKE "Shop%"', Subject.TAG, "service.name", "ILIKE", "Shop%"),
        ("tag.service.name IS NOT NULL", Subject.TAG, "service.name", "IS NOT NULL", None),
        ("metadata.`mlflow.trace.session` is null", Subject.METADATA, "mlflow.trace.session", "IS NULL", None),
        ("span.type IN ('TOOL')", Subject.SPAN, "type", "IN", ("TOOL",)),
        ("span.attributes.http.route RLIKE '^/v1'", Subject.SPAN, "attributes.http.route", "RLIKE", "^/v1"),
        ("span.attributes.`a b` = 'x'", Subject.SPAN, "attributes.a b", "=", "x"),
        ("feedback.quality > 0.5", Subject.FEEDBACK, "quality", ">", 0.5),
        ("expectation.answer = 'Paris'", Subject.EXPECTATION, "answer", "=", "Paris"),
        ("issue.id = 'issue-1'", Subject.ISSUE, "id", "=", "issue-1"),
    ],
)
def test_a_clause_says_what_is_compared_with_what(
    text: str, subject: Subject, key: str, comparator: str, value: object
) -> None:
    assert clause(text) == Clause(subject, key, comparator, value, text)  # type: ignore[arg-type]  # a case's value


def test_clauses_are_joined_by_and() -> None:
    found = parse_filter("status = 'OK' AND tag.a = 'x AND y'\n and span.type='TOOL'")

    assert [each.text for each in found] == ["status = 'OK'", "tag.a = 'x AND y'", "span.type='TOOL'"]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_filter_has_no_clauses(text: str) -> None:
    assert parse_filter(text) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("status = 'OK' OR status = 'ERROR'", "no OR"),
        ("NOT status = 'OK'", "no NOT"),
        ("(status = 'OK')", "no parentheses"),
        ("status = 'OK' AND", "nothing after the last AND"),
        ("status = 'OK' status = 'OK'", "joined by AND"),
        ('root.name == "x"', "joined by AND"),
        ("status = OK", "quoted text"),
        ("timestamp_ms > '5'", "a number"),
        ("status > 'OK'", "can be compared by"),
        ("status IS NULL", "can be compared by"),
        ("tag.a IN ('x')", "can be compared by"),
        ("span.content = 'x'", "ILIKE, LIKE"),
        ("request_id IN 'a'", "takes a list"),
        ("tag.a IS NULL 'x'", "takes no value"),
        ("colour = 'red'", "a trace has no 'colour'"),
        ("params.depth = '1'", "'params' is unknown"),
        ("span.kind = 'x'", "span.attributes.<key>"),
        ("issue.name = 'x'", "issue.id"),
        ("feedback.a > 'x'", "a number"),
        ("feedback.a = 5", "quoted text"),
    ],
)
def test_what_is_not_of_the_grammar_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        parse_filter(text)


@given(st.text(), st.sampled_from("'\""))
def test_any_text_can_be_quoted(value: str, quote: str) -> None:
    written = quote + value.replace(quote, quote * 2) + quote

    assert clause(f"tag.a = {written}").value == value


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigError):
        assert all(each.text in text for each in parse_filter(text))


@given(st.text(alphabet=st.characters(exclude_characters="%_'")))
def test_a_like_without_placeholders_is_the_same_text(value: str) -> None:
    pattern = like_pattern(clause(f"name LIKE '{value}'"))

    assert re.search(pattern, value)
    assert not re.search(pattern, value + "x")


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("name LIKE 'a%c'", "abbc", "Abbc"),
        ("name LIKE 'a_c'", "a\nc", "abbc"),
        ("name LIKE 'a.c'", "a.c", "abc"),
        ("name ILIKE 'A%'", "abc", "bac"),
        ("name RLIKE 'b+'", "abbc", "ac"),
    ],
)
def test_patterns_are_those_of_sql(text: str, matching: str, other: str) -> None:
    pattern = like_pattern(clause(text))

    assert re.search(pattern, matching)
    assert not re.search(pattern, other)
