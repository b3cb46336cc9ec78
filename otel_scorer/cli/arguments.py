"""Flags that take several values (`--scorers a b c`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ManyValues", "is_reference", "many"]

STDIN = "-"


class _Many(click.Option):
    """An option that takes one or more values after one flag, and may be repeated."""


def many(*names: str, takes: Callable[[str], bool] | None = None, **settings: Any) -> Callable[[Any], Any]:
    """
    Declare an option that takes one or more values.

    Args:
        names: As for `click.option`.
        takes: Whether a further word belongs to the option; the first one always does.
        settings: As for `click.option`.
    """

    class _Option(_Many):
        belongs = staticmethod(takes or _is_plain)

    return click.option(*names, cls=_Option, multiple=True, **settings)


def _is_plain(_word: str) -> bool:
    return True


class ManyValues(click.Command):
    """A command whose `many` options are spread out before click, which knows no such thing, reads them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spread, then parse."""
        options = {name: option for option in self.params if isinstance(option, _Many) for name in option.opts}
        return super().parse_args(ctx, _spread(args, options))


def _spread(args: list[str], options: dict[str, _Many]) -> list[str]:
    """Repeat the flag before each of its values: `--emit a b` becomes `--emit a --emit b`."""
    out: list[str] = []
    flag: str | None = None
    position = 0
    for number, word in enumerate(args):
        if word == "--":
            return out + args[number:]
        if word.startswith("-") and word != STDIN:
            name, equals, _ = word.partition("=")
            flag = name if name in options else None
            position = 1 if equals else 0
            out.append(word)
        elif flag is None or (position and not _belongs(word, options[flag])):
            flag = None
            out.append(word)
        else:
            out += [flag, word] if position else [word]
            position += 1
    return out


def _belongs(word: str, option: _Many) -> bool:
    belongs: Callable[[str], bool] = getattr(option, "belongs", _is_plain)
    return word != STDIN and belongs(word)


def is_reference(word: str) -> bool:
    """Tell whether a word after `--scorers REF` is another reference: files of traces may follow too."""
    return word.endswith(".py") or not Path(word).is_file()
