"""The rules of the project that no other tool checks: layout, names, public surface, import cost, packaging."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import otel_scorer

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "otel_scorer"
MODULES = sorted(PACKAGE.rglob("*.py"))
LOCKS = ("runtime", "image", "test", "dev", "integrations", "in-app")
# Those of `make test-integrations` are for environments that share nothing with the others.
AGREEING_LOCKS = ("image", "test", "dev")

MAX_LINES = 400
LONGER_FOR_A_REASON: dict[str, str] = {}
HARD_LIMIT = 600

NAMES_THAT_SAY_NOTHING = {
    "common",
    "core",
    "data",
    "helper",
    "helpers",
    "info",
    "manager",
    "misc",
    "util",
    "utils",
    "wrapper",
}

PUBLIC_NAMES = {
    "AssessmentError",
    "AssessmentSource",
    "AssessmentSourceType",
    "AssessmentValueError",
    "ConfigError",
    "EvaluationResult",
    "Expectation",
    "Feedback",
    "OtelScorerError",
    "Scorer",
    "ScorerError",
    "ScorerSamplingConfig",
    "ScorerStatus",
    "ScoringSpanProcessor",
    "Span",
    "SpanStatusCode",
    "SpanType",
    "Trace",
    "TraceInfo",
    "delete_scorer",
    "get_scorer",
    "list_scorer_versions",
    "list_scorers",
    "evaluate",
    "load_traces",
    "log_expectation",
    "scorer",
    "search_traces",
}

# What scores traces, wherever: the import contract of these cannot name a module before it exists.
SCORING_MODULES = ("dialects", "encoders", "evaluation", "model", "pipeline", "processor", "scorers")

# What `import otel_scorer` may cost, and what it must leave alone.
IMPORT_SECONDS = 0.3
HEAVY_MODULES = {"click", "grpc", "rich", "sqlite3", "uvicorn", "yaml"}


def in_package(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def import_contract(name: str) -> dict[str, Any]:
    [contract] = [found for found in project()["tool"]["importlinter"]["contracts"] if found["name"] == name]
    return dict(contract)


def lock_text(group: str) -> str:
    return (ROOT / "requirements" / f"{group}.txt").read_text(encoding="utf-8")


def locked(group: str) -> list[Requirement]:
    return [Requirement(line.rstrip(" \\")) for line in lock_text(group).splitlines() if re.match(r"[a-z0-9]", line)]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/").stdout


@pytest.mark.parametrize("path", MODULES, ids=in_package)
def test_a_module_is_short_or_has_a_reason_not_to_be(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= (HARD_LIMIT if in_package(path) in LONGER_FOR_A_REASON else MAX_LINES)


def test_reasons_to_be_long_are_only_given_for_long_modules() -> None:
    long_modules = {in_package(path) for path in MODULES if len(path.read_text("utf-8").splitlines()) > MAX_LINES}

    assert set(LONGER_FOR_A_REASON) <= long_modules


@pytest.mark.parametrize("path", MODULES, ids=in_package)
def test_a_module_is_named_after_what_is_in_it(path: Path) -> None:
    assert not NAMES_THAT_SAY_NOTHING & set(path.stem.split("_"))


@pytest.mark.parametrize("path", [path for path in MODULES if path.stat().st_size], ids=in_package)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    assert docstring


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__main__"], ids=in_package)
def test_every_name_that_a_module_offers_exists(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)

    offered = getattr(module, "__all__", ())

    assert [name for name in offered if not hasattr(module, name)] == []


def test_the_public_names_are_the_documented_ones() -> None:
    assert set(otel_scorer.__all__) - {"__version__"} == PUBLIC_NAMES
    assert set(dir(otel_scorer)) >= PUBLIC_NAMES


def test_a_name_that_is_not_there_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(AttributeError, match="has no 'Feedbak'; did you mean 'Feedback'"):
        getattr(otel_scorer, "Feedbak")  # noqa: B009 - as a type checker sees it, this cannot be written
    with pytest.raises(AttributeError, match=r"has no '_repr_html_'$"):
        getattr(otel_scorer, "_repr_html_")  # noqa: B009 - likewise


def test_tests_run_against_this_tree() -> None:
    where = run_python("import otel_scorer; print(otel_scorer.__file__)").strip()

    assert Path(otel_scorer.__file__) == Path(where) == PACKAGE / "__init__.py"


def test_importing_the_package_is_quick() -> None:
    # CPU time, and the best of five: other programs on the machine must not decide.
    code = "import time; start = time.process_time(); import otel_scorer; print(time.process_time() - start)"

    seconds = min(float(run_python(code)) for _ in range(5))

    assert seconds < IMPORT_SECONDS


def test_importing_the_package_leaves_heavy_modules_alone() -> None:
    loaded = run_python("import sys, otel_scorer; print(*sys.modules)").split()

    assert HEAVY_MODULES.isdisjoint(loaded)


def test_everything_that_scores_is_under_the_contract_that_keeps_servers_out() -> None:
    named = set(import_contract("Scoring needs no server")["source_modules"])

    scoring = {name for name in SCORING_MODULES if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}

    assert named == {f"otel_scorer.{name}" for name in scoring}


def test_the_wheel_holds_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])

    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(ROOT).as_posix() for path in files}


def test_the_version_is_the_same_everywhere() -> None:
    version = project()["project"]["version"]

    assert otel_scorer.__version__ == version
    assert version in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_readme_is_the_page_of_the_package() -> None:
    assert project()["project"]["readme"] == "README.md"


@pytest.mark.parametrize("group", LOCKS)
def test_a_lock_pins_every_requirement_with_hashes(group: str) -> None:
    entries = re.split(r"^(?=[a-z0-9])", lock_text(group), flags=re.MULTILINE)[1:]

    assert entries
    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("group", LOCKS)
def test_a_lock_names_no_address(group: str) -> None:
    assert "://" not in lock_text(group)


@pytest.mark.parametrize("group", AGREEING_LOCKS)
def test_all_locks_agree_with_the_one_of_the_package(group: str) -> None:
    pins = {(pin.name, str(pin.marker)): str(pin.specifier) for pin in locked(group)}

    expected = {(pin.name, str(pin.marker)): str(pin.specifier) for pin in locked("runtime")}

    assert expected.items() <= pins.items()


@pytest.mark.parametrize("group", LOCKS)
def test_a_lock_holds_all_that_the_package_and_its_build_ask_for(group: str) -> None:
    settings = project()
    wanted = settings["build-system"]["requires"] + settings["project"]["dependencies"]
    if group != "runtime":
        wanted += [need for extra in settings["project"]["optional-dependencies"].values() for need in extra]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in locked(group)}

    unmet = [
        text
        for text in wanted
        if not (need := Requirement(text)).specifier.contains(pinned.get(canonicalize_name(need.name), "0"))
    ]

    assert unmet == []
