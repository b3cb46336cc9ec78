"""
Reports as one HTML page that needs no network: open it, mail it, keep it as an artifact of a build.

The summary is plain HTML. Verdicts and traces are JSON that the page's script reads bit by bit: a page of verdicts when
it is turned to, a trace when its row is opened. What may run is named by its hash, so nothing that a trace holds can.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.errors import ConfigError
from otel_scorer.reporting.evidence_view import cut, details_json, page_json, preview_of
from otel_scorer.reporting.plain_text import one_line
from otel_scorer.reporting.report import is_failure, number_of
from otel_scorer.reporting.static_html import headline, shown_text, static_sections

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otel_scorer.reporting.report import Report, Row
    from otel_scorer.reporting.subject import Subject

__all__ = ["DETAILS_LIMIT", "ROWS_LIMIT", "as_html", "html_parts", "write_html"]

ROWS_LIMIT: Final = 50_000
"""Verdicts on one page; failures and errors before others."""
DETAILS_LIMIT: Final = 32 * 1024 * 1024
"""Characters of traces and full texts on one page; those with failures and errors before others."""

_WHY: Final = 280
_NAME: Final = 200
# Verdicts in one script element: parsed at once, so that the page has them when it opens.
_CHUNK: Final = 1000

_Group: TypeAlias = "tuple[Subject, list[Row]]"


def as_html(report: Report) -> str:
    """Return a whole HTML document. `write_html` needs less memory."""
    return "".join(html_parts(report))


def write_html(report: Report, path: str | Path) -> None:
    """
    Write a whole HTML document; what UTF-8 cannot carry becomes a question mark.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        with Path(path).open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(html_parts(report))
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}") from error


def html_parts(report: Report) -> Iterator[str]:
    """
    Yield a whole HTML document bit by bit; evidence is loaded, written and let go one subject at a time.

    The size of the page is bounded: it has the first `ROWS_LIMIT` verdicts and `DETAILS_LIMIT` characters of evidence
    (each value, trace and subject has its own limit too), failures and errors before others, and says what it left out.
    """
    page = files("otel_scorer.reporting") / "page"
    style, script = ((page / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    title = shown_text(report.title)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{title}: {report.subject_count}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    yield f"<header><h1>{title}</h1>\n<p>{headline(report)}</p></header>\n<main>\n"
    yield from static_sections(report)
    yield from _verdicts(report)
    yield "</main>\n"
    yield from _data(report)
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def _policy(style: str, script: str) -> str:
    hashes = [b64encode(sha256(text.encode("utf-8")).digest()).decode("ascii") for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _verdicts(report: Report) -> Iterator[str]:
    yield '<section aria-labelledby="verdicts">\n<h2 id="verdicts">Verdicts</h2>\n'
    left = report.totals.rows - ROWS_LIMIT
    if left > 0:
        yield f"<p>{left:,} more verdicts are not on this page; score --format jsonl has them all.</p>\n"
    yield "<noscript><p>Without JavaScript there is only the summary.</p></noscript>\n"
    yield '<div id="app"></div>\n</section>\n'


def _shown(report: Report) -> Iterator[_Group]:
    """Yield each subject that the page has, with its verdicts there: failures and errors before others."""
    failures = min(report.totals.failures, ROWS_LIMIT)
    others = min(report.totals.rows, ROWS_LIMIT) - failures
    for subject, rows in report.groups():
        shown: list[Row] = []
        for row in rows:
            if is_failure(row):
                fits, failures = failures > 0, failures - 1
            else:
                fits, others = others > 0, others - 1
            if fits:
                shown.append(row)
        if shown:
            yield subject, shown
        if failures <= 0 and others <= 0:
            return


def _data(report: Report) -> Iterator[str]:
    """Yield what the script reads: the details of each subject, then subjects and verdicts."""
    names = [(summary.name, summary.scorer) for summary in report.summaries]
    index = {name: position for position, name in enumerate(names)}
    yield _script("names", page_json([[cut(part, _NAME) for part in name] for name in names]))
    previews: dict[int, str] = {}
    yield from _all_details(report, previews)
    for chunk in _chunks(enumerate(_shown(report))):
        subjects = [_subject(subject, previews.get(number, "")) for number, (subject, _) in chunk]
        yield _script("subjects", page_json(subjects))
        lines = [
            _row(row, number, index[row.name, row.scorer], position)
            for number, (_, rows) in chunk
            for position, row in enumerate(rows)
        ]
        yield _script("rows", page_json(lines))


def _chunks(groups: Iterator[tuple[int, _Group]]) -> Iterator[list[tuple[int, _Group]]]:
    while chunk := list(islice(groups, _CHUNK)):
        yield chunk


def _all_details(report: Report, previews: dict[int, str]) -> Iterator[str]:
    """Yield the details of as many subjects as fit, failures first, and note what each was asked."""
    left = DETAILS_LIMIT
    for wanted in (True, False):
        for number, (subject, rows) in enumerate(_shown(report)):
            if any(map(is_failure, rows)) is not wanted:
                continue
            text, previews[number] = _details(subject, rows)
            left -= len(text)
            if left < 0:
                return
            yield f'<script type="application/json" id="s{number}">{text}</script>\n'


def _script(kind: str, text: str) -> str:
    return f'<script type="application/json" data-of="{kind}">{text}</script>\n'


def _subject(subject: Subject, preview: str) -> list[object]:
    return [one_line(subject.name, _NAME), subject.trace_id, subject.close_reason, subject.complete, preview]


def _row(row: Row, subject: int, name: int, position: int) -> list[object]:
    value = None if row.feedback is None or row.is_error else number_of(row.feedback.value)
    return [
        subject,
        name,
        position,
        _kind(row),
        one_line(row.verdict, _NAME),
        value,
        one_line(row.explanation, _WHY),
        row.span_id,
        str(row.outcome),
    ]


def _kind(row: Row) -> str:
    if row.is_error:
        return "error"
    if row.feedback is None:
        return "none" if row.outcome == "scored" else "skipped"
    if row.passed is not None:
        return "pass" if row.passed else "fail"
    return "none" if row.feedback.value is None else "value"


def _details(subject: Subject, rows: Sequence[Row]) -> tuple[str, str]:
    try:
        evidence = subject.load()
        return details_json(rows, evidence), preview_of(evidence)
    except Exception as error:  # noqa: BLE001 - evidence comes from anywhere; verdicts must be shown without it too
        return details_json(rows, None, f"The evidence cannot be shown: {type(error).__name__}: {error}"), ""
