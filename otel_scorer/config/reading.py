"""
From a file, flags and the environment to a `Config`, or to one message that says what to change.

Flags win over the file. `OTEL_EXPORTER_OTLP_*` counts where neither says where to export to.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import ConfigDict, Field, ValidationError

from otel_scorer.config.dialects import DialectSettings, SpanTypeSettings
from otel_scorer.config.environment import exporter_from_environment, with_scheme
from otel_scorer.config.expansion import expand
from otel_scorer.config.exporters import KINDS
from otel_scorer.config.literals import written_secrets
from otel_scorer.config.model import Config
from otel_scorer.config.presets import apply_preset
from otel_scorer.config.receivers import literal_secrets
from otel_scorer.config.scoring import ScorerSettings
from otel_scorer.config.section import Section, children, nearest
from otel_scorer.config.yaml_text import YamlText
from otel_scorer.dialects import make_reader
from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from otel_scorer.dialects import ExplainingReader
    from otel_scorer.dialects.teaching import Teaching

__all__ = ["exporters_from_urls", "load_config", "load_teaching", "taught_reader"]

_FLAGS: Final = "command line"
_SHOWN: Final = 60
# Never quoted, whatever is wrong with them.
_SECRET_KEYS: Final = frozenset({"headers", "auth", "api_key", "password", "token", "secret_key"})
_FILE: Final = "file:"


def load_config(
    path: str | Path | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """
    Read the configuration.

    Args:
        path: The YAML file; None: the defaults.
        overrides: Settings that win over the file, by full path: `{"assembly.root_grace": 1.0}`.
        environ: The environment; by default the one of this process.

    Raises:
        ConfigError: Something cannot be used; the message names the setting and its line.
    """
    environ = os.environ if environ is None else environ
    document, settings, expanded = _read_settings(path, environ)
    # Of the file alone: what the environment, or a program, has given is no secret in a file.
    written = written_secrets(settings, expanded)
    for key, value in (overrides or {}).items():
        _put(settings, key.split("."), value, f"{path or _FLAGS}")
        expanded = {at for at in expanded if ".".join(map(str, at))[: len(key)] != key}
    if settings.get("exporters") is None:
        settings.pop("exporters", None)
        if found := exporter_from_environment(environ):
            settings["exporters"] = {"otlp": with_scheme(found)}
    apply_preset(settings, environ)
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_message(error, document, str(path or _FLAGS), expanded)) from error
    for place in [*literal_secrets(settings, expanded), *written]:
        line = None if document is None else document.line_of(place)
        raise ConfigError(
            f"{path or _FLAGS}{f', line {line}' if line else ''}: {_dotted(place)}: "
            "secrets do not belong here; write ${env:NAME} or ${file:PATH}"
        )
    return config.with_secrets(expanded)


def _read_settings(
    path: str | Path | None, environ: Mapping[str, str], *, only: str | None = None
) -> tuple[YamlText | None, dict[str, Any], set[tuple[int | str, ...]]]:
    """Return a file, its settings (or `only` one of them) with variables filled in, and where they were."""
    document = None if path is None else YamlText(_read(path), str(path))
    raw = None if document is None else document.value
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: the configuration must be a mapping of settings, such as 'forwarding: hold_root'")
    found = cast("dict[str, Any]", raw)
    if only is not None:
        for key in found:
            if key not in Config.model_fields:
                raise ConfigError(f"{path}: unknown key {key}; {_hint((key,))}")
        found = {key: value for key, value in found.items() if key == only}
    try:
        settings, expanded = expand(found, environ)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return document, settings, expanded


class _DialectsAlone(Section):
    """Of the configuration only what spans mean: the rest is for the sidecar, and may not suit this process."""

    model_config = ConfigDict(extra="ignore")

    dialects: DialectSettings = Field(default_factory=DialectSettings)


def load_teaching(given: Mapping[str, Any] | str | Path, *, environ: Mapping[str, str] | None = None) -> Teaching:
    """
    Read what users teach about attributes and spans.

    Args:
        given: A configuration file, of which only the section `dialects` counts, or that section as a mapping.
        environ: The environment; by default the one of this process.

    Raises:
        ConfigError: Something cannot be used; the message names the setting and its line.
    """
    document, name, expanded = None, "dialects", set[tuple[int | str, ...]]()
    settings: dict[str, Any] = {"dialects": given}
    if isinstance(given, str | Path):
        name = str(given)
        environ = os.environ if environ is None else environ
        document, settings, expanded = _read_settings(given, environ, only="dialects")
    try:
        return _DialectsAlone.model_validate(settings).dialects.teaching
    except ValidationError as error:
        raise ConfigError(_message(error, document, name, expanded)) from error


def taught_reader(dialects: Mapping[str, Any] | str | Path) -> ExplainingReader:
    """
    Return a reader that knows what `load_teaching` reads.

    Raises:
        ConfigError: It cannot be used.
    """
    return make_reader(load_teaching(dialects))


def exporters_from_urls(
    urls: Sequence[str], protocol: str | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """
    Return the `exporters` setting for `--export`: URLs, `console`, `file:PATH`.

    Args:
        urls: At least one.
        protocol: `grpc` or `http/protobuf`; None: what the environment says, else what each URL suggests.
        environ: The environment (`OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT` and so on count for URLs); by default the one
            of this process.

    Raises:
        ConfigError: A variable of the environment cannot be meant.
    """
    environ = os.environ if environ is None else environ
    given = exporter_from_environment(environ)
    shared = {key: value for key, value in given.items() if not key.endswith("endpoint")}
    if protocol is not None:
        shared["protocol"] = protocol
    exporters: dict[str, dict[str, Any]] = {}
    for url in urls:
        if url == "console":
            exporters["console"] = {}
        elif url.startswith(_FILE):
            exporters[_free("file", exporters)] = {"path": url.removeprefix(_FILE)}
        else:
            exporters[_free("otlp", exporters)] = with_scheme({**shared, "endpoint": url})
    return exporters


def _free(kind: str, taken: Mapping[str, object]) -> str:
    names = (kind if number == 1 else f"{kind}/{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Cannot read the configuration {path}: not text in UTF-8 (byte {error.start})") from error


def _put(settings: dict[str, Any], steps: Sequence[str], value: object, name: str) -> None:
    for step in steps[:-1]:
        if settings.get(step) is None:
            settings[step] = {}
        below: object = settings[step]
        if not isinstance(below, dict):
            raise ConfigError(f"{name}: {step} must be a mapping")
        settings = cast("dict[str, Any]", below)
    settings[steps[-1]] = value


def _message(error: ValidationError, document: YamlText | None, name: str, expanded: set[tuple[int | str, ...]]) -> str:
    found: list[tuple[int, str]] = []
    for item in error.errors(include_url=False):
        path, text = _problem(item, expanded)
        line = None if document is None else document.line_of(path)
        found.append((line or 0, f"line {line}: {text}" if line else text))
    problems = [text for _, text in sorted(found)]
    if len(problems) == 1:
        separator = ", " if problems[0].startswith("line ") else ": "
        return f"{name}{separator}{problems[0]}"
    return "\n  ".join([f"{name}: {len(problems)} settings cannot be used", *problems])


def _problem(item: ErrorDetails, expanded: set[tuple[int | str, ...]]) -> tuple[tuple[int | str, ...], str]:
    path = item["loc"]
    if item["type"] in {"extra_forbidden", "unknown_key"}:
        return path, f"unknown key {_dotted(path)}; {_hint(path)}"
    message = item["msg"].replace("Input should be", "must be").replace("Field required", "is missing")
    if item["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        message = "must be a mapping"
    where = f"{_dotted(path)}: " if path else ""
    return path, f"{where}{message}{_shown(item, expanded)}"


def _hint(path: tuple[int | str, ...]) -> str:
    *place, key = path
    known = _known_keys(place)
    prefix = f"{_dotted(place)}." if place else ""
    meant = nearest(str(key).partition("/")[0] if place == ["exporters"] else str(key), known, prefix, Config)
    return f"did you mean {meant}?" if meant else f"known here: {', '.join(known)}"


def _known_keys(place: Sequence[int | str]) -> list[str]:
    """Return the keys that are known at a place of the configuration."""
    section: type[Section] = Config
    for step, key in enumerate(place):
        if section is Config and key == "exporters":
            if step == len(place) - 1:
                return list(KINDS)
            section = KINDS[str(place[step + 1]).partition("/")[0]]
        elif section is Config and key == "scorers":
            section = ScorerSettings
        elif section is DialectSettings and key == "span_types":
            section = SpanTypeSettings
        else:
            section = children(section).get(str(key), section)
    return list(section.model_fields)


def _shown(item: ErrorDetails, expanded: set[tuple[int | str, ...]]) -> str:
    """Quote what was written, unless it may be a secret or the message quotes it already."""
    value, path = item["input"], item["loc"]
    if path in expanded or _SECRET_KEYS.intersection(path):
        return ""
    if not path or not isinstance(value, str | int | float):
        return ""
    text = repr(value)
    return f", got {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"


def _dotted(path: Sequence[int | str]) -> str:
    return ".".join(map(str, path))
