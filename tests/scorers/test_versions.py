from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

from otel_scorer.scorers import Scorer, load_scorers, scorer


class Limited(Scorer):
    name: str = "limited"
    limit: int = 3
    client: object = None

    def __call__(self, outputs: str) -> bool:
        return len(outputs) > self.limit


def judge(outputs: str, limit: int = 1) -> bool:
    return len(outputs) > limit


SOURCE = """
from otel_scorer.scorers import scorer

@scorer
def check(outputs: str) -> bool:
    return {body}

if __name__ == "__main__":
    print(check.scorer_version)
"""


def test_a_version_that_was_given_is_kept() -> None:
    assert scorer(judge, version="2026-1").scorer_version == "2026-1"


def test_a_version_is_twelve_hex_digits_that_stay_the_same() -> None:
    version = scorer(judge).scorer_version

    assert re.fullmatch("[0-9a-f]{12}", version)
    assert scorer(judge).scorer_version == version
    assert Limited().scorer_version == Limited().scorer_version


def test_fields_count_but_options_and_objects_do_not() -> None:
    version = Limited().scorer_version

    assert Limited(limit=4).scorer_version != version
    assert Limited().with_options(name="x", sample_rate=0.1, timeout=1).scorer_version == version
    assert Limited(client=object()).scorer_version == Limited(client=object()).scorer_version


def test_what_a_partial_binds_counts() -> None:
    versions = {scorer(function).scorer_version for function in (judge, functools.partial(judge, limit=2))}

    assert len(versions) == 2


def test_lambdas_in_different_places_differ() -> None:
    one = scorer(lambda: 1)
    other = scorer(lambda: 2)

    assert one.scorer_version != other.scorer_version


def test_code_without_source_has_a_version() -> None:
    made: dict[str, object] = {}
    exec("def check(): return 1", made)  # noqa: S102 - our own text

    assert re.fullmatch("[0-9a-f]{12}", scorer(made["check"]).scorer_version)  # type: ignore[call-overload] # a callable
    assert scorer(len).scorer_version


def test_the_same_file_has_the_same_version_by_path_as_module_and_as_script(tmp_path: Path) -> None:
    file = tmp_path / "versioned_checks.py"
    file.write_text(SOURCE.format(body="bool(outputs)"))

    [by_path] = load_scorers([str(file)])
    [by_module] = load_scorers(["versioned_checks"])
    script = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)

    assert by_path.scorer_version == by_module.scorer_version == script.stdout.strip()


def test_changed_source_is_another_version(tmp_path: Path) -> None:
    file = tmp_path / "changing_checks.py"
    file.write_text(SOURCE.format(body="bool(outputs)"))
    [before] = load_scorers([str(file)])
    version = before.scorer_version
    file.write_text(SOURCE.format(body="len(outputs) > 100"))

    [after] = load_scorers([str(file)])

    assert after.scorer_version != version
