# mypy: disable-error-code="no-untyped-def, arg-type, func-returns-value, valid-type"
# Scorers are written here the way users write them, annotated or not.
from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NewType, Optional, TypedDict, Union

import pytest

from otel_scorer.errors import ScorerError
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers import scorer
from otel_scorer.scorers.annotations import Shape, namespaces_of, read_annotation
from otel_scorer.scorers.arguments import NotApplicableError, Signature

if TYPE_CHECKING:
    from otel_scorer.model.trace import Trace

MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
Text = NewType("Text", str)


class Row(TypedDict):
    question: str


@pytest.mark.parametrize(
    ("annotation", "shape", "optional"),
    [
        (str, Shape.TEXT, False),
        ("str", Shape.TEXT, False),
        (Optional[str], Shape.TEXT, True),  # noqa: UP045 - one way of writing it
        ("Optional[str]", Shape.TEXT, True),
        ("Union[None, str]", Shape.TEXT, True),
        (Union[str, None], Shape.TEXT, True),  # noqa: UP007 - one way of writing it
        (str | None, Shape.TEXT, True),
        ("str | None", Shape.TEXT, True),
        ("'str | None'", Shape.TEXT, True),
        ("NotImported | None", Shape.AS_IS, True),
        ("Optional[NotImported]", Shape.AS_IS, True),
        ("typing.Optional[str]", Shape.TEXT, True),
        ("NotImported[str]", Shape.AS_IS, False),
        ("dict[str, NotImported]", Shape.DICT, False),
        ("Annotated[str, NotImported]", Shape.TEXT, False),
        ("str | NotImported", Shape.AS_IS, False),
        ("str | NotImported | None", Shape.AS_IS, True),
        (Annotated[str, "text"], Shape.TEXT, False),
        (Text, Shape.TEXT, False),
        (dict, Shape.DICT, False),
        (dict[str, Any], Shape.DICT, False),
        (Mapping[str, Any], Shape.DICT, False),
        (Optional[dict[str, Any]], Shape.DICT, True),  # noqa: UP045 - one way of writing it
        (Row, Shape.DICT, False),
        (Any, Shape.AS_IS, False),
        (list[str], Shape.AS_IS, False),
        (str | list[str], Shape.AS_IS, False),
        (None, Shape.AS_IS, True),
        ([str], Shape.AS_IS, False),
        ("not python (", Shape.AS_IS, False),
        ("1 / 0", Shape.AS_IS, False),
    ],
)
def test_annotations_are_read(annotation: object, shape: Shape, optional: bool) -> None:
    assert read_annotation(annotation, namespaces_of(test_annotations_are_read)) == (shape, optional)


def fitted(function: Any, **values: Any) -> tuple[list[Any], dict[str, Any]]:
    return Signature.of(function, "check").fit(lambda name: values.get(name, MISSING))


def test_a_parameter_gets_what_its_name_says() -> None:
    def check(outputs, trace, inputs): ...

    assert fitted(check, inputs=1, outputs=2, expectations=3, trace=4) == ([], {"outputs": 2, "trace": 4, "inputs": 1})


def test_only_what_a_scorer_asks_for_is_looked_up() -> None:
    looked: list[str] = []

    def look_up(name: str) -> None:
        looked.append(name)

    def check(trace: Trace) -> None: ...

    Signature.of(check, "check").fit(look_up)

    assert looked == ["trace"]


@pytest.mark.parametrize(
    ("value", "text"),
    [("as it is", "as it is"), (MESSAGES, "a"), ({"k": [1, "é"]}, '{"k":[1,"é"]}'), (None, "null"), (3, "3")],
)
def test_text_is_given_to_who_wants_text(value: object, text: str) -> None:
    def check(outputs: str) -> None: ...

    assert fitted(check, outputs=value) == ([], {"outputs": text})


def test_inputs_as_text_are_what_the_user_said() -> None:
    def check(inputs: str) -> None: ...

    assert fitted(check, inputs=MESSAGES) == ([], {"inputs": "q"})


