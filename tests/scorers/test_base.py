# mypy: disable-error-code="no-untyped-def, call-arg, call-overload, assignment"
# Scorers are written here the way users write them, with and without annotations and mistakes.
from __future__ import annotations

import asyncio
import copy
import functools
import math
import statistics
from typing import Any

import pytest
from pydantic import PrivateAttr, ValidationError

from otel_scorer.errors import ConfigError, ScorerError
from otel_scorer.model.feedback import Feedback
from otel_scorer.scorers import Scorer, ScorerDefinitionError, as_scorer, as_scorers, scorer
from otel_scorer.scorers.arguments import NotApplicableError


class Stateless(Scorer):
    name: str = "stateless"
    limit: int = 3

    def __call__(self, outputs: str) -> bool:
        return len(outputs) > self.limit


class Counting(Scorer):
    def __init__(self) -> None:
        self.before = "set before the base class knew"
        super().__init__(name="counting")
        self.seen: list[str] = []

    def __call__(self, outputs: str) -> int:
        self.seen.append(outputs)
        return len(self.seen)


class Waiting(Scorer):
    name: str = "waiting"

    async def __call__(self, outputs: str) -> str:
        await asyncio.sleep(0)
        return outputs


def words(outputs: str) -> int:
    """Count words."""
    return len(outputs.split())


@pytest.mark.parametrize(
    "made", [scorer(words), scorer(name="words")(words), scorer()(words), scorer(words, name=None, timeout=3)]
)
def test_the_decorator_takes_options_or_none(made: Scorer) -> None:
    assert isinstance(made, Scorer)
    assert made.name == "words"
    assert made.run(outputs="a b") == 2


def test_a_decorated_function_still_looks_like_itself() -> None:
    made: Any = scorer(words)

    assert (made.__name__, made.__doc__, made.__wrapped__) == ("words", "Count words.", words)


def test_a_direct_call_returns_exactly_what_the_function_returned() -> None:
    returned = Feedback(value=1)
    nothing = object()

    @scorer
    def check(outputs, limit=0, *rest):
        return returned if outputs == "x" else (outputs, limit, rest, nothing)

    assert check("x") is returned
    assert check(outputs="x") is returned
    assert check(1, 2, 3) == (1, 2, (3,), nothing)


def test_a_direct_call_of_a_coroutine_scorer_is_a_coroutine() -> None:
    @scorer
    async def check(outputs: str) -> str:
        return outputs

    assert asyncio.run(check("x")) == "x"
    assert check.is_async
    assert not scorer(words).is_async


def test_options_are_fields() -> None:
    made = scorer(
        words,
        name="w",
        description="d",
        version="7",
        aggregations=["mean", statistics.median],
        pass_if=">= 3",
        timeout=2,
        sample_rate=0.5,
        filter="true",
        span_types=["TOOL"],
        concurrent=True,
    )

    assert made.model_dump() == {
        "name": "w",
        "description": "d",
        "version": "7",
        "aggregations": ["mean", statistics.median],
        "pass_if": ">= 3",
        "timeout": 2,
        "sample_rate": 0.5,
        "filter": "true",
        "span_types": ("TOOL",),
        "concurrent": True,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": True},
        {"timeout": "3"},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"sample_rate": 1.1},
        {"sample_rate": True},
        {"aggregations": ["average"]},
        {"span_types": [1]},
        {"concurrent": "perhaps"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        scorer(words, **options)


def test_an_unreadable_condition_is_refused() -> None:
    with pytest.raises(ConfigError, match="pass_if"):
        scorer(words, pass_if="high")


def test_an_unknown_option_is_refused() -> None:
    options: dict[str, Any] = {"sampling": 1}

    with pytest.raises(ScorerDefinitionError, match="no option 'sampling'"):
        scorer(words, **options)
    with pytest.raises(ScorerError, match="no option 'limit'"):
        Stateless().with_options(limit=4)


class Named:
    name = "by_attribute"

    def __call__(self, outputs: str) -> int:
        return 1

    def method(self, outputs: str) -> int:
        return 2


class Nameless:
    def __call__(self, outputs: str) -> int:
        return 3


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (words, "words"),
        (functools.partial(functools.partial(words), outputs="x"), "words"),
        (Named(), "by_attribute"),
        (Named().method, "method"),
        (Nameless(), "Nameless"),
        (lambda outputs: 1, "lambda"),
        (len, "len"),
    ],
)
def test_any_callable_is_a_scorer_with_a_name(function: Any, name: str) -> None:
    assert as_scorer(function).name == name


