"""`scorers`: what can be named after `--scorers`, and which of it runs on live traces."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_scorer.scorers.base import Scorer
    from otel_scorer.stores.registrations import Registration

__all__ = ["scorers"]

_WIDTH = 120


class _Lists(click.Group):
    """A group whose `list` command may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` where no command is named."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Lists)
def scorers() -> None:
    """
    List scorers, and say which of them run on live traces.

    A registered scorer runs in every `otel-scorer serve --store FILE`, and in every application whose processor follows
    the same store, from `start` to `stop`. Without a command: list.
    """


_store = click.option(
    "--store", metavar="FILE", help="The store.  [default: OTEL_SCORER_STORE, else .otel_scorer/traces.db]"
)
_filter = click.option(
    "--filter", "filter_string", metavar="STRING", help="Which traces: \"status = 'OK' AND span.type = 'TOOL'\"."
)
_rate = click.FloatRange(min=0, max=1)


@scorers.command("list")
@click.argument("references", nargs=-1, metavar="[REF ...]")
@_store
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_(references: tuple[str, ...], store: str | None, format_: str) -> None:
    """List the scorers behind references; without any, the registered, the built-in and the installed ones."""
    from otel_scorer.scorers.registry import registered_in

    path = _path(store)
    registered = [] if references else registered_in(path)
    available = _available(references)
    if format_ == "json":
        found = {"store": str(path), "registered": [_as_json(each) for each in registered], "available": available}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    if registered:
        _print_table(
            f"Registered in {path}",
            ("name", "state", "sample rate", "filter", "version", "scorer"),
            [_cells(each) for each in registered],
        )
        click.echo()
    rows = [
        (each["name"], each["description"], each["ref"] if each["ref"] != each["name"] else "") for each in available
    ]
    _print_table("Available", ("name", "description", "reference"), rows)


@scorers.command()
@click.argument("reference", metavar="REF")
@click.option("--name", metavar="NAME", help="What it is registered as; for a reference to one scorer.")
@click.option("--param", "parameters", multiple=True, metavar="FIELD=VALUE", help="A field of a scorer class; repeat.")
@_store
def register(reference: str, name: str | None, parameters: tuple[str, ...], store: str | None) -> None:
    """
    Keep a reference to scorers in the store. They do not run before they are started.

    REF is module:attribute, module, file.py, file.py:attribute, or the name of a built-in. A changed scorer becomes the
    next version, which runs as the one before did.
    """
    from otel_scorer.scorers.loading import ScorerSpec, load_scorers

    given = dict(_parameter(text) for text in parameters)
    for made in load_scorers([ScorerSpec(reference, name=name, parameters=given)]):
        registered = made.register(store=store)
        click.echo(
            f"{registered.name} is registered, version {registered.registered_version}, {registered.status.lower()}"
        )


@scorers.command()
@click.argument("name")
@click.option("--sample-rate", type=_rate, default=1.0, show_default=True, help="Share of the traces.")
@_filter
@_store
def start(name: str, sample_rate: float, filter_string: str | None, store: str | None) -> None:
    """Have a registered scorer run on live traces."""
    from otel_scorer.scorers.lifecycle import ScorerSamplingConfig, starting

    _schedule(name, starting(ScorerSamplingConfig(sample_rate, filter_string)), store)


@scorers.command()
@click.argument("name")
@click.option("--sample-rate", type=_rate, help="Share of the traces; 0 stops it.")
@_filter
@_store
def update(name: str, sample_rate: float | None, filter_string: str | None, store: str | None) -> None:
    """Change which live traces a registered scorer sees; what is not said stays, an empty --filter removes it."""
    from otel_scorer.scorers.lifecycle import ScorerSamplingConfig, updating

    if sample_rate is None and filter_string is None:
        raise click.UsageError("Say what to change: --sample-rate, --filter")
    _schedule(name, updating(ScorerSamplingConfig(sample_rate, filter_string)), store)


@scorers.command()
@click.argument("name")
@_store
def stop(name: str, store: str | None) -> None:
    """Have a registered scorer run on no live trace. It stays registered."""
    from otel_scorer.scorers.lifecycle import stopping

    _schedule(name, stopping, store)


@scorers.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="Only this version.  [default: all]")
@_store
def delete(name: str, version: int | None, store: str | None) -> None:
    """Forget a registered scorer."""
    from otel_scorer.scorers.registry import delete_scorer

    delete_scorer(name=name, version=version, store=store)
    click.echo(f"{name} is deleted" if version is None else f"Version {version} of {name} is deleted")


def _schedule(name: str, change: Callable[[Registration], tuple[float, str | None]], store: str | None) -> None:
    from otel_scorer.scorers.lifecycle import schedule

    registration = schedule(name, change, _path(store))
    facts = [f"{name} is {_state(registration)}"]
    if registration.is_started:
        facts.append(f"sample rate {registration.sample_rate:.6g}")
    if registration.filter_string is not None:
        facts.append(f"filter {registration.filter_string}")
    click.echo(", ".join(facts))


def _path(store: str | None) -> Path:
    from otel_scorer.stores.location import store_path

    return (store_path() if store is None else Path(store)).expanduser().absolute()


def _parameter(text: str) -> tuple[str, Any]:
    """Read FIELD=VALUE; the value is JSON if it can be, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--param: {text!r} is not FIELD=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _available(references: tuple[str, ...]) -> list[dict[str, str]]:
    from importlib.metadata import entry_points

    from otel_scorer.scorers.builtin import BUILT_IN
    from otel_scorer.scorers.loading import ENTRY_POINT_GROUP, load_scorers

    names = references or (*BUILT_IN, *sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP)))
    return [
        {"name": made.name, "description": _about(made), "ref": name} for name in names for made in load_scorers([name])
    ]


def _about(made: Scorer) -> str:
    # The code of an instance is its `__call__`, and what it does stands above the class.
    text = made.description or inspect.getdoc(type(made) if inspect.ismethod(made.code) else made.code) or ""
    return text.strip().partition("\n")[0]


def _cells(registration: Registration) -> tuple[str, ...]:
    return (
        registration.name,
        _state(registration),
        f"{registration.sample_rate:.6g}",
        registration.filter_string or "",
        str(registration.version),
        _called(registration),
    )


def _state(registration: Registration) -> str:
    return "started" if registration.is_started else "stopped"


def _called(registration: Registration) -> str:
    """Return the reference with its parameters and options as Python would write the call."""
    definition = registration.definition
    given = {**definition.parameters, **definition.options}
    arguments = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items())
    return f"{definition.ref}({arguments})" if arguments else definition.ref


def _as_json(registration: Registration) -> dict[str, Any]:
    definition = registration.definition
    return {
        "name": registration.name,
        "version": registration.version,
        "state": _state(registration),
        "sample_rate": registration.sample_rate,
        "filter_string": registration.filter_string,
        "ref": definition.ref,
        "folder": definition.folder,
        "parameters": dict(definition.parameters),
        "options": dict(definition.options),
    }


def _print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    import io
    import shutil
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        # In a pipe nothing needs to be cut to fit.
        width=shutil.get_terminal_size((_WIDTH, 24)).columns if is_terminal else 2000,
        force_terminal=is_terminal,
        color_system="standard" if is_terminal else None,
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as captured:
        console.print(Text(title, style="bold"))
        console.print(table)
    click.echo("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()), nl=False)
