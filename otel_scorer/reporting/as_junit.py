"""
Reports as JUnit XML, which every CI system shows: a suite per scorer, a case per verdict.

Elements and attributes are those that the schemas of Jenkins (JUnit 4 to 10) and the GitHub and GitLab readers share.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from otel_scorer.reporting.evidence_view import cut

if TYPE_CHECKING:
    from otel_scorer.reporting.report import Report, Row

__all__ = ["as_junit"]

_NAME: Final = 300
_TEXT: Final = 10_000
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML: Final = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(report: Report) -> str:
    """Return an XML document. Failed verdicts are failures, errors errors, decisions without feedback skipped."""
    top = Element("testsuites", name=_text(report.title, _NAME))
    suites: dict[str, list[Element]] = {}
    for row in report.rows:
        suites.setdefault(row.scorer, []).append(_case(row))
    if report.bounds:
        # A scorer may be called so too; then its suite has the bounds in it.
        suites.setdefault("bounds", []).extend(_bounds(report))
    for name, cases in suites.items():
        totals = _totals(cases)
        # How long a scorer took is not known, and some readers insist on a number.
        suite = SubElement(top, "testsuite", {"name": _text(name, _NAME), **totals, "time": "0"})
        suite.extend(cases)
    totals = _totals([case for cases in suites.values() for case in cases])
    totals.pop("skipped")  # the schemas have it for a suite only
    top.attrib.update(totals)
    indent(top)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + tostring(top, encoding="unicode") + "\n"


def _bounds(report: Report) -> list[Element]:
    cases: list[Element] = []
    for bound in report.bounds:
        case = Element("testcase", classname="bounds", name=_text(bound.name, _NAME), time="0")
        if bound.is_missed:
            SubElement(case, "failure", message=_text(bound.text, _NAME), type="missed")
        cases.append(case)
    return cases


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


def _totals(cases: list[Element]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
    }


def _text(text: str, limit: int = _TEXT) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", cut(text, limit))