def test_a_scorer_stays_itself() -> None:
    made = scorer(words)

    assert as_scorer(made) is made
    assert scorer(made) is made
    assert scorer(made, name="other").name == "other"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([3], "a callable or a Scorer, got 3"),
        ([Stateless], r"give an instance of it: Stateless\(\.\.\.\)"),
        ([int], "is a class"),
        (words, "must be a list of scorers"),
        ("words", "must be a list of scorers"),
        (None, "must be a list of scorers"),
        ({"a": words}, "must be a list of scorers"),
        ([min], "cannot tell the parameters"),
    ],
)
def test_what_is_no_list_of_scorers_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ScorerError, match=message):
        as_scorers(given)


def test_a_class_that_does_not_initialise_its_base_is_named() -> None:
    class Forgetful(Scorer):
        name: str = "forgetful"

        def __init__(self) -> None:
            self.results: list[object] = []

        def __call__(self, outputs: str) -> None: ...

    with pytest.raises(ScorerError, match=r"Forgetful.__init__ must call super\(\).__init__"):
        as_scorer(Forgetful())


def test_equal_names_are_kept_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="2 scorers are called 'words'"):
        made = as_scorers([words, Stateless(), words])

    assert [one.name for one in made] == ["words", "stateless", "words"]


def test_unnamed_lambdas_are_numbered() -> None:
    first = scorer(lambda: 1)

    made = as_scorers([first, words, lambda: 2, scorer(lambda: 3, name="mine"), first])

    assert [one.name for one in made] == ["lambda", "words", "lambda_2", "mine", "lambda_3"]
    assert first.name == "lambda"


def test_a_changed_copy_leaves_the_original_alone_and_shares_its_state() -> None:
    original = Counting()

    changed = original.with_options(name="other", sample_rate=0.5, span_types="TOOL")
    changed.run(outputs="x")

    assert (original.name, original.sample_rate, original.span_types) == ("counting", 1.0, ())
    assert (changed.name, changed.sample_rate, changed.span_types) == ("other", 0.5, ("TOOL",))
    assert original.seen == ["x"]
    assert changed.turn is original.turn


def test_changed_options_are_checked() -> None:
    with pytest.raises(ValidationError):
        Stateless().with_options(sample_rate=2)


def test_a_deep_copy_has_state_of_its_own() -> None:
    original = Counting()
    original.run(outputs="x")

    copied = copy.deepcopy(original)
    copied.run(outputs="y")

    assert (original.seen, copied.seen) == (["x"], ["x", "y"])
    assert copied.turn is not original.turn


def test_attributes_may_be_set_before_and_after_the_base_is_initialised() -> None:
    made = Counting()

    assert made.before == "set before the base class knew"
    assert (made.is_stateful, Stateless().is_stateful, scorer(words).is_stateful) == (True, False, False)


def test_private_attributes_are_state_too() -> None:
    class Private(Scorer):
        name: str = "private"
        _seen: int = PrivateAttr(default=0)

        def __call__(self) -> int:
            self._seen += 1
            return self._seen

    made = Private()

    assert (made.run(), made.run(), Private().run()) == (1, 2, 1)
    assert made.is_stateful


def test_a_class_without_a_call_says_so() -> None:
    with pytest.raises(NotImplementedError, match="has no `__call__`"):
        Scorer(name="nothing").run()


def test_arguments_that_a_class_does_not_declare_are_ignored_as_in_mlflow() -> None:
    assert Stateless(limit=1, unknown=2).limit == 1


def test_a_base_field_without_annotation_names_the_cure() -> None:
    with pytest.raises(ScorerDefinitionError, match="sets `name` without a type annotation: write `name: str"):

        class Unannotated(Scorer):
            name = "x"


def test_a_coroutine_class_runs() -> None:
    assert Waiting().is_async
    assert Waiting().run(outputs="x") == "x"


def test_running_a_coroutine_scorer_inside_an_event_loop_is_refused() -> None:
    async def inside() -> None:
        Waiting().run(outputs="x")

    with pytest.raises(ScorerError, match="await it"):
        asyncio.run(inside())


def test_run_says_what_is_missing() -> None:
    with pytest.raises(NotApplicableError, match="'outputs'"):
        scorer(words).run(inputs="x")


class Suite:
    factor = 2

    @scorer
    def doubled(self, outputs: int) -> int:
        return self.factor * outputs

    plain = scorer(words)


def test_a_decorated_method_is_bound_to_its_object() -> None:
    suite = Suite()
    suite.factor = 3

    assert suite.doubled.run(outputs=2) == 6
    assert suite.doubled(5) == 15
    assert suite.doubled.name == "doubled"
    assert suite.plain.run(outputs="a b") == 2
