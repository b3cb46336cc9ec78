"""
The status page: one HTML document without anything from outside, and the data that its script asks for again and again.

What may run is named by its hash, and the script puts every text into the page as text: nothing that a trace or a
setting holds can become markup.
"""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from otel_scorer.encoders.evaluation_span import SCOPE_VERSION
from otel_scorer.telemetry import counters, distributions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_scorer.telemetry import Measured

__all__ = ["status_data", "status_page"]


@lru_cache(maxsize=1)
def status_page() -> tuple[bytes, str]:
    """Return the document and its content security policy."""
    page = files("otel_scorer.service") / "page"
    # The colours, tables and words of verdicts are those of the reports.
    report = (files("otel_scorer.reporting") / "page" / "report.css").read_text(encoding="utf-8")
    style = report + (page / "status.css").read_text(encoding="utf-8")
    script = (page / "status.js").read_text(encoding="utf-8")
    body = (page / "status.html").read_text(encoding="utf-8")
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    policy = (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    document = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>otel-scorer</title>\n<style>{style}</style>\n</head>\n{body}<script>{script}</script>\n</html>\n"
    )
    return document.encode(), policy


def status_data(measured: Iterable[Measured]) -> dict[str, Any]:
    """Return what is measured as the page reads it: plain JSON data."""
    return {
        "version": SCOPE_VERSION,
        "counters": [[name, dict(attributes), total] for name, attributes, total in counters()],
        "gauges": [[each.name, dict(each.attributes), each.value] for each in measured],
        "timings": [
            [name, dict(attributes), sum(found.counts), found.total] for name, attributes, found in distributions()
        ],
    }
