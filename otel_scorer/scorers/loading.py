"""
Find scorers by reference: a built-in, an entry point, a module, or a Python file.

A reference is text, so it can stand in YAML and be handed to a worker process, which finds the same scorers for itself.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import pydantic
from pydantic import ValidationError

from otel_scorer.errors import ConfigError, ScorerError
from otel_scorer.scorers.base import Scorer, as_scorer, as_scorers
from otel_scorer.scorers.builtin import BUILT_IN
from otel_scorer.scorers.foreign import adapter_of, adapter_of_class
from otel_scorer.scorers.lifecycle import loading
from otel_scorer.scorers.parameters import unknown_parameter
from otel_scorer.scorers.references import FILE_MODULES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ENTRY_POINT_GROUP", "ScorerSpec", "load_scorers"]

ENTRY_POINT_GROUP: Final = "otel_scorer.scorers"

# What refuses a scorer class that cannot work stands here and in pydantic; to blame is the line with the class.
_MACHINERY: Final = (str(Path(__file__).parent), str(Path(pydantic.__file__).parent), "<frozen ")
# Modules of files that are being executed.
_in_progress: Final = ContextVar("otel_scorer_files", default=frozenset[str]())


@dataclass(frozen=True, slots=True)
class ScorerSpec:
    """
    A reference to scorers, and options that win over those in the code. Plain data, as it stands in YAML.

    Attributes:
        use: The reference: `package.module:attribute`, `package.module`, `path/to/file.py`,
            `path/to/file.py:attribute`, an entry point of group `otel_scorer.scorers`, or the name of a built-in.
        name: Another name; only for a reference to one scorer.
        sample_rate: Share of the traces, 0 to 1.
        filter: CEL expression.
        timeout: Seconds; 0: no limit.
        span_types: Judge every span of these types.
        pass_if: When a value passes, such as `">= 0.7"`.
        concurrent: Calls may overlap in a process.
        parameters: Fields for a scorer class; only for a reference to one scorer class.
        description: What it judges.
        version: Its version.
        aggregations: How `evaluate` sums its values up.
        folder: Where to look for the module, should it not be found otherwise.
    """

    use: str
    name: str | None = None
    sample_rate: float | None = None
    filter: str | None = None
    timeout: float | None = None
    span_types: Sequence[str] | None = None
    pass_if: str | None = None
    concurrent: bool | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    description: str | None = None
    version: str | None = None
    aggregations: Sequence[str] | None = None
    folder: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that were given; an empty `span_types` counts as not given."""
        given = {
            "name": self.name,
            "sample_rate": self.sample_rate,
            "filter": self.filter,
            "timeout": self.timeout,
            "span_types": self.span_types or None,
            "pass_if": self.pass_if,
            "concurrent": self.concurrent,
            "description": self.description,
            "version": self.version,
            "aggregations": self.aggregations,
        }
        return {key: value for key, value in given.items() if value is not None}


def load_scorers(references: Sequence[str | ScorerSpec]) -> list[Scorer]:
    """
    Return the scorers that are referred to, in the order of the references and of their definition.

    A file is executed once per call, so that a second call sees what has changed in it.

    Args:
        references: See `ScorerSpec.use`.

    Raises:
        ConfigError: A reference cannot be found or imported, has no scorer in it, or an option cannot be meant.
    """
    modules: dict[str, ModuleType] = {}
    scorers: list[Scorer] = []
    for reference in references:
        spec = ScorerSpec(reference) if isinstance(reference, str) else reference
        found = _found(spec, modules)
        if len(found) > 1 and spec.name is not None:
            msg = f"Scorers {spec.use!r}: `name` needs a reference to one scorer, and there are {len(found)}"
            raise ConfigError(msg)
        for made in found:
            if made.signature.complaint is not None:
                raise ConfigError(f"Scorer {spec.use!r}: {made.name} {made.signature.complaint}")
            scorers.append(_with_options(made, spec))
    return as_scorers(scorers)


