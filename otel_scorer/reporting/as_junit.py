"""
Reports as JUnit XML, which every CI system shows: a suite per scorer, a case per verdict.

Elements and attributes are those that the schemas of Jenkins (JUnit 4 to 10) and the GitHub and GitLab readers share.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections import Counter
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from otel_scorer.reporting.evidence_view import cut
from otel_scorer.stores.overflow import Overflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.reporting.report import Report, Row

__all__ = ["as_junit", "junit_parts"]

_NAME: Final = 300
_TEXT: Final = 10_000
# Of the text of one suite, in memory; and read from it at a time.
_SUITE_BYTES: Final = 1024 * 1024
_PIECE: Final = 256 * 1024
_KINDS: Final = {"failure": "failures", "error": "errors", "skipped": "skipped"}
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML: Final = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(report: Report) -> str:
    """Return an XML document. Failed verdicts are failures, errors errors, decisions without feedback skipped."""
    return "".join(junit_parts(report))


def junit_parts(report: Report) -> Iterator[str]:
    """
    Yield what `as_junit` returns, bit by bit.

    Cases are in the order of the report, and each is written in its suite: they are kept as text until then, beyond
    some megabytes in a file.
    """
    suites: dict[str, _Suite] = {}
    for row in report.rows:
        suites.setdefault(row.scorer, _Suite()).add(_case(row))
    for case in _bounds(report):
        # A scorer may be called so too; then its suite has the bounds in it.
        suites.setdefault("bounds", _Suite()).add(case)
    totals = sum((suite.totals for suite in suites.values()), Counter[str]())
    # The schemas have `skipped` for a suite only.
    counts = {name: str(totals[name]) for name in ("tests", "failures", "errors")}
    top = Element("testsuites", {"name": _text(report.title, _NAME), **counts})
    yield "<?xml version='1.0' encoding='utf-8'?>\n"
    if not suites:
        yield tostring(top, encoding="unicode") + "\n"
        return
    yield _opening(top) + "\n"
    for name, suite in suites.items():
        # How long a scorer took is not known, and some readers insist on a number.
        numbers = {kind: str(suite.totals[kind]) for kind in ("tests", "failures", "errors", "skipped")}
        yield f"  {_opening(Element('testsuite', {'name': _text(name, _NAME), **numbers, 'time': '0'}))}\n"
        yield from suite.cases()
        yield "  </testsuite>\n"
    yield "</testsuites>\n"


def _opening(element: Element) -> str:
    """Return the tag that an element begins with."""
    return tostring(element, encoding="unicode").removesuffix(" />") + ">"


class _Suite:
    """The cases of one scorer as text, and how many there are of each kind."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self._text = Overflow(_SUITE_BYTES)

    def add(self, case: Element) -> None:
        """Add a case."""
        self.totals["tests"] += 1
        for kind, found in _KINDS.items():
            self.totals[found] += case.find(kind) is not None
        indent(case, level=2)
        self._text.append(f"    {tostring(case, encoding='unicode')}\n".encode())

    def cases(self) -> Iterator[str]:
        """Yield the text of all cases."""
        decode = getincrementaldecoder("utf-8")().decode
        for begin in range(0, len(self._text), _PIECE):
            yield decode(self._text.read(begin, min(_PIECE, len(self._text) - begin)))


def _bounds(report: Report) -> Iterator[Element]:
    for bound in report.bounds:
        case = Element("testcase", classname="bounds", name=_text(bound.name, _NAME), time="0")
        if bound.is_missed:
            SubElement(case, "failure", message=_text(bound.text, _NAME), type="missed")
        yield case


def _case(row: Row) -> Element:
    where = f"{row.subject.name} {row.where}".strip()
    name = _text(f"{row.name} [{where}]", _NAME)
    case = Element("testcase", classname=_text(row.scorer, _NAME), name=name, time="0")
    why = _text(row.explanation)
    if row.is_error:
        error = row.feedback.error if row.feedback is not None else None
        kind = str(row.outcome) if error is None else str(error.error_code)
        found = SubElement(case, "error", message=why, type=_text(kind, _NAME))
        found.text = _text((error.stack_trace or "") if error is not None else "")
    elif row.feedback is None:
        SubElement(case, "skipped", message=f"{row.outcome}: {why}".removesuffix(": "))
    elif row.passed is False:
        found = SubElement(case, "failure", message=_text(f"{row.name} = {row.verdict}", _NAME), type="failed")
        found.text = why
    else:
        SubElement(case, "system-out").text = f"{_text(f'{row.name} = {row.verdict}', _NAME)}\n{why}".rstrip()
    return case


def _text(text: str, limit: int = _TEXT) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", cut(text, limit))
