"""
Filters: CEL expressions over documented fields of a trace, of its root, and of a target span.

Needs the extra `filters`. An expression is compiled once; per trace only the fields that it names are converted. What a
trace does not have is absent: an expression that depends on it is false, and `has(trace.session_id)` or
`"key" in root.attributes` asks for it.

| `trace.` | |
|---|---|
| `trace_id` | 32 lower-case hex digits |
| `span_types`, `span_names`, `tool_names`, `dialects`, `tags` | lists of different values, sorted |
| `span_count`, `failed_span_count`, `tool_call_count`, `llm_call_count` | integers |
| `duration` | seconds from the first start to the last end |
| `request_time`, `execution_duration`, `end_time` | of the root, in milliseconds, as MLflow counts them |
| `service_name`, `session_id`, `user_id`, `model` | strings |
| `state` | `OK`, `ERROR` or `IN_PROGRESS` |
| `input_tokens`, `output_tokens`, `total_tokens` | integers |
| `is_complete`, `close_reason`, `revision` | how the trace was closed |
| `tag_values` | map of what MLflow calls tags: resource attributes of the root, and recorded tags, as text |
| `spans` | list of maps: `name`, `span_type`, `status`, and `attributes` as text; converts every attribute |

| `root.`, and `span.` for a scorer with `span_types` | |
|---|---|
| `name`, `span_id`, `span_type`, `kind`, `scope`, `service_name` | strings |
| `status`, `status_message`, `failed` | `OK` or `ERROR`, text, bool |
| `duration` | seconds |
| `is_root` | no parent id |
| `attributes`, `resource` | maps: `root.attributes["http.route"]` |
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_scorer.model.trace import Span, Trace

__all__ = ["SPAN_FIELDS", "TRACE_FIELDS", "Answer", "Filter", "compile_filter"]

_NANOSECONDS: Final = 1_000_000_000
_EVERYTHING: Final = None
_MAPS: Final = frozenset({"attributes", "resource"})
_SUBJECTS: Final = ("trace", "root", "span")

# A string literal, a name, a number, or one other character: enough of CEL's grammar to find `root.attributes["key"]`.
_TOKEN: Final = re.compile(
    r"""[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"""|[A-Za-z_]\w*|\d[\w.]*|\S""",
    re.DOTALL,
)


def _duration(trace: Trace) -> float | None:
    spans = trace.spans
    if not spans:
        return None
    return (max(span.end_time_ns for span in spans) - min(span.start_time_ns for span in spans)) / _NANOSECONDS


def _tag_values(trace: Trace) -> dict[str, str]:
    tags = {} if trace.root is None else {key: _text(value) for key, value in trace.root.resource.items()}
    return {**tags, **trace.info.tags}