def _with_options(made: Scorer, spec: ScorerSpec) -> Scorer:
    options = spec.options
    if not options:
        return made
    try:
        return made.with_options(**options)
    except ValidationError as error:
        raise ConfigError(f"Scorer {spec.use!r}: {_first_problem(error)}") from None


def _found(spec: ScorerSpec, modules: dict[str, ModuleType]) -> list[Scorer]:
    reference = spec.use.strip()
    place, attribute = _split(reference)
    if place.endswith(".py"):
        module = _module_of_file(place, modules)
    elif attribute is None and reference in BUILT_IN:
        return [BUILT_IN[reference]]
    elif attribute is None and (point := _entry_point(reference)) is not None:
        return _scorers_in(_guarded(point.load, reference), spec)
    else:
        module = _module(place, spec)
    target = module if attribute is None else _attribute(module, attribute, reference)
    return _scorers_in(target, spec)


def _split(reference: str) -> tuple[str, str | None]:
    """Split off the attribute; a path may have a colon of its own, so the last one counts."""
    if not reference:
        msg = "A reference to scorers is empty"
        raise ConfigError(msg)
    place, colon, attribute = reference.rpartition(":")
    if not colon or attribute.endswith(".py"):
        return reference, None
    if not place or not attribute:
        msg = f"Scorer reference {reference!r}: write module:attribute or file.py:attribute"
        raise ConfigError(msg)
    return place, attribute


def _entry_point(name: str) -> Any:
    return next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)), None)


def _module(name: str, spec: ScorerSpec) -> ModuleType:
    reference = spec.use
    if not _exists(name, reference):
        # Unlike `python`, an installed command does not look into the folder that it was called in.
        for folder in (str(Path.cwd()), spec.folder):
            if folder is not None and _exists_in(folder, name, reference):
                break
        else:
            raise ConfigError(f"Unknown scorer {reference!r}: {_suggestions(name)}")
    return cast("ModuleType", _guarded(lambda: importlib.import_module(name), reference))


def _exists_in(folder: str, name: str, reference: str) -> bool:
    sys.path.append(folder)
    if _exists(name, reference):
        return True
    sys.path.remove(folder)
    return False


def _exists(name: str, reference: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False  # a parent package is missing, or the name is none
    except (Exception, SystemExit) as error:  # finding `a.b` executes `a`, which is somebody's code
        raise ConfigError(_import_problem(reference, error)) from error


def _suggestions(name: str) -> str:
    known = [*BUILT_IN, *sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))]
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"it is no module that can be imported, no path of a .py file, and not one of {', '.join(known)}"


def _module_of_file(place: str, modules: dict[str, ModuleType]) -> ModuleType:
    """
    Execute a file under a module name of its own, with its folder on `sys.path` for what it imports.

    Raises:
        ConfigError: There is no such file, or it cannot be executed.
    """
    path = Path(place).expanduser().resolve()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    # The last part is the file's own name: it goes into the scorers' versions (see versions.py).
    name = f"{FILE_MODULES}{digest}.{path.stem}"
    if name in modules:
        return modules[name]
    if (running := _running(path)) is not None:
        return running
    if name in _in_progress.get():
        # A file that asks for its own scorers while it is executed gets what there is, as with Python's imports.
        return sys.modules[name]
    if not path.is_file():
        raise ConfigError(f"Scorer file {place!r} does not exist")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"Scorer file {place!r} cannot be read as Python")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    loader = spec.loader
    token = _in_progress.set(_in_progress.get() | {name})
    try:
        _guarded(lambda: loader.exec_module(module), place)
    except ConfigError:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    finally:
        _in_progress.reset(token)
    modules[name] = module
    return module


def _running(path: Path) -> ModuleType | None:
    """Return the program that runs here, if it is that file: executing it again would run it twice."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return main if file is not None and Path(file).resolve() == path else None


def _guarded(load: Callable[[], Any], reference: str) -> Any:
    """Execute somebody's module; whatever goes wrong in it is a problem of that reference."""
    try:
        with loading():
            return load()
    except (Exception, SystemExit) as error:
        raise ConfigError(_import_problem(reference, error)) from error


