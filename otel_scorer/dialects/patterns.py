"""
Regular expressions that a configuration may contain: time linear in the text, whatever was written.

Rust's engine, which comes with pydantic, has no backtracking: no look-around, no back-references, and a bound on the
size of what a pattern compiles to. So neither a careless pattern nor a hostile span name can hold a process up.
"""

from __future__ import annotations

from pydantic_core import SchemaError, SchemaValidator, core_schema

__all__ = ["LinearPattern"]

_LONGEST = 1_000


class LinearPattern:
    """
    A pattern to search for.

    Args:
        pattern: At most 1,000 characters, in the syntax of Rust's `regex` crate.

    Raises:
        ValueError: It is no such pattern; the message says why.
    """

    __slots__ = ("_search", "pattern")

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _LONGEST:
            raise ValueError(f"is longer than {_LONGEST:,} characters")
        schema = core_schema.str_schema(pattern=pattern, strict=True, regex_engine="rust-regex")
        try:
            self._search = SchemaValidator(schema).isinstance_python
        except SchemaError as error:
            raise ValueError(f"is no pattern that can be used: {_reason(error)}") from None
        self.pattern = pattern

    def search(self, text: object) -> bool:
        """Tell whether the pattern is found somewhere in the text; in anything but text it is not."""
        return self._search(text)


def _reason(error: SchemaError) -> str:
    """Return the last line of what the engine says: the lines before draw the place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ").removeprefix("SchemaError: ") if lines else "it cannot be compiled"
