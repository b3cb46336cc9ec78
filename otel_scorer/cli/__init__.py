"""
The command line: `otel-scorer serve | score | inspect | check | scorers | demo`.

Modules that are slow to import are imported by the command that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, TextIO

import click

from otel_scorer.cli.offline import OutputError, inspect, score
from otel_scorer.cli.online import check, demo, serve
from otel_scorer.cli.scorers import scorers
from otel_scorer.errors import OtelScorerError

__all__ = ["cli", "main"]

_USAGE_ERROR = 2
_INTERRUPTED = 130


class _Commands(click.Group):
    """Says what is wrong in one message and ends with exit code 2, whoever noticed it."""

    def main(self, *args: Any, **settings: Any) -> Any:
        """Parse, run, and end the process with 0, 1 or 2 (130 after Ctrl-C)."""
        code: Any = 0
        try:
            code = super().main(*args, **{**settings, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = _USAGE_ERROR
        except click.ClickException as error:
            command = getattr(getattr(error, "ctx", None), "command_path", "otel-scorer")
            _fail(f"{error.format_message()}\nTry '{command} --help'.")
        except OtelScorerError as error:
            _fail(str(error))
        except (click.Abort, KeyboardInterrupt):
            sys.exit(_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has had enough (`| head`).
            _drop_output()
        except OutputError as error:
            _drop_output()
            _fail(str(error))
        sys.exit(code if isinstance(code, int) else 0)


def _drop_output() -> None:
    """Let what is still to be written go nowhere: Python flushes it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(_USAGE_ERROR)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("otel-scorer")
    except PackageNotFoundError:
        return "not installed"


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
    if value and not ctx.resilient_parsing:
        click.echo(f"otel-scorer {_version()}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """Score OpenTelemetry traces with Python: live as a sidecar, or from files."""


for _command in (serve, score, inspect, check, scorers, demo):
    cli.add_command(_command)


def _show_warning(  # noqa: PLR0917 - as Python calls it
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning to who wrote the scorers: what it is counts, not which line of ours noticed it."""
    del category, filename, lineno, file, line
    click.echo(f"Warning: {message}", err=True)


def main() -> None:
    """Run the command line; the console script `otel-scorer`."""
    warnings.showwarning = _show_warning
    cli(prog_name="otel-scorer")
