"""Parameters of scorer classes that somebody wrote down: a mistyped one must not be ignored, as pydantic does."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, Final

from pydantic import AliasChoices, AliasPath, BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["field_parameter", "unknown_parameter"]

_PASSED_ON_TO_FIELDS: Final = frozenset({"pydantic", "otel_scorer", "mlflow"})


def unknown_parameter(made: type[Any], given: Iterable[str]) -> str | None:
    """
    Return what is wrong with parameters, or None. A constructor that takes any keyword may mean them all.

    Args:
        made: A class; of one that is not pydantic's, Python itself refuses what it does not take.
        given: The names.
    """
    known = _known(made)
    unknown = [] if known is None else [name for name in given if name not in known]
    if not unknown or known is None:
        return None
    near = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
    return f"{made.__name__} has no parameter {unknown[0]!r}; {hint}"


def _known(made: type[Any]) -> set[str] | None:
    """Return the names that a class takes; None if nobody can tell."""
    if not issubclass(made, BaseModel):
        return None
    taken = inspect.signature(made).parameters.values()
    init: Any = getattr(made, "__init__")  # noqa: B009 - checkers know only the one of this very class
    is_fields = str(init.__module__).partition(".")[0] in _PASSED_ON_TO_FIELDS
    if any(each.kind is each.VAR_KEYWORD for each in taken) or not is_fields:
        return None
    # What looks at the data before the fields do may have names of its own.
    if any(each.info.mode != "after" for each in made.__pydantic_decorators__.model_validators.values()):
        return None
    if any(isinstance(each.validation_alias, AliasChoices | AliasPath) for each in made.model_fields.values()):
        return None
    aliases = {each.validation_alias for each in made.model_fields.values() if isinstance(each.validation_alias, str)}
    return {field_parameter(made, name) for name in made.model_fields} | aliases


def field_parameter(made: type[BaseModel], name: str) -> str:
    """Return the name by which a constructor takes a field: its own, or where only an alias will do, that."""
    alias = made.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        alias = next((choice for choice in alias.choices if isinstance(choice, str)), None)
    return alias if isinstance(alias, str) and not _takes_names(made) else name


def _takes_names(made: type[BaseModel]) -> bool:
    return bool(made.model_config.get("populate_by_name") or made.model_config.get("validate_by_name"))
