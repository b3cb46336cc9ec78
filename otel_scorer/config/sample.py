"""Write `config/otel-scorer.yaml` from the model: every key with its default and what it does."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.config.exporters import OtlpExporter
from otel_scorer.config.model import Config
from otel_scorer.config.native import LangfuseExporter, MlflowExporter, NativeExporter, PhoenixExporter
from otel_scorer.config.scoring import ScorerSettings
from otel_scorer.config.section import Section, children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

__all__ = ["generate_sample"]

_WIDTH: Final = 110
_HEAD: Final = """\
# otel-scorer: every setting with its default. Leave out what you do not change.
#
# Durations: 2s, 500ms, 1h30m, or a number of seconds. Sizes: 64MiB, 4MB, or a number of bytes.
# ${env:NAME}, ${env:NAME:-default} and ${file:PATH} are replaced by the variable or the file's contents.
# Written by `otel-scorer check --defaults`; a test compares it with the code.
"""
_SCORER_VALUES: Final = {
    "use": "examples/scorers.py:tool_call_efficiency",
    "name": "null",
    "sample_rate": "1.0",
    "filter": """'root.service_name == "travel-agent" && "TOOL" in trace.span_types'""",
    "timeout": "5s",
    "span_types": "[]",
    "pass_if": "null",
    "concurrent": "false",
    "parameters": "{}",
}


def generate_sample() -> str:
    """Return the text of `config/otel-scorer.yaml`."""
    return "\n".join([_HEAD, *_section(Config(), 0)]) + "\n"


def _section(section: Section, indent: int) -> Iterator[str]:
    values: dict[str, Any] = section.model_dump(mode="json")
    nested = children(type(section))
    for name, field in type(section).model_fields.items():
        if indent == 0 and name != next(iter(type(section).model_fields)):
            yield ""
        yield from _comment(field, indent)
        if name == "scorers":
            yield from _scorers()
        elif name == "exporters":
            yield "exporters:"
            yield "  otlp:"
            yield from _section(OtlpExporter(), 4)
            yield from _natives()
        elif name in nested:
            yield f"{' ' * indent}{name}:"
            yield from _section(getattr(section, name), indent + 2)
        else:
            yield f"{' ' * indent}{name}: {_scalar(values[name])}"


def _scorers() -> Iterator[str]:
    yield "scorers: []"
    yield "# An example, with all keys that a scorer can have; what is left out stays as the scorer's code says:"
    yield "# scorers:"
    for position, (name, field) in enumerate(ScorerSettings.model_fields.items()):
        yield from (f"# {line}" for line in _comment(field, 4))
        yield f"#   {' ' if position else '-'} {name}: {_SCORER_VALUES[name]}"


def _natives() -> Iterator[str]:
    yield "  # Score APIs, beside a destination for spans and with emit: native, with all keys that one can have:"
    for name, exporter in (
        ("phoenix", PhoenixExporter()),
        ("mlflow", MlflowExporter()),
        ("langfuse", LangfuseExporter()),
    ):
        yield f"  # {name}:"
        common = set[str]() if name == "phoenix" else set(NativeExporter.model_fields) - {"endpoint", "connections"}
        if common:
            yield "  #   # And those of phoenix, less its api_key."
        values: dict[str, Any] = exporter.model_dump(mode="json")
        nested = children(type(exporter))
        for key, field in type(exporter).model_fields.items():
            if key in common:
                continue
            yield from (f"  # {line}" for line in _comment(field, 2))
            yield f"  #   {key}: {'{}' if key in nested else _scalar(values[key])}"


def _comment(field: FieldInfo, indent: int) -> list[str]:
    prefix = " " * indent + "# "
    return textwrap.wrap(
        field.description or "", _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False
    )


def _scalar(value: object) -> str:
    """Write a default in flow style: plain where YAML reads it back as the same text, else as JSON."""
    if (
        isinstance(value, str)
        and not any(character in value for character in "#{}[],&*!|>'\"%@`")
        and ": " not in value
    ):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, cast('list[object]', value)))}]"
    return json.dumps(value)
