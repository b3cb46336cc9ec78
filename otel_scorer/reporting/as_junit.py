"""Reports as JUnit XML, which every CI system shows: a suite per scorer, a case per verdict."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

if TYPE_CHECKING:
    from otel_scorer.reporting.report import Report, Row

__all__ = ["as_junit"]

# What XML 1.0 cannot hold, not even escaped.
_NOT_XML: Final = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(report: Report) -> str:
    """Return an XML document. Failed verdicts are failures, errors errors, decisions without feedback skipped."""
    top = Element("testsuites", name="otel-scorer")
    suites: dict[str, list[Element]] = {}
    for row in report.rows:
        suites.setdefault(row.scorer, []).append(_case(row))
    if report.bounds:
        suites["bounds"] = []
        for bound in report.bounds:
            case = Element("testcase", classname="bounds", name=_text(bound.name))
            if bound.is_missed:
                SubElement(case, "failure", message=_text(bound.text))
            suites["bounds"].append(case)
    for name, cases in suites.items():
        suite = SubElement(top, "testsuite", {"name": _text(name), **_totals(cases)})
        suite.extend(cases)
    top.attrib.update(_totals([case for cases in suites.values() for case in cases]))
    indent(top)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + tostring(top, encoding="unicode") + "\n"


def _case(row: Row) -> Element:
    where = f"{row.subject.name} {row.where}".rstrip()
    case = Element("testcase", classname=_text(row.scorer), name=_text(f"{row.name} [{where}]"))
    if row.is_error:
        error = row.feedback.error if row.feedback is not None else None
        kind = str(row.outcome) if error is None else str(error.error_code)
        found = SubElement(case, "error", message=_text(row.explanation), type=_text(kind))
        found.text = _text((error.stack_trace or "") if error is not None else "")
    elif row.feedback is None:
        SubElement(case, "skipped", message=_text(f"{row.outcome}: {row.explanation}".removesuffix(": ")))
    elif row.passed is False:
        found = SubElement(case, "failure", message=_text(f"{row.name} = {row.verdict}"))
        found.text = _text(row.explanation)
    else:
        SubElement(case, "system-out").text = _text(f"{row.name} = {row.verdict}\n{row.explanation}".rstrip())
    return case


def _totals(cases: list[Element]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
    }


def _text(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
