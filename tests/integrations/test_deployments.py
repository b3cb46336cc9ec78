"""The samples for Docker Compose and Kubernetes are valid by their schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CONFIG = Path(__file__).resolve().parents[2] / "config"

pytestmark = pytest.mark.integrations


@pytest.mark.needs("check_jsonschema")
def test_the_compose_file_is_one() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    done = subprocess.run([*command, CONFIG / "compose.yaml"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("kubernetes_validate")
def test_the_kubernetes_manifest_is_one() -> None:
    import kubernetes_validate

    for resource in yaml.safe_load_all((CONFIG / "kubernetes.yaml").read_text(encoding="utf-8")):
        kubernetes_validate.validate(resource, "1.31", strict=True)