def test_a_dict_is_given_to_who_wants_a_dict() -> None:
    def check(inputs: dict[str, Any], outputs: dict[str, Any]) -> None: ...

    assert fitted(check, inputs={"q": 1}, outputs={"a": 2}) == ([], {"inputs": {"q": 1}, "outputs": {"a": 2}})
    assert fitted(check, inputs="q", outputs=[2]) == ([], {"inputs": {"input": "q"}, "outputs": {"output": [2]}})


def test_a_missing_value_is_the_default_or_none_or_a_reason() -> None:
    def defaulted(outputs: str = "nothing") -> None: ...
    def optional(outputs: str | None) -> None: ...
    def swallowed(**everything: Any) -> None: ...
    def required(outputs: str) -> None: ...
    def unannotated(outputs): ...

    assert fitted(defaulted) == ([], {"outputs": "nothing"})
    assert fitted(optional) == ([], {"outputs": None})
    assert fitted(swallowed) == ([], dict.fromkeys(["inputs", "outputs", "expectations", "trace", "span"]))
    for function in (required, unannotated):
        with pytest.raises(NotApplicableError, match="needs 'outputs'"):
            fitted(function)


def test_none_is_a_value() -> None:
    def optional(outputs: str | None = "default") -> None: ...
    def unannotated(outputs): ...

    nothing: Any = None

    def defaulted(outputs: str = nothing) -> None: ...

    assert fitted(optional, outputs=None) == ([], {"outputs": None})
    assert fitted(defaulted, outputs=None) == ([], {"outputs": None})
    assert fitted(unannotated, outputs=None) == ([], {"outputs": None})


def test_kwargs_get_what_no_parameter_names() -> None:
    def check(outputs: str, **rest: Any) -> None: ...

    _, named = fitted(check, outputs=MESSAGES, inputs=MESSAGES)

    assert named == {"outputs": "a", "inputs": MESSAGES, "expectations": None, "trace": None, "span": None}


def test_positional_only_parameters_are_filled_from_the_left() -> None:
    def check(outputs, limit=3, inputs=None, /, *args): ...

    assert fitted(check, outputs=1, inputs=2) == ([1, 3, 2], {})


def test_other_parameters_keep_their_defaults() -> None:
    def check(outputs: Any, limit: int = 3) -> int:
        return limit

    assert fitted(functools.partial(check, limit=5), outputs=1) == ([], {"outputs": 1})


def test_a_parameter_that_nobody_can_fill_is_named() -> None:
    def check(answer: str) -> None: ...

    with pytest.raises(TypeError, match="'answer', which nobody can give it; it can have 'inputs', 'outputs'"):
        fitted(check, outputs=1)


def test_methods_and_callable_objects_have_lost_their_self() -> None:
    class Checks:
        def one(self, outputs: str) -> None: ...
        def __call__(self, trace: Trace) -> None: ...

    assert fitted(Checks().one, outputs=MESSAGES) == ([], {"outputs": "a"})
    assert fitted(Checks(), trace=1) == ([], {"trace": 1})


def test_annotations_of_a_decorated_function_are_those_of_the_function() -> None:
    def check(outputs: Text) -> None: ...

    @functools.wraps(check)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert fitted(wrapper, outputs=MESSAGES) == ([], {"outputs": "a"})


def test_annotations_may_name_what_only_the_enclosing_function_knows() -> None:
    class Inner(TypedDict):
        question: str

    def check(outputs: Inner) -> object:
        return Inner

    assert fitted(check, outputs=1) == ([], {"outputs": {"output": 1}})


def test_a_function_that_calls_itself_can_be_read() -> None:
    @scorer
    def countdown(outputs: int) -> int:
        return 0 if outputs == 0 else countdown(outputs - 1)

    assert countdown.run(outputs=3) == 0


def test_what_has_no_signature_is_refused_at_once() -> None:
    with pytest.raises(ScorerError, match="put it into a function"):
        Signature.of(min, "check")