def _import_problem(reference: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        line = (error.text or "").strip()
        at = f"{error.filename}, line {error.lineno}"
        return f"Scorers {reference!r}: {type(error).__name__} in {at}: {error.msg}{f': {line}' if line else ''}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    at = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"Scorers {reference!r} cannot be imported: {type(error).__name__}{at}: {error}"


def _is_machinery(filename: str) -> bool:
    """Whether a frame is neither the user's nor of a library that the user called."""
    return filename.startswith(_MACHINERY) or filename == importlib.__file__


def _attribute(module: ModuleType, path: str, reference: str) -> Any:
    target: Any = module
    for name in path.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            names: list[str] = [key for key in dir(target) if not key.startswith("_")]
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"Scorer {reference!r}: there is no {name!r}{hint}") from None
    return target


def _scorers_in(target: Any, spec: ScorerSpec) -> list[Scorer]:
    if isinstance(target, ModuleType):
        found = _scorers_of_module(target, spec)
    elif isinstance(target, type):
        return [_instance(target, spec)]
    else:
        listed: list[Any] = [*cast("list[Any]", target)] if isinstance(target, list | tuple) else [target]
        try:
            found = [as_scorer(item) for item in listed]
        except ScorerError as error:
            raise ConfigError(f"Scorer {spec.use!r}: {error}") from None
    if spec.parameters:
        raise ConfigError(f"Scorer {spec.use!r}: `parameters` needs a reference to a scorer class")
    return found


def _instance(given: type[Any], spec: ScorerSpec) -> Scorer:
    if not issubclass(given, Scorer) and adapter_of_class(given) is None:
        raise ConfigError(f"Scorer {spec.use!r}: {given.__name__} is a class, but not a Scorer")
    if (wrong := unknown_parameter(given, spec.parameters)) is not None:
        raise ConfigError(f"Scorer {spec.use!r}: {wrong}")
    try:
        return as_scorer(given(**spec.parameters))
    except ValidationError as error:
        raise ConfigError(f"Scorer {spec.use!r}: {_first_problem(error)}") from None
    except Exception as error:
        raise ConfigError(f"Scorer {spec.use!r} cannot be made: {type(error).__name__}: {error}") from error


def _scorers_of_module(module: ModuleType, spec: ScorerSpec) -> list[Scorer]:
    """
    Return a module's scorers in the order of their definition.

    These are its Scorer objects and scorers of other packages, and one instance of every class of such that it
    defines, makes no instance of, and that can be made without arguments.
    """
    members = list(vars(module).values())
    made = [member for member in members if isinstance(member, Scorer) or adapter_of(member) is not None]
    found: list[Any] = []
    for member in members:
        if any(member is other for other in made):
            if not any(member is other for other in found):
                found.append(member)
        elif _stands_for_itself(member, module, made):
            found.append(_instance(member, spec))
    if not found:
        raise ConfigError(_nothing_in(module, spec))
    try:
        return [as_scorer(scorer) for scorer in found]
    except ScorerError as error:
        raise ConfigError(f"Scorers {spec.use!r}: {error}") from None


def _stands_for_itself(member: object, module: ModuleType, made: list[Any]) -> bool:
    if not isinstance(member, type) or member.__module__ != module.__name__ or inspect.isabstract(member):
        return False
    given = cast("type[Any]", member)
    if not issubclass(given, Scorer) and adapter_of_class(given) is None:
        return False
    if getattr(given, "__call__", None) is Scorer.__call__ or any(isinstance(scorer, given) for scorer in made):  # noqa: B004 - whose it is
        return False
    if any(base.__module__ == module.__name__ for base in given.__subclasses__()):
        return False
    required = [
        parameter
        for parameter in inspect.signature(given).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    ]
    return not required


def _nothing_in(module: ModuleType, spec: ScorerSpec) -> str:
    functions = [
        name
        for name, member in vars(module).items()
        if inspect.isfunction(member) and member.__module__ == module.__name__ and not name.startswith("_")
    ]
    hint = f"; decorate functions with @scorer, or name one, as in {spec.use}:{functions[0]}" if functions else ""
    return f"There is no scorer in {spec.use!r}{hint}"


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}"
