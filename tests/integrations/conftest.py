"""Packages whose scorers run here: nothing of them may phone home, and each test says which one it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from tests.integrations.model import Model

# To the end of the process, and for those that tests start: some would report when it ends.
os.environ.update({
    "DEEPEVAL_DISABLE_DOTENV": "1",
    "DEEPEVAL_TELEMETRY_OPT_OUT": "YES",
    "DEEPEVAL_UPDATE_WARNING_OPT_OUT": "YES",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
})  # fmt: skip


def is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a package that is not installed; what those packages warn of is theirs."""
    for item in items:
        if item.get_closest_marker("integrations") is None:
            continue
        item.add_marker(pytest.mark.filterwarnings("default"))
        missing = [name for mark in item.iter_markers("needs") for name in mark.args if not is_there(name)]
        if missing:
            reason = f"needs {', '.join(missing)}: run it with `make test-integrations`"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def some_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some scorers want one when they are made, although they never ask a model."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.close()
