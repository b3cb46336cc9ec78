"""Scorers of autoevals: `Scorer.eval` and `eval_async`, on output, expected value, input and context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.arguments import NotApplicableError
from otel_scorer.scorers.foreign.adapted import Adapted, judge_of, source_of, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.scorers.foreign.case import Case

__all__ = ["adapt"]

# They compare, and take a missing expected value for None or raise ValueError: neither is a verdict.
_COMPARING: Final = frozenset(
    {"EmbeddingSimilarity", "ExactMatch", "JSONDiff", "Levenshtein", "ListContains", "NumericDiff"}
)


def adapt(scorer: Any) -> Adapted:
    """Return a scorer of autoevals as one of ours. Those that ask a model run as coroutines."""
    names = {base.__name__ for base in type(scorer).__mro__}
    is_judge = bool(names & {"OpenAIScorer", "EmbeddingSimilarity"})
    source = source_of(scorer, "autoevals", getattr(scorer, "model", None), is_judge=is_judge)
    needs_expected = bool(names & _COMPARING) and "expected" not in _given(scorer)

    def arguments(case: Case) -> dict[str, Any]:
        if needs_expected and case.expected is MISSING:
            msg = "the scorer compares with an expected value, and there is none"
            raise NotApplicableError(msg)
        return {**_arguments(case), **_given(scorer)}

    def judge(case: Case) -> Feedback:
        return _feedback(scorer.eval(**arguments(case)), source)

    async def judge_async(case: Case) -> Feedback:
        return _feedback(await scorer.eval_async(**arguments(case)), source)

    return Adapted(
        judge_of(judge_async if is_judge else judge, is_async=is_judge),
        {"name": str(scorer._name()), "concurrent": is_judge},  # noqa: SLF001 - the only way to its name
        code=type(scorer),
        state=state_of(scorer, "autoevals") | _given(scorer),
    )


def _given(scorer: Any) -> dict[str, Any]:
    """Return what `Scorer.partial` fixed."""
    partial = getattr(scorer, "_partial_args", None)
    return dict(cast("Mapping[str, Any]", partial())) if callable(partial) else {}


def _arguments(case: Case) -> dict[str, Any]:
    arguments: dict[str, Any] = {key: value for key, value in case.expectations.items() if key.isidentifier()}
    for key in ("self", "output", "expected", "input", "trace"):
        arguments.pop(key, None)
    arguments["output"] = case.value("outputs")
    if case.expected is not MISSING:
        arguments["expected"] = case.expected
    if case.has("inputs"):
        arguments["input"] = case.value("inputs")
    retrieved = case.retrieved_texts
    if retrieved is not None:
        arguments["context"] = retrieved
    return arguments


def _feedback(score: Any, source: Any) -> Feedback:
    metadata = dict(score.metadata or {})
    rationale = metadata.pop("rationale", None)
    return Feedback(
        value=score.score,
        error=getattr(score, "error", None),
        source=source,
        metadata=metadata or None,
        rationale=rationale,
    )
