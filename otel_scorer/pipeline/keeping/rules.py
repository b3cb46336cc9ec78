"""
Rules such as `any_failed or sample(0.05)`: which traces a backend gets, by what scorers said of them.

Expressions in Python's spelling or CEL's (`and`, `or`, `not`, or `&&`, `||`, `!`), read with Python's own parser and
never run by it. Three answers are possible: whatever depends on a scorer that gave no verdict where it should have, or
on spans that are not there, is neither true nor false, and then the trace is kept.

| | |
|---|---|
| `any_failed` | a verdict says that something did not pass |
| `any_error` | a scorer failed, timed out or was left out for want of room, or gave an error instead of a verdict |
| `failed("scorer")` | a verdict of this scorer did not pass; `failed("scorer", "feedback")`: the one of this name |
| `value("scorer")` | what it said, to be compared; of several values one is enough |
| `error` | a span of the trace failed |
| `duration` | seconds from the first start to the last end |
| `sample(0.05)` | five in a hundred traces, chosen by trace id |
| `trace.FIELD`, `root.FIELD` | the fields of filters: `trace.total_tokens > 1e5`, `root.attributes["tier"] == "gold"` |

What a trace does not have, and a value that a scorer had no reason to give, is absent: a comparison with it is false.
"""

from __future__ import annotations

import ast
import difflib
import operator
import re
from dataclasses import replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from otel_scorer.errors import ConfigError
from otel_scorer.pipeline.keeping.evidence import (
    NUMBERS,
    Fact,
    all_of,
    any_of,
    as_operand,
    comparison,
    constant,
    fact_of,
    has_error,
    has_failed,
    is_true,
    negation,
    values_of,
)
from otel_scorer.pipeline.running.filters import SPAN_FIELDS, TRACE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from otel_scorer.pipeline.keeping.evidence import Evidence, Operand, Test

__all__ = ["Judgement", "KeepRule", "Kept"]

_TOKEN: Final = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|&&|\|\||!=|!|[^"'&|!]+|.""", re.DOTALL)
_SPACE: Final = re.compile(r"\s+")
_AS_PYTHON: Final = {"&&": " and ", "||": " or ", "!": " not "}
_YES_OR_NO: Final = frozenset({("trace", "is_complete"), ("root", "failed"), ("root", "is_root")})
_NAMES: Final = ("any_failed", "any_error", "failed", "value", "error", "duration", "sample", "trace", "root")
_EXAMPLES: Final = {"sample": "0.05", "failed": '"scorer"', "value": '"scorer"'}
_WORDS: Final = ("any_failed", "any_error", "error")
_LITERAL: Final = (str, int, float, bool)


def _is_in(item: Any, container: Any) -> bool:
    return bool(item in container)


def _is_not_in(item: Any, container: Any) -> bool:
    return item not in container


_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: _is_in,
    ast.NotIn: _is_not_in,
}


class Kept(StrEnum):
    """What becomes of a trace. Also the value of the attribute `outcome` of the counter of such traces."""

    KEPT = "kept"
    SAMPLED = "sampled"
    IN_DOUBT = "in_doubt"
    NOT_KEPT = "not_kept"


class Judgement(NamedTuple):
    """What becomes of a trace, and which share of traces like it is kept."""

    outcome: Kept
    share: float


