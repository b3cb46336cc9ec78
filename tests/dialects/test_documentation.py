"""The page about dialects says what the code says: which there are, in their order, and how they record content."""

from __future__ import annotations

from pathlib import Path

from otel_scorer.dialects import DIALECTS, Dialect

PAGE = Path(__file__).parent.parent.parent / "docs" / "dialects.md"


def row(dialect: Dialect) -> str:
    scopes = [f"scope `{scope}`" for scope in dialect.scopes]
    values = [f"`{key}` = `{value}`" for key, value in (*dialect.values.items(), *dialect.resource.items())]
    keys = [f"`{key}`" for key in dialect.keys]
    names = [f"span name `{name}`" for name in dialect.names]
    events = [f"event `{event}`" for event in dialect.events]
    recognised = ", ".join([*scopes, *keys, *values, *events, *names])
    content = "; ".join(
        [
            *([dialect.capture] if dialect.capture else []),
            *(f"`{scope}`: {said}" for scope, said in dialect.captures.items() if said != dialect.capture),
        ]
    )
    if not content and dialect.base is not None:
        content = f"as `{dialect.base}`"
    return f"| `{dialect.name}` | {recognised} | {content} |"


def test_the_page_lists_the_dialects_in_order_of_precedence() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]

    # To write it anew: print what is expected here.
    assert rows == [row(dialect) for dialect in DIALECTS]