def _spans(trace: Trace) -> list[dict[str, Any]]:
    return [
        {
            "name": span.name,
            "span_type": span.span_type,
            "status": str(span.status.status_code),
            "attributes": {key: _text(value) for key, value in span.attributes.items()},
        }
        for span in trace.spans
    ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


TRACE_FIELDS: Final[dict[str, Callable[[Trace], Any]]] = {
    "trace_id": lambda trace: trace.trace_id,
    "span_types": lambda trace: sorted(trace.span_types),
    "span_names": lambda trace: sorted({span.name for span in trace.spans}),
    "tool_names": lambda trace: sorted({call.name for call in trace.tool_calls}),
    "dialects": lambda trace: list(trace.dialects),
    "tags": lambda trace: sorted(trace.tags),
    "span_count": lambda trace: len(trace.spans),
    "failed_span_count": lambda trace: sum(span.failed for span in trace.spans),
    "tool_call_count": lambda trace: len(trace.tool_calls),
    "llm_call_count": lambda trace: len(trace.llm_calls),
    "duration": _duration,
    "request_time": lambda trace: trace.info.request_time,
    "execution_duration": lambda trace: trace.info.execution_duration,
    "end_time": lambda trace: trace.info.request_time + trace.info.execution_duration,
    "service_name": lambda trace: trace.service_name,
    "session_id": lambda trace: trace.session_id,
    "user_id": lambda trace: trace.user_id,
    "model": lambda trace: trace.model,
    "state": lambda trace: str(trace.info.state),
    "input_tokens": lambda trace: None if trace.usage is None else trace.usage.input_tokens,
    "output_tokens": lambda trace: None if trace.usage is None else trace.usage.output_tokens,
    "total_tokens": lambda trace: None if trace.usage is None else trace.usage.total_tokens,
    "is_complete": lambda trace: trace.is_complete,
    "close_reason": lambda trace: None if trace.close_reason is None else str(trace.close_reason),
    "revision": lambda trace: trace.revision,
    "tag_values": _tag_values,
    "spans": _spans,
}
"""Fields of `trace`, and how each is found; None: absent."""

SPAN_FIELDS: Final[dict[str, Callable[[Span], Any]]] = {
    "name": lambda span: span.name,
    "span_id": lambda span: span.span_id,
    "span_type": lambda span: span.span_type,
    "kind": lambda span: str(span.kind),
    "scope": lambda span: span.scope.name,
    "service_name": lambda span: span.service_name,
    "status": lambda span: str(span.status.status_code),
    "status_message": lambda span: span.status.description,
    "failed": lambda span: span.failed,
    "duration": lambda span: span.duration_ns / _NANOSECONDS,
    "is_root": lambda span: span.parent_id is None,
    "attributes": lambda span: span.attributes,
    "resource": lambda span: span.resource,
}
"""Fields of `root` and `span`, and how each is found; None: absent."""


class Answer(StrEnum):
    """What a filter says about a trace or span."""

    YES = "yes"
    NO = "no"
    ERROR = "error"


class _Program(Protocol):
    def execute(self, context: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Filter:
    """
    A compiled expression.

    Attributes:
        expression: As it was written.
        fields: The fields that it names, per subject; of a map either the keys that it names or None for all.
    """

    expression: str
    fields: Mapping[str, Mapping[str, frozenset[str] | None]]
    program: _Program

    @property
    def is_about_spans(self) -> bool:
        """Whether it must be asked for every target span, and not once per trace."""
        return "span" in self.fields

    def ask(self, trace: Trace, span: Span | None = None) -> tuple[Answer, str | None]:
        """Return what the expression says of `trace` (and the target `span`), and why it is no YES."""
        context: dict[str, Any] = {subject: {} for subject in self.fields}
        try:
            for subject, fields in self.fields.items():
                context[subject] = _values(subject, fields, trace, span)
            result = self.program.execute(context)
        except KeyError as error:
            return Answer.NO, f"absent: {error}"
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in an expression is its author's to see
            return Answer.ERROR, f"{type(error).__name__}: {error}"
        if result is True:
            return Answer.YES, None
        if result is False:
            return Answer.NO, None
        return Answer.ERROR, f"a filter must be true or false, and this is {result!r:.100}"


def compile_filter(expression: str, *, owner: str, has_span: bool) -> Filter:
    """
    Compile a filter.

    Args:
        expression: CEL over the fields above.
        owner: The scorer's name, for messages.
        has_span: Whether there is a target span, so that `span.` means something.

    Raises:
        ConfigError: The extra is not installed, the expression is none, or it names what there is not.
    """
    try:
        import cel
    except ImportError:
        msg = f"Scorer {owner!r} has a filter, which needs the extra: pip install 'otel-scorer[filters]'"
        raise ConfigError(msg) from None
    try:
        program = cast("_Program", cel.compile(expression))
    except Exception as error:  # noqa: BLE001 - the parser is not ours, and so are its exceptions
        problem = " ".join(str(error).split())
        raise ConfigError(f"Scorer {owner!r}: cannot read the filter {expression!r}: {problem}") from None
    fields = _fields(expression, owner)
    if "span" in fields and not has_span:
        msg = f"Scorer {owner!r}: the filter {expression!r} asks about `span`, which needs `span_types`"
        raise ConfigError(msg)
    _try_out(program, expression, owner)
    return Filter(expression, fields, program)


def _try_out(program: _Program, expression: str, owner: str) -> None:
    """Run the expression on nothing: a name that CEL does not know shows now, and not with the first trace."""
    try:
        program.execute({subject: {} for subject in _SUBJECTS})
    except RuntimeError as error:
        if "ndefined" in str(error):
            known = ", ".join(f"`{subject}`" for subject in _SUBJECTS)
            msg = f"Scorer {owner!r}: the filter {expression!r} is about {known}, and nothing else is known: {error}"
            raise ConfigError(msg) from None
    except Exception:  # noqa: BLE001, S110 - everything is absent here, so most expressions stop early
        pass


def _fields(expression: str, owner: str) -> dict[str, dict[str, frozenset[str] | None]]:
    """Return the fields that an expression names."""
    tokens = _TOKEN.findall(expression)
    found: dict[str, dict[str, frozenset[str] | None]] = {}
    for at, token in enumerate(tokens):
        if token not in _SUBJECTS or (at and tokens[at - 1] == "."):
            continue
        name = _member(tokens, at + 1)
        known = TRACE_FIELDS if token == "trace" else SPAN_FIELDS  # noqa: S105 - a token of CEL
        if name is None or name not in known:
            raise ConfigError(_unknown_field(token, name, known, expression, owner))
        keys: frozenset[str] | None = _EVERYTHING
        if name in _MAPS and (key := _member(tokens, at + (3 if tokens[at + 1] == "." else 4))) is not None:
            keys = frozenset({key})
        fields = found.setdefault(token, {})
        before = fields.get(name, frozenset[str]())
        fields[name] = _EVERYTHING if keys is None or before is None else before | keys
    return found


def _member(tokens: list[str], at: int) -> str | None:
    """Return the name in `.name` or `["name"]` at a position."""
    following = tokens[at : at + 3]
    if len(following) > 1 and following[0] == ".":
        return following[1]
    if len(following) > 2 and following[0] == "[" and following[2] == "]":  # noqa: PLR2004 - three tokens
        text = following[1]
        # Escapes are rare enough in keys to convert all of the map instead.
        return text[1:-1] if text[0] in "\"'" and text[:3] not in {'"""', "'''"} and "\\" not in text else None
    return None


def _unknown_field(subject: str, name: str | None, known: Mapping[str, object], expression: str, owner: str) -> str:
    if name is None:
        return f"Scorer {owner!r}: the filter {expression!r} must say which field of `{subject}` it means"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{subject}.{near[0]}`?" if near else f"there are {', '.join(known)}"
    return f"Scorer {owner!r}: the filter {expression!r} names `{subject}.{name}`; {hint}"


def _values(
    subject: str, fields: Mapping[str, frozenset[str] | None], trace: Trace, span: Span | None
) -> dict[str, Any]:
    if subject == "trace":
        return _present({name: TRACE_FIELDS[name](trace) for name in fields})
    target = span if subject == "span" else trace.root
    if target is None:
        return {}
    values: dict[str, Any] = {}
    for name, keys in fields.items():
        value = SPAN_FIELDS[name](target)
        if name in _MAPS:
            value = _present({key: value.get(key) for key in (value if keys is None else keys)})
        values[name] = value
    return _present(values)


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