class KeepRule:
    """
    A rule that says which traces are kept.

    Args:
        expression: See above.

    Raises:
        ConfigError: It cannot be read; the message says where.

    Attributes:
        expression: As it was written.
        scorers: The names of scorers in it.
        facts: The fields of traces and roots in it.
        asks_scorers: Whether any verdict matters.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        reading = _Reading(expression)
        self._test = reading.test(reading.tree)
        self.scorers = frozenset(reading.scorers)
        self.facts = frozenset(reading.facts)
        self.asks_scorers = reading.asks_scorers
        self._bounds = sorted({0, NUMBERS, *reading.thresholds})

    def judge(self, evidence: Evidence) -> Judgement:
        """
        Say what becomes of a trace.

        The share is that of trace ids with which the same trace would have been kept: its inverse is how many traces
        one that was kept stands for.
        """
        outcome: bool | None = False
        kept = 0
        for low, high in pairwise(self._bounds):
            answer = self._test(replace(evidence, number=low))
            if answer is not False:
                kept += high - low
            if low <= evidence.number < high:
                outcome = answer
        share = kept / NUMBERS
        if outcome is False:
            return Judgement(Kept.NOT_KEPT, share)
        if kept < NUMBERS:
            return Judgement(Kept.SAMPLED, share)
        return Judgement(Kept.KEPT if outcome else Kept.IN_DOUBT, share)


class _Reading:
    """Makes calls of an expression, and notes what it asks about."""

    def __init__(self, expression: str) -> None:
        self.scorers: set[str] = set()
        self.facts: set[Fact] = set()
        self.thresholds: set[int] = set()
        self.asks_scorers = False
        tokens = [_AS_PYTHON.get(token, token) for token in _tokens(expression)]
        # An expression may go over several lines.
        parts = [token if token[0] in "\"'" else _SPACE.sub(" ", token) for token in tokens]
        self._source: str = "".join(parts).strip()
        if any("#" in token for token in tokens if token[0] not in "\"'"):
            raise self._problem("it cannot be read: a comment in it would hide what follows")
        try:
            tree = ast.parse(self._source, mode="eval").body
        except SyntaxError as error:
            raise self._problem(f"it cannot be read{self._near(error)}") from None
        except (ValueError, RecursionError, MemoryError):
            raise self._problem("it cannot be read") from None
        self.tree: ast.expr = _WithConstants().visit(tree)

    def test(self, node: ast.expr) -> Test:
        """Return what tells whether an expression holds."""
        match node:
            case ast.BoolOp(op=op, values=values):
                return (all_of if isinstance(op, ast.And) else any_of)([self.test(value) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return negation(self.test(operand))
            case ast.Compare(left=left, ops=[compares], comparators=[right]) if type(compares) in _COMPARISONS:
                return comparison(self._operand(left), _COMPARISONS[type(compares)], self._operand(right))
            case ast.Compare():
                raise self._problem(f"`{self._text(node)}` is no comparison of two values; join several with `and`")
            case ast.Name(id=name) if name in _WORDS:
                return self._word(name)
            case ast.Call(func=ast.Name(id=("failed" | "sample") as name)):
                return self._sample(node) if name == "sample" else has_failed(*self._scorer(node))
            case _:
                return self._truth(node)

    def _truth(self, node: ast.expr) -> Test:
        """Return what tells whether a value is true, where it may be."""
        operand = self._operand(node)
        match node:
            case ast.Attribute(value=ast.Name(id=subject), attr=name):
                may_be_true = (subject, name) in _YES_OR_NO
            case ast.Constant(value=value):
                may_be_true = isinstance(value, bool)
            case _:
                may_be_true = isinstance(node, ast.Call | ast.Subscript)
        if not may_be_true:
            raise self._problem(f"`{self._text(node)}` is neither true nor false: compare it with something")
        return is_true(operand)

    def _word(self, name: str) -> Test:
        if name == "error":
            return comparison(self._fact("trace", "failed_span_count"), operator.gt, constant(0))
        self.asks_scorers = True
        return has_error if name == "any_error" else has_failed(None, None)

    def _operand(self, node: ast.expr) -> Operand:
        match node:
            case ast.BoolOp() | ast.UnaryOp(op=ast.Not()) | ast.Compare():
                return as_operand(self.test(node))
            case ast.Name(id=("any_failed" | "any_error" | "error")):
                return as_operand(self.test(node))
            case ast.Call(func=ast.Name(id=("failed" | "sample"))):
                return as_operand(self.test(node))
            case ast.Call(func=ast.Name(id="value")):
                return values_of(*self._scorer(node))
            case ast.Name(id="duration"):
                return self._fact("trace", "duration")
            case _:
                return self._field(node)

    def _field(self, node: ast.expr) -> Operand:
        match node:
            case ast.Attribute(value=ast.Name(id=("trace" | "root") as subject), attr=name):
                return self._fact(subject, name)
            case ast.Subscript(
                value=ast.Attribute(value=ast.Name(id="root"), attr=("attributes" | "resource") as name),
                slice=ast.Constant(value=str(key)),
            ):
                return self._fact("root", name, key)
            case _:
                return constant(self._literal(node))

    def _fact(self, subject: str, name: str, key: str | None = None) -> Operand:
        known = TRACE_FIELDS if subject == "trace" else SPAN_FIELDS
        if name not in known:
            raise self._problem(f"there is no `{subject}.{name}`{_hint(name, known)}")
        fact = Fact(subject, name, key)
        self.facts.add(fact)
        return fact_of(fact)

    def _scorer(self, node: ast.Call) -> tuple[str, str | None]:
        """Return the names of the scorer and the feedback that a call is about."""
        feedback: str | None = None
        match node:
            case ast.Call(args=[ast.Constant(value=str(scorer))], keywords=[]):
                pass
            case ast.Call(args=[ast.Constant(value=str(scorer)), ast.Constant(value=str(feedback))], keywords=[]):
                pass
            case _:
                raise self._problem(f"`{self._text(node)}` must name a scorer in quotes, and maybe a feedback of it")
        self.asks_scorers = True
        self.scorers.add(scorer)
        return scorer, feedback

    def _sample(self, node: ast.Call) -> Test:
        match node:
            case ast.Call(args=[ast.Constant(value=int() | float() as rate)], keywords=[]) if 0 <= rate <= 1:
                threshold = int(rate * NUMBERS)
            case _:
                raise self._problem(f"`{self._text(node)}` must name a share between 0 and 1, such as sample(0.05)")
        self.thresholds.add(threshold)
        return lambda evidence: evidence.number < threshold

    def _literal(self, node: ast.expr) -> object:
        try:
            value: object = ast.literal_eval(node)
        except ValueError:
            raise self._unknown(node) from None
        items = cast("Sequence[object]", value) if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(item, _LITERAL) for item in items):
            raise self._problem(f"`{self._text(node)}` is no text and no number")
        return cast("object", value)

    def _unknown(self, node: ast.expr) -> ConfigError:
        match node:
            case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name not in _NAMES:
                return self._problem(f"there is no `{name}`{_hint(name, _NAMES)}")
            case ast.Name(id=("trace" | "root") as subject):
                return self._problem(f"it must say which field of `{subject}` it means, as in `{subject}.duration`")
            case ast.Name(id=name) if name in _EXAMPLES:
                return self._problem(f"`{name}` must be called, as in {name}({_EXAMPLES[name]})")
            case _:
                return self._problem(f"`{self._text(node)}` is not understood")

    def _text(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._source, node) or ast.unparse(node)

    def _near(self, error: SyntaxError) -> str:
        rest = self._source[max((error.offset or 1) - 1, 0) :].strip()
        return f" from `{rest[:40]}` on" if rest else ""

    def _problem(self, problem: str) -> ConfigError:
        return ConfigError(problem)


class _WithConstants(ast.NodeTransformer):
    """Lets `true` and `false`, as CEL writes them, mean what they say."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(node.id == "true"), node) if node.id in {"true", "false"} else node


def _tokens(expression: str) -> list[str]:
    return [found[0] for found in _TOKEN.finditer(expression)]


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean `{near[0]}`?)" if near else f"; there are {', '.join(known)}"
