"""The sidecar: composed of receivers, engine, scorer workers and forwarder, and run as a process."""

from __future__ import annotations

from otel_scorer.service.file_checks import check_files
from otel_scorer.service.process import run
from otel_scorer.service.sidecar import Service

__all__ = ["Service", "check_files", "run"]
