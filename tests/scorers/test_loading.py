from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_scorer.errors import ConfigError
from otel_scorer.scorers import ScorerSpec, load_scorers

SCORERS = '''
"""A module of scorers."""
from typing import Any

from otel_scorer.scorers import Scorer, scorer
from neighbour import LIMIT


def plain(outputs: str) -> bool:
    return True


@scorer
def second(outputs: str) -> bool:
    return len(outputs) > LIMIT


class Configured(Scorer):
    name: str = "configured"
    limit: int = 1

    def __call__(self, outputs: str) -> bool:
        return len(outputs) > self.limit


class Demanding(Scorer):
    name: str = "demanding"
    limit: int

    def __call__(self, outputs: str) -> bool:
        return len(outputs) > self.limit


class Base(Scorer):
    def __call__(self, outputs: str) -> bool:
        return True


class Derived(Base):
    name: str = "derived"


class Used(Scorer):
    name: str = "used"

    def __call__(self, outputs: str) -> bool:
        return True


first = Used(name="first")
again = first
several = [second, plain]
number = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "neighbour.py").write_text("LIMIT = 2\n")
    (tmp_path / "some_scorers.py").write_text(SCORERS)
    yield tmp_path
    for name in ("neighbour", "some_scorers"):
        sys.modules.pop(name, None)


def names(*references: str | ScorerSpec) -> list[str]:
    return [made.name for made in load_scorers(references)]


def test_a_file_gives_its_scorers_in_the_order_of_their_definition(folder: Path) -> None:
    assert names(f"{folder}/some_scorers.py") == ["second", "configured", "derived", "first"]


def test_a_file_finds_what_lies_beside_it(folder: Path) -> None:
    [second] = load_scorers([f"{folder}/some_scorers.py:second"])

    assert second.run(outputs="abc") is True


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("second", ["second"]),
        ("plain", ["plain"]),
        ("Configured", ["configured"]),
        ("several", ["second", "plain"]),
        ("first", ["first"]),
    ],
)
def test_an_attribute_names_a_scorer_a_function_a_class_or_a_list(
    folder: Path, attribute: str, expected: list[str]
) -> None:
    assert names(f"{folder}/some_scorers.py:{attribute}") == expected


def test_a_module_is_found_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))

    assert names("some_scorers") == ["second", "configured", "derived", "first"]
    assert names("some_scorers:second") == ["second"]


def test_a_module_in_the_current_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    assert names("some_scorers:first") == ["first"]


def test_an_unknown_module_leaves_the_search_path_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = [*sys.path]

    with pytest.raises(ConfigError):
        names("not_there")

    assert sys.path == before


def test_built_in_scorers_are_found_by_their_name() -> None:
    assert names("tool_errors", "redundant_tool_calls", "latency") == ["tool_errors", "redundant_tool_calls", "latency"]


def test_entry_points_are_found_by_their_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = folder / "acme-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[otel_scorer.scorers]\nacme = some_scorers:several\nbroken = some_scorers:nothing\n"
    )
    monkeypatch.syspath_prepend(str(folder))

    assert names("acme") == ["second", "plain"]
    with pytest.raises(ConfigError, match="'broken' cannot be imported: AttributeError"):
        names("broken")


def test_a_scorer_class_that_cannot_work_is_blamed_on_its_own_line(folder: Path) -> None:
    file = folder / "bad.py"
    file.write_text("from otel_scorer import Scorer\n\n\nclass Bad(Scorer):\n    results = []\n")

    with pytest.raises(ConfigError, match=rf"ScorerDefinitionError in {file}, line 4: Scorer class 'Bad' sets"):
        load_scorers([str(file)])


def test_files_of_one_name_do_not_get_in_each_others_way(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "some_scorers.py").write_text("def judge(outputs: str) -> int:\n    return 7\n")

    made = load_scorers([f"{folder}/some_scorers.py:first", f"{other}/some_scorers.py:judge"])

    assert [one.name for one in made] == ["first", "judge"]


def test_one_call_executes_a_file_once_and_the_next_one_again(folder: Path) -> None:
    file = folder / "counted.py"
    file.write_text("from otel_scorer.scorers import scorer\none = scorer(lambda: 1, name='one')\n")
    a, b = load_scorers([f"{file}:one", ScorerSpec(f"{file}:one", name="b")])
    file.write_text("from otel_scorer.scorers import scorer\none = scorer(lambda: 2, name='one')\n")
    [c] = load_scorers([f"{file}:one"])

    assert a.turn is b.turn
    assert (a.run(), c.run()) == (1, 2)


def test_options_win_over_those_in_the_code(folder: Path) -> None:
    spec = ScorerSpec(
        f"{folder}/some_scorers.py:second",
        name="renamed",
        sample_rate=0.25,
        filter="true",
        timeout=0,
        span_types=["TOOL"],
        pass_if=">= 0.7",
        concurrent=True,
    )

    [made] = load_scorers([spec])

    assert (made.name, made.sample_rate, made.filter, made.timeout) == ("renamed", 0.25, "true", 0)
    assert (made.span_types, made.pass_if, made.concurrent) == (("TOOL",), ">= 0.7", True)


def test_options_hold_for_all_scorers_behind_a_reference(folder: Path) -> None:
    made = load_scorers([ScorerSpec(f"{folder}/some_scorers.py", sample_rate=0.5)])

    assert {one.sample_rate for one in made} == {0.5}


def test_parameters_are_the_fields_of_a_class(folder: Path) -> None:
    [made] = load_scorers([ScorerSpec(f"{folder}/some_scorers.py:Demanding", parameters={"limit": 5})])

    assert made.run(outputs="1234") is False


CLASSES = """
from typing import Any
from pydantic import AliasChoices, ConfigDict, Field, model_validator
from otel_scorer import Scorer

class Plain(Scorer):
    name: str = "plain"
    characters: int = 3
    limit: int = Field(default=1, alias="at_most")
    def __call__(self, outputs): return [self.characters, self.limit]

class Either(Plain):
    model_config = ConfigDict(populate_by_name=True)

class Made(Scorer):
    def __init__(self, words=3):
        super().__init__(name="made")
        self.words = words
    def __call__(self, outputs): return self.words

class Open(Scorer):
    name: str = "open"
    def __init__(self, **settings):
        super().__init__()
        self.settings = settings
    def __call__(self, outputs): return str(self.settings)

class Renamed(Scorer):
    name: str = "renamed"
    characters: int = Field(default=3, validation_alias=AliasChoices("letters", "chars"))
    def __call__(self, outputs): return self.characters

class Older(Scorer):
    name: str = "older"
    characters: int = 3
    @model_validator(mode="before")
    @classmethod
    def read_old(cls, data: Any) -> Any:
        return {**data, "characters": data.get("length", 3)}
    def __call__(self, outputs): return self.characters
"""


@pytest.mark.parametrize(
    ("reference", "parameters", "message"),
    [
        ("Plain", {"charcters": 5}, r"Plain has no parameter 'charcters'; did you mean 'characters'\?"),
        ("Plain", {"limit": 5}, "Plain has no parameter 'limit'; "),  # pydantic takes its alias only
        ("Plain", {"size": 5}, "Plain has no parameter 'size'; there are aggregations, at_most, characters, "),
        ("Made", {"wrds": 5}, "unexpected keyword argument 'wrds'"),
    ],
)
def test_a_mistyped_parameter_is_an_error(
    tmp_path: Path, reference: str, parameters: dict[str, Any], message: str
) -> None:
    (tmp_path / "classes.py").write_text(CLASSES)

    with pytest.raises(ConfigError, match=message):
        load_scorers([ScorerSpec(f"{tmp_path}/classes.py:{reference}", parameters=parameters)])


@pytest.mark.parametrize(
    ("reference", "parameters", "said"),
    [
        ("Plain", {"characters": 5, "at_most": 2, "timeout": 3}, [5, 2]),
        ("Either", {"limit": 2}, [3, 2]),
        ("Either", {"at_most": 2}, [3, 2]),
        ("Made", {"words": 5}, 5),
        ("Open", {"anything": 5}, "{'anything': 5}"),
        ("Renamed", {"letters": 5}, 5),
        ("Older", {"length": 5}, 5),
    ],
)
def test_a_parameter_is_whatever_the_class_takes(
    tmp_path: Path, reference: str, parameters: dict[str, Any], said: object
) -> None:
    (tmp_path / "classes.py").write_text(CLASSES)

    [made] = load_scorers([ScorerSpec(f"{tmp_path}/classes.py:{reference}", parameters=parameters)])

    assert made.run(outputs="") == said


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "is empty"),
        ("tool_error", "Unknown scorer 'tool_error': did you mean 'tool_errors'?"),
        ("nothing_like_it", "Unknown scorer 'nothing_like_it'.*no module.*tool_errors, redundant_tool_calls, latency"),
        ("no.such.package:x", "Unknown scorer 'no.such.package:x'"),
        (":x", "write module:attribute"),
        ("json:", "write module:attribute"),
        ("json", "no scorer in 'json'"),
        ("missing.py", "Scorer file 'missing.py' does not exist"),
        ("missing.py:x", "Scorer file 'missing.py' does not exist"),
        ("some_scorers.py:secnd", "there is no 'secnd'; did you mean 'second'?"),
        ("some_scorers.py:number", "a callable or a Scorer, got 3"),
        ("some_scorers.py:Demanding", "limit: Field required"),
        ("some_scorers.py:Any", "not a Scorer|callable"),
        ("syntax.py", r"SyntaxError in .*syntax\.py, line 2: .*: def oops\(:"),
        ("raises.py", r"ZeroDivisionError in .*raises\.py, line 3: division by zero"),
        ("leaves.py", r"SystemExit in .*leaves\.py, line 1"),
        ("imports.py", "ModuleNotFoundError in .*: No module named 'not_installed'"),
        ("functions.py", r"no scorer in .*decorate functions with @scorer, or name one, as in .*functions\.py:judge"),
        ("empty.py", r"no scorer in 'empty\.py'$"),
        ("bad.py", "sets `results` without a type annotation"),
    ],
)
def test_what_cannot_be_loaded_is_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reference: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "syntax.py").write_text("x = 1\ndef oops(:\n")
    (folder / "raises.py").write_text("def f():\n    # far away\n    return 1 / 0\nf()\n")
    (folder / "leaves.py").write_text("raise SystemExit(3)\n")
    (folder / "imports.py").write_text("import not_installed\n")
    (folder / "functions.py").write_text("def judge(outputs):\n    return 1\n")
    (folder / "empty.py").write_text("")
    (folder / "bad.py").write_text("from otel_scorer.scorers import Scorer\nclass Bad(Scorer):\n    results = []\n")

    with pytest.raises(ConfigError, match=message):
        load_scorers([reference])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ScorerSpec("latency", sample_rate=2), "'latency': sample_rate"),
        (ScorerSpec("latency", timeout=-1), "'latency': timeout"),
        (ScorerSpec("latency", pass_if="low"), "Cannot read pass_if 'low'"),
        (ScorerSpec("json.decoder:JSONDecoder"), "is a class, but not a Scorer"),
        (ScorerSpec("json:dumps", parameters={"x": 1}), "needs a reference to a scorer class"),
        (ScorerSpec("shutil:copyfile"), "'shutil:copyfile': copyfile needs 'src', 'dst', which nobody can give it"),
    ],
)
def test_options_that_cannot_be_meant_are_explained(spec: ScorerSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scorers([spec])


def test_one_name_is_not_enough_for_several_scorers(folder: Path) -> None:
    with pytest.raises(ConfigError, match="`name` needs a reference to one scorer, and there are 4"):
        load_scorers([ScorerSpec(f"{folder}/some_scorers.py", name="x")])


def test_a_file_that_cannot_be_executed_leaves_no_module_behind(folder: Path) -> None:
    file = folder / "half.py"
    file.write_text("raise ValueError('half')\n")
    before = set(sys.modules)

    with pytest.raises(ConfigError):
        load_scorers([str(file)])

    assert set(sys.modules) == before
