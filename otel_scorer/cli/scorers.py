"""`scorers`: what can be named after `--scorers`."""

from __future__ import annotations

import click

from otel_scorer.cli.arguments import refuse

__all__ = ["scorers"]


@click.group(invoke_without_command=True)
@click.pass_context
def scorers(ctx: click.Context) -> None:
    """List scorers."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@scorers.command("list")
@click.argument("references", nargs=-1, metavar="[REF ...]")
def list_(references: tuple[str, ...]) -> None:
    """List the scorers behind references; without any, the built-in and the installed ones."""
    from importlib.metadata import entry_points

    from otel_scorer.scorers.builtin import BUILT_IN
    from otel_scorer.scorers.loading import ENTRY_POINT_GROUP, load_scorers

    names = references or (*BUILT_IN, *sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP)))
    found = [(name, scorer) for name in names for scorer in load_scorers([name])]
    width = max((len(scorer.name) for _, scorer in found), default=0)
    for name, scorer in found:
        description = (scorer.description or "").strip().partition("\n")[0]
        source = f" [{name}]" if name != scorer.name else ""
        click.echo(f"{scorer.name:<{width}}  {description}{source}".rstrip())


def _later(arguments: tuple[str, ...]) -> None:
    del arguments
    refuse(click.get_current_context().command_path.removeprefix("otel-scorer "))


for _name in ("register", "start", "update", "stop", "delete"):
    scorers.add_command(
        click.Command(
            _name,
            callback=_later,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            context_settings={"ignore_unknown_options": True},
            hidden=True,
        )
    )
