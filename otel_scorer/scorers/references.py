"""
Finds the reference by which another process makes the same scorer again: importable code, and plain data.

Nothing is ever pickled, and no source is copied. What cannot be referred to is refused with the cure.
"""

from __future__ import annotations

import inspect
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError

from otel_scorer.errors import ScorerError
from otel_scorer.scorers.bindings import is_bound_once
from otel_scorer.scorers.options import OPTION_NAMES
from otel_scorer.scorers.parameters import field_parameter
from otel_scorer.stores.registrations import Definition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_scorer.scorers.options import ScorerOptions

__all__ = ["FILE_MODULES", "NotReferableError", "definition_of"]

FILE_MODULES: Final = "otel_scorer_file_"
"""What the names of modules begin with that were loaded from a path."""

_MAIN: Final = "__main__"
_SECRET_NAMES: Final = ("api_key", "apikey", "password", "passwd", "secret", "token", "private_key", "credentials")


class NotReferableError(ScorerError):
    """A scorer cannot be found again by another process; the message says why and what to do."""


class _NeedsObjectError(NotReferableError):
    """A scorer object holds what parameters cannot carry; a reference to the object itself may still do."""


def definition_of(scorer: ScorerOptions) -> Definition:
    """
    Return how another process makes this scorer.

    Args:
        scorer: A function scorer or an instance of a scorer class.

    Raises:
        NotReferableError: It is a lambda, defined inside a function or interactively, or holds what is no plain data.
    """
    held = vars(scorer)
    # A scorer of another package is what stands in a module, not the one that was made of it.
    function: object = held.get("_original", held.get("_function"))
    if function is None:
        return _of_instance(scorer)
    found = _place_of(scorer, function, getattr(function, "__module__", None), getattr(function, "__qualname__", ""))
    if found is None:
        raise NotReferableError(_refusal(scorer, function))
    module, path, target = found
    base = held.get("_own_options") if target is function else cast("ScorerOptions", target)
    return _definition(scorer, module, path, {}, _changed_options(scorer, base, default_name=path.rpartition(".")[2]))


def _of_instance(scorer: ScorerOptions) -> Definition:
    """Prefer the class and its fields; an object that stands in a module may hold anything."""
    made = type(scorer)
    try:
        module = _module_with(scorer, made)
        parameters = _parameters(scorer)
        if _wants_name(made):
            parameters["name"] = scorer.name
        again = _made_again(scorer, parameters)
    except _NeedsObjectError as error:
        found = _place_of(scorer, None, made.__module__, "")
        if found is None:
            raise NotReferableError(str(error)) from error.__cause__
        module, path, target = found
        return _definition(scorer, module, path, {}, _changed_options(scorer, cast("ScorerOptions", target)))
    return _definition(scorer, module, made.__qualname__, parameters, _changed_options(scorer, again))


def _definition(
    scorer: ScorerOptions, module: ModuleType, path: str, parameters: dict[str, Any], options: dict[str, Any]
) -> Definition:
    place, folder = _address(scorer, module)
    return Definition(f"{place}:{path}", folder, parameters, options)


# Where it stands.


def _place_of(
    scorer: object, function: object | None, module_name: str | None, qualified: str
) -> tuple[ModuleType, str, Any] | None:
    """Return the module, the path in it, and what stands there: the scorer, its function, or another one of it."""

    def is_it(target: object) -> bool:
        if target is scorer or (function is not None and target is function):
            return True
        # Not getattr: what stands in foreign modules may do anything when it is asked for an attribute.
        held = getattr(target, "__dict__", None) if isinstance(target, BaseModel) else None
        return function is not None and held is not None and held.get("_function") is function

    own = sys.modules.get(module_name or "")
    if own is not None and "<" not in qualified and qualified:
        target = _attribute(own, qualified)
        if is_it(target) and is_bound_once(own, qualified):
            return own, qualified, target
    # The main script comes last; multiprocessing has another name for it.
    main = sys.modules.get(_MAIN)
    others = (sys.modules[name] for name in sorted(sys.modules) if sys.modules[name] is not main)
    for module in _each_once(own, *others, main):
        for name, target in list(vars(module).items()):
            if not name.startswith("__") and is_it(target) and is_bound_once(module, name):
                return module, name, target
    return None


def _each_once(*modules: ModuleType | None) -> Iterable[ModuleType]:
    return {id(module): module for module in modules if isinstance(module, ModuleType)}.values()


def _module_with(scorer: ScorerOptions, made: type) -> ModuleType:
    module = sys.modules.get(made.__module__)
    path = made.__qualname__
    if module is None or _attribute(module, path) is not made or not is_bound_once(module, path):
        raise _NeedsObjectError(_refusal(scorer, made))
    return module


def _attribute(module: ModuleType, path: str) -> object:
    target: object = module
    for name in path.split("."):
        # A scorer that was made of a method is another object each time it is asked for.
        target = vars(target).get(name) if hasattr(target, "__dict__") else None
    return target


def _address(scorer: ScorerOptions, module: ModuleType) -> tuple[str, str | None]:
    """Return what stands before the colon of the reference, and where the module is found if not by itself."""
    name = module.__name__
    file = getattr(module, "__file__", None)
    path = Path(file).resolve() if file else None
    if name == _MAIN and module.__spec__ is not None:
        name = module.__spec__.name  # `python -m package.module`
    elif name == _MAIN or name.startswith(FILE_MODULES):
        if path is None or path.suffix != ".py" or not path.is_file():
            raise NotReferableError(
                f"Scorer {scorer.name!r} cannot be registered: it is defined in an interactive session, which no other "
                f"process can import. Write it to a file and import it from there"
            )
        return str(path), None
    return name, _folder(name, path)


