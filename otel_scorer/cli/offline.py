"""`score` and `inspect`: what is done with files."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_scorer.cli.arguments import ManyValues, is_reference, many

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otel_scorer.dialects import ExplainingReader
    from otel_scorer.evaluation import RecordedTrace, Recording
    from otel_scorer.evaluation.worker_scoring import Workers
    from otel_scorer.model.trace import Trace
    from otel_scorer.reporting.report import Report
    from otel_scorer.scorers.base import Scorer
    from otel_scorer.scorers.loading import ScorerSpec
    from otel_scorer.service.score_sender import ScoreSender

__all__ = ["OutputError", "inspect", "score"]

_FORMATS = ("table", "json", "jsonl", "junit", "markdown", "html")
_FORMAT_OF = {
    ".html": "html", ".md": "markdown", ".xml": "junit", ".json": "json", ".jsonl": "jsonl", ".txt": "table",
}  # fmt: skip
_INCOMPLETE = 2
_MISSED = 1
_PROBLEMS_SHOWN = 10
_WIDTH = 120


def _is_report(word: str) -> bool:
    """
    Tell whether a word after `--report FILE` is one more report.

    Raises:
        UsageError: It may as well be a file of traces. Guessing would either write over it or read an old report.
    """
    if Path(word).suffix in {".json", ".jsonl"}:
        raise click.UsageError(
            f"--report ... {word}: a report or a file of traces? Say --report {word}, or name files of traces first"
        )
    return Path(word).suffix in _FORMAT_OF


class OutputError(Exception):
    """Standard output takes nothing any more, for another reason than that nobody reads it."""


_teaching = click.option(
    "-c",
    "--config",
    "config_file",
    metavar="FILE",
    help="Configuration, of which the section `dialects` counts: what spans mean; for score, `scorers` too.",
)


def _reader(config_file: str | None) -> ExplainingReader:
    from otel_scorer.config import taught_reader
    from otel_scorer.dialects import default_reader

    return default_reader() if config_file is None else taught_reader(config_file)


@click.command(cls=ManyValues)
@click.argument("files", nargs=-1, required=True, metavar="FILE ...")
@many(
    "--scorers",
    takes=is_reference,
    metavar="REF ...",
    help="module:attribute, module, file.py, a built-in, a registered one. Default: those of the configuration.",
)
@click.option(
    "--format", "format_", type=click.Choice(_FORMATS), default="table", show_default=True, help="Of the report."
)
@click.option("--out", metavar="FILE", help="Write the report there instead of to standard output.")
@many(
    "--report",
    takes=_is_report,
    metavar="FILE ...",
    help="Write it there too, in the format of the name: .html, .md, .xml (JUnit), .json, .jsonl or .txt (table); "
    "the last three can be traces too, so each .json and .jsonl needs its own --report.",
)
@many(
    "--fail-under",
    takes=lambda word: "=" in word,
    metavar="NAME=VALUE ...",
    help="Exit with 1 if the mean of this feedback is smaller (bool and yes/no count as 1/0) or there is none.",
)
@click.option(
    "--max-errors", type=click.IntRange(min=0), metavar="N", help="Errors that --fail-under forgives.  [default: 0]"
)
@click.option(
    "--store", metavar="FILE", help="Keep the traces and what is said of them there; search_traces() finds them."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run the scorers in N processes, as the sidecar does: on several cores, and one that hangs is ended.",
)
@click.option(
    "--send", metavar="URL", help="Send the verdicts, as evaluation spans, to a backend that has these traces."
)
@_teaching
@click.pass_context
def score(
    ctx: click.Context,
    /,
    *,
    files: tuple[str, ...],
    scorers: tuple[str, ...],
    format_: str,
    out: str | None,
    report: tuple[str, ...],
    fail_under: tuple[str, ...],
    max_errors: int | None,
    store: str | None,
    workers: int | None,
    send: str | None,
    config_file: str | None,
) -> None:
    """
    Run scorers on recorded traces and report what they say.

    FILE is OTLP JSON, JSON lines or protobuf, each also gzip or zstd; - is standard input.

    Exit code: 0, also where scorers had errors; 1 if a bound of --fail-under or --max-errors was missed; 2 if the
    input or the arguments cannot be read, or the backend of --send did not take everything.
    """
    from otel_scorer.cli.progress import ProgressBar
    from otel_scorer.evaluation import read_recording
    from otel_scorer.evaluation.recorded_scoring import judge_recording
    from otel_scorer.reporting.report import build_report

    bounds = [_bound(text) for text in fail_under]
    formats = [_format_of(path) for path in report]
    outputs = [*([("--out", out)] if out else []), *(("--report", path) for path in report)]
    _check_outputs(outputs, [*files, *scorers, store or "", config_file or ""])
    loaded = _scorers(scorers, store, workers, config_file)
    sender = None if send is None else _sender(send, config_file)
    with ProgressBar("reading") as progress:
        recording = read_recording(files, progress.update, reader=_reader(config_file))
    with ProgressBar("scoring") as progress, contextlib.redirect_stdout(sys.stderr):
        found = build_report(
            judge_recording(
                recording,
                loaded,
                store=store,
                run_name=f"score {' '.join(files)}",
                on_progress=progress.update,
                on_scored=None if sender is None else lambda one, decisions: sender.add(one.closed, decisions),
            ),
            fail_under=bounds,
            max_errors=max_errors if max_errors is not None or not bounds else 0,
            problems=[str(problem) for problem in recording.problems],
        )
    _write(_render(found, format_, is_terminal=out is None and sys.stdout.isatty()), out)
    for path, its_format in zip(report, formats, strict=True):
        _write(_render(found, its_format, is_terminal=False), path)
    _report_problems(recording)
    is_sent = sender is None or _finish(sender)
    if found.error_count and max_errors is None and not bounds:
        errors = "1 error" if found.error_count == 1 else f"{found.error_count} errors"
        click.echo(f"{errors}: they count for the exit code with --max-errors or --fail-under", err=True)
    is_incomplete = recording.problem_count or not is_sent
    ctx.exit(_INCOMPLETE if is_incomplete else _MISSED if found.is_missed else 0)


def _sender(url: str, config_file: str | None) -> ScoreSender:
    # Only who sends loads what it takes.
    from otel_scorer.service.score_sender import ScoreSender

    return ScoreSender.to(url, config_file)


def _finish(sender: ScoreSender) -> bool:
    """Say what became of the verdicts, and return whether the backend has all of them."""
    taken, total = sender.finish()
    verdicts = "1 verdict" if total == 1 else f"{total} verdicts"
    if taken < total:
        click.echo(f"Error: {sender.name} took {taken} of {verdicts}", err=True)
    else:
        click.echo(f"Sent {verdicts} to {sender.name}", err=True)
    return taken == total


def _scorers(
    references: tuple[str, ...], store: str | None, workers: int | None, config_file: str | None
) -> Sequence[Scorer] | Workers:
    from otel_scorer.scorers.registry import with_registered

    named = with_registered(references, store=store) if references else _configured(config_file)
    if workers is None:
        from otel_scorer.scorers.loading import load_scorers

        # What scorers print must not end up in the report.
        with contextlib.redirect_stdout(sys.stderr):
            return load_scorers(named)
    from otel_scorer.config import load_teaching
    from otel_scorer.dialects.teaching import Teaching
    from otel_scorer.evaluation.worker_scoring import Workers
    from otel_scorer.scorers.loading import ScorerSpec

    return Workers(
        [ScorerSpec(each) if isinstance(each, str) else each for each in named],
        workers,
        Teaching() if config_file is None else load_teaching(config_file),
    )


def _configured(config_file: str | None) -> list[ScorerSpec]:
    """Return the scorers of a configuration, so that what runs in the sidecar or an application runs on files too."""
    if config_file is None:
        raise click.UsageError("Missing option '--scorers', or -c FILE with a configuration that names some")
    from otel_scorer.config import app_settings

    settings = app_settings(config_file)
    if not settings.scorers:
        raise click.UsageError(f"{config_file} names no scorers: give --scorers")
    timeout = settings.options["timeout"]
    return [replace(spec, timeout=timeout) if spec.timeout is None else spec for spec in settings.scorers]


def _format_of(path: str) -> str:
    found = _FORMAT_OF.get(Path(path).suffix)
    if found is None:
        raise click.UsageError(f"--report: {path} does not say its format: {', '.join(_FORMAT_OF)}")
    return found


def _check_outputs(outputs: Sequence[tuple[str, str]], used: Iterable[str]) -> None:
    """
    See that reports can be written, and over nothing that is needed.

    Raises:
        UsageError: There is no such folder, a file is read or kept by this command, or it is named twice.
    """
    taken = {Path(path).resolve() for path in used if path}
    for flag, path in outputs:
        place = Path(path).resolve()
        if not Path(path).absolute().parent.is_dir():
            raise click.UsageError(f"{flag}: there is no folder {Path(path).parent}")
        # Not /dev/stdout: on a terminal that is where /dev/stdin comes from.
        if place in taken and (place.is_file() or not place.exists()):
            raise click.UsageError(f"{flag}: {path} would be written over, and this command uses it")
        taken.add(place)


def _bound(text: str) -> tuple[str, float]:
    from otel_scorer.errors import ConfigError
    from otel_scorer.reporting.bounds import checked_bounds

    name, _, value = text.rpartition("=")
    try:
        [bound] = checked_bounds([(name, float(value))])
    except (ValueError, ConfigError):
        raise click.UsageError(
            f"--fail-under: {text!r} is not NAME=VALUE with a number, such as tool_errors=0.9"
        ) from None
    return bound


def _render(report: Report, format_: str, *, is_terminal: bool) -> Iterable[str]:
    from otel_scorer.reporting import as_html, as_json, as_junit, as_markdown, as_table

    if format_ == "table":
        width = _terminal_width() if is_terminal else _WIDTH
        return [as_table.as_table(report, width=width, color=is_terminal)]
    if format_ == "html":
        return as_html.html_parts(report)
    if format_ == "jsonl":
        return as_json.jsonl_lines(report)
    if format_ == "json":
        return as_json.json_parts(report)
    if format_ == "junit":
        return as_junit.junit_parts(report)
    return [as_markdown.as_markdown(report)]


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((_WIDTH, 24)).columns


def _write(parts: Iterable[str], out: str | None) -> None:
    """Write a report. What UTF-8 cannot carry (a scorer may say anything) becomes a question mark."""
    from otel_scorer.errors import ConfigError

    if out is None:
        for part in parts:
            try:
                click.echo(part.encode("utf-8", "replace"), nl=False)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputError(f"Cannot write to standard output: {error.strerror}") from error
        return
    try:
        with Path(out).open("wb") as file:
            file.writelines(part.encode("utf-8", "replace") for part in parts)
    except OSError as error:
        raise ConfigError(f"Cannot write {out}: {error.strerror}") from error


def _report_problems(recording: Recording) -> None:
    """Say on standard error, in one message, what could not be read."""
    if recording.problem_count:
        shown = [str(problem) for problem in recording.problems[:_PROBLEMS_SHOWN]]
        left = recording.problem_count - len(shown)
        lines = [*shown, f"... and {left} more"] if left else shown
        click.echo("Error: not everything could be read\n  " + "\n  ".join(lines), err=True)
    elif not recording.recorded:
        click.echo("There are no traces in the input", err=True)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE ...")
@click.option("--format", "format_", type=click.Choice(["tree", "json"]), default="tree", show_default=True)
@click.option("--explain", is_flag=True, help="Say of each value by which dialect and attribute key it was found.")
@click.option("--trace-id", metavar="ID", help="Only this trace; the first digits are enough.")
@_teaching
@click.pass_context
def inspect(
    ctx: click.Context,
    files: tuple[str, ...],
    format_: str,
    *,
    explain: bool,
    trace_id: str | None,
    config_file: str | None,
) -> None:
    """Show recorded traces as otel_scorer understands them."""
    from otel_scorer.cli.progress import ProgressBar
    from otel_scorer.errors import ConfigError
    from otel_scorer.evaluation import read_recording

    reader = _reader(config_file)
    with ProgressBar("reading") as progress:
        recording = read_recording(files, progress.update, reader=reader)
    recorded: Iterable[RecordedTrace] = recording.recorded
    if trace_id is not None:
        recorded = [one for one in recorded if one.trace_id.startswith(trace_id.lower())]
        if not recorded:
            _report_problems(recording)
            raise ConfigError(f"There is no trace {trace_id} among {len(recording.recorded)}")
    _write(_inspected((one.load() for one in recorded), recording, reader if explain else None, format_), None)
    _report_problems(recording)
    ctx.exit(_INCOMPLETE if recording.problem_count else 0)


def _inspected(
    traces: Iterable[Trace], recording: Recording, reader: ExplainingReader | None, format_: str
) -> Iterator[str]:
    from otel_scorer.reporting.explanation import WIDE, as_json, as_text

    if format_ == "json":
        return as_json(traces, reader, recording.duplicates)
    is_terminal = sys.stdout.isatty()
    width = _terminal_width() if is_terminal else WIDE
    return as_text(traces, reader, recording.duplicates, width=width, color=is_terminal)
