"""The samples for Docker Compose and Kubernetes are valid by their schemas."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG = Path(__file__).resolve().parents[2] / "config"

pytestmark = pytest.mark.integrations


@pytest.mark.needs("check_jsonschema")
def test_the_compose_file_is_one() -> None:
    jsonschema: Any = import_module("jsonschema")

    # The package carries the schema. It is not imported: that asks for a newer click than other packages here allow.
    spec = find_spec("check_jsonschema")
    assert spec is not None
    [folder] = spec.submodule_search_locations or []
    schema = Path(folder, "builtin_schemas", "vendor", "compose-spec.json").read_text(encoding="utf-8")
    sample: dict[str, Any] = yaml.safe_load((CONFIG / "compose.yaml").read_text(encoding="utf-8"))

    jsonschema.validate(sample, json.loads(schema))


@pytest.mark.needs("kubernetes_validate")
def test_the_kubernetes_manifest_is_one() -> None:
    import kubernetes_validate

    for resource in yaml.safe_load_all((CONFIG / "kubernetes.yaml").read_text(encoding="utf-8")):
        kubernetes_validate.validate(resource, "1.31", strict=True)