def _folder(name: str, path: Path | None) -> str | None:
    """Return the folder from which a module was imported, unless it was installed: then every process finds it."""
    if path is None:
        return None
    depth = name.count(".") + (path.stem == "__init__")
    folder = path.parents[depth]
    installed = {*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()}
    return None if any(folder == Path(place).resolve() for place in installed) else str(folder)


def _refusal(scorer: ScorerOptions, code: object) -> str:
    qualified = str(getattr(code, "__qualname__", type(code).__qualname__))
    cure = "define it at the top level of a module, or give that object a name of its own there"
    if qualified.endswith("<lambda>"):
        why = "it is a lambda without a name in a module"
    elif "<locals>" in qualified:
        why = f"{qualified.partition('.<locals>')[0]}() defines it, so no other process can import it"
    elif hasattr(code, "__self__"):
        why = "it is a method of an object"
        cure = "write a scorer class with the object's settings as fields"
    elif (module := sys.modules.get(getattr(code, "__module__", None) or "")) and not is_bound_once(module, qualified):
        why = f"{module.__name__} binds the name {qualified} more than once, as in a loop"
    else:
        why = f"nothing of that name in {getattr(code, '__module__', None) or 'any module'} is this scorer"
    return f"Scorer {scorer.name!r} cannot be registered: {why}. The store keeps references, never code: {cure}"


# What it is given.


def _parameters(scorer: ScorerOptions) -> dict[str, Any]:
    own = [name for name in type(scorer).model_fields if name not in OPTION_NAMES and name in scorer.model_fields_set]
    for name in own:
        if _is_secret(name, getattr(scorer, name)):
            raise _NeedsObjectError(
                f"Scorer {scorer.name!r} cannot be registered: its field {name!r} holds a secret, which must not be "
                f"stored. Let the class read it from the environment or a file, as with "
                f"`Field(default_factory=lambda: SecretStr(os.environ[...]))`"
            )
    try:
        held = scorer.model_dump(mode="json", include=set(own), by_alias=False)
    except PydanticSerializationError as error:
        raise _NeedsObjectError(
            f"Scorer {scorer.name!r} cannot be registered: {error}. Fields must be plain data"
        ) from None
    return {field_parameter(type(scorer), name): value for name, value in held.items()}


def _is_secret(name: str, value: object) -> bool:
    if isinstance(value, SecretStr | SecretBytes):
        return True
    if isinstance(value, str | bytes):
        return bool(value) and name.lower().endswith(_SECRET_NAMES)
    if isinstance(value, BaseModel):
        return any(_is_secret(field, getattr(value, field)) for field in value.model_fields_set)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return any(_is_secret(str(key), item) for key, item in items)
    if isinstance(value, list | tuple | set | frozenset):
        return any(_is_secret(name, item) for item in cast("Iterable[object]", value))
    return False


def _made_again(scorer: ScorerOptions, parameters: Mapping[str, Any]) -> ScorerOptions:
    """Make the scorer as another process will, and see that it is the same."""
    made: Callable[..., ScorerOptions] = type(scorer)
    what = f"Scorer {scorer.name!r} cannot be registered: {made.__name__}"
    try:
        again = made(**parameters)
    except Exception as error:  # whatever a constructor of somebody else does
        raise _NeedsObjectError(
            f"{what}({_shown(parameters)}) does not make it: {type(error).__name__}: {error}"
        ) from error
    differing = [
        name
        for name in {**vars(scorer), **vars(again)}
        if name not in OPTION_NAMES and not name.startswith("_") and not _same(scorer, again, name)
    ]
    if differing:
        cure = "make it a field with a type annotation, or name this object at the top level of a module"
        raise _NeedsObjectError(f"{what}({_shown(parameters)}) has another {differing[0]!r}, which is no field: {cure}")
    return again


def _wants_name(made: type[ScorerOptions]) -> bool:
    """Whether a class has no name of its own, neither as a default nor by its constructor."""
    taken = inspect.signature(made).parameters.values()
    accepts = any(each.name == "name" or each.kind is each.VAR_KEYWORD for each in taken)
    return accepts and made.model_fields["name"].is_required()


def _same(one: object, other: object, name: str) -> bool:
    mine, theirs = (cast("object", vars(each).get(name)) for each in (one, other))
    # Objects without an idea of equality, such as a client made in `__init__`, are the same if of one type.
    has_no_equality = getattr(type(mine), "__eq__") is getattr(object, "__eq__")  # noqa: B009 - checkers compare types
    return type(mine) is type(theirs) and (has_no_equality or bool(mine == theirs))


def _shown(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}=..." for name in parameters)


def _changed_options(
    scorer: ScorerOptions, base: ScorerOptions | None, *, default_name: str | None = None
) -> dict[str, Any]:
    """Return the options that differ from what the reference gives by itself. The name is kept elsewhere."""
    found: dict[str, Any] = {}
    for name in sorted(OPTION_NAMES - {"name"}):
        value = getattr(scorer, name)
        before = type(scorer).model_fields[name].get_default() if base is None else getattr(base, name)
        if value == before:
            continue
        if isinstance(value, list | tuple):
            value = list(cast("Iterable[Any]", value))
        if value is None or not _is_plain(value):
            raise NotReferableError(
                f"Scorer {scorer.name!r} cannot be registered: its option {name!r} differs from what "
                f"{default_name or type(scorer).__name__} says, and cannot be stored. Set it in the code instead"
            )
        found[name] = value
    return found


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in cast("list[object]", value))
    return isinstance(value, str | int | float | bool)
