"""Prometheus takes the alert rules, and each alert fires when it should and not otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus" / "otel-scorer-alerts.yaml"
CASES = ROOT / "tests" / "prometheus" / "alerts.yaml"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = os.environ.get("OTEL_SCORER_PROMTOOL") or shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool: build cmd/promtool of Prometheus and name it in OTEL_SCORER_PROMTOOL")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def test_prometheus_takes_the_rules() -> None:
    ran = promtool("check", "rules", str(RULES))

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_alerts_fire_when_they_should() -> None:
    ran = promtool("test", "rules", str(CASES))

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_there_is_a_case_for_every_alert() -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]

    firing = {test["alertname"] for case in cases for test in case.get("alert_rule_test", []) if test["exp_alerts"]}

    assert firing == alerts
