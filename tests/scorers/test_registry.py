"""Register, start, update, stop, list, get, delete: MLflow's production lifecycle over a store of ours."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from otel_scorer import (
    ConfigError,
    Scorer,
    ScorerError,
    ScorerSamplingConfig,
    ScorerStatus,
    delete_scorer,
    get_scorer,
    list_scorer_versions,
    list_scorers,
    scorer,
)
from otel_scorer.scorers.lifecycle import unscheduled
from otel_scorer.scorers.loading import load_scorers
from otel_scorer.scorers.references import NotReferableError
from otel_scorer.scorers.registry import live_specs, registered_in, spec_of
from otel_scorer.stores.database import open_database
from otel_scorer.stores.registrations import Registration, Registrations

ROOT = Path(__file__).resolve().parents[2]

MODULE = """
import os
from typing import Optional

from pydantic import AliasChoices, BaseModel, Field, SecretStr
from otel_scorer import Feedback, Scorer, scorer


@scorer
def has_answer(outputs: str) -> bool:
    return bool(outputs)


@scorer(name="seconds", timeout=3, span_types=["TOOL"], pass_if="< 2", sample_rate=0.25)
def tool_seconds(span) -> float:
    return span.duration_ns / 1e9


def plain(outputs: str) -> bool:
    return True


named = scorer(lambda outputs: True, name="named_lambda")


def build():
    @scorer
    def local(outputs):
        return True

    return local


class Limits(BaseModel):
    low: int = 0
    key: Optional[SecretStr] = None


class Quality(Scorer):
    name: str = "quality"
    words: int = 5
    sections: Optional[list[str]] = None
    limits: Limits = Limits()

    def __call__(self, outputs: str) -> Feedback:
        return Feedback(value=len(outputs.split()) >= self.words)


class Nameless(Scorer):
    words: int = 5

    def __call__(self, outputs: str) -> bool:
        return True


class Counting(Scorer):
    def __init__(self):
        super().__init__(name="counting")
        self.seen = []

    def __call__(self, outputs: str, **kwargs) -> int:
        self.seen.append(outputs)
        return len(self.seen)


class Threshold(Scorer):
    def __init__(self, threshold=1):
        super().__init__(name="threshold")
        self.threshold = threshold

    def __call__(self, outputs: str) -> bool:
        return True


class Judge(Scorer):
    name: str = "judge"
    key: SecretStr = Field(default_factory=lambda: SecretStr(os.environ["JUDGE_KEY"]))
    model: str = "small"

    def __call__(self, outputs: str) -> bool:
        return True


class OpenJudge(Scorer):
    name: str = "open_judge"
    api_key: str = ""

    def __call__(self, outputs: str) -> bool:
        return True


class Aliased(Scorer):
    name: str = "aliased"
    words: int = Field(default=1, alias="at_least")
    letters: int = Field(default=1, validation_alias=AliasChoices("characters", "signs"))

    def __call__(self, outputs: str) -> bool:
        return True


for each in (scorer(lambda outputs: True, name="first"), scorer(lambda outputs: False, name="second")):
    pass

for most in (1, 2):

    class Looped(Scorer):
        name: str = "looped"
        top: int = most

        def __call__(self, outputs: str) -> bool:
            return len(outputs) <= self.top


last = Looped(name="last")

twice = scorer(lambda outputs: True, name="twice")
before = twice
twice = scorer(lambda outputs: False, name="twice")

if os.environ:
    chosen = scorer(lambda outputs: True, name="chosen")
else:
    chosen = scorer(lambda outputs: False, name="chosen")


high = Threshold(7)
with_key = Judge(key="sk-very-secret")


class Owner:
    @scorer
    def method(self, outputs: str) -> bool:
        return True
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "registered_scorers.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv("JUDGE_KEY", "sk-from-the-environment")
    yield importlib.import_module("registered_scorers")
    del sys.modules["registered_scorers"]


def stored(store: Path) -> Registration:
    [registration] = registered_in(store)
    return registration


def config(sample_rate: float | None = None, filter_string: str | None = None) -> ScorerSamplingConfig:
    return ScorerSamplingConfig(sample_rate=sample_rate, filter_string=filter_string)


def words_of(quality: Any) -> int:
    return int(quality.words)


# The lifecycle.


def test_every_step_returns_a_new_instance_and_leaves_the_old_one_as_it_was(module: Any, store: Path) -> None:
    registered = module.has_answer.register(name="answered", store=store)
    started = registered.start(sampling_config=config(0.5, "status = 'OK'"))
    updated = started.update(sampling_config=config(0.75))
    stopped = updated.stop()

    facts = [
        (each.name, each.status, each.sample_rate, each.filter_string)
        for each in (module.has_answer, registered, started, updated, stopped)
    ]
    assert facts == [
        ("has_answer", ScorerStatus.UNREGISTERED, 1.0, None),
        ("answered", ScorerStatus.STOPPED, 0.0, None),
        ("answered", ScorerStatus.STARTED, 0.5, "status = 'OK'"),
        ("answered", ScorerStatus.STARTED, 0.75, "status = 'OK'"),
        ("answered", ScorerStatus.STOPPED, 0.0, None),
    ]
    assert started.filter == 'trace.state == "OK"'
    assert stopped.filter is None
    assert started(outputs="x") is True


def test_a_stopped_scorer_can_be_started_again(module: Any, store: Path) -> None:
    stopped = module.has_answer.register(store=store).start(sampling_config=config(1)).stop()

    assert stopped.start(sampling_config=config(0.3)).sample_rate == 0.3
    assert stored(store).sample_rate == 0.3


def test_update_changes_only_what_it_is_told(module: Any, store: Path) -> None:
    started = module.has_answer.register(store=store).start(sampling_config=config(0.5, "status = 'OK'"))

    filtered = started.update(sampling_config=config(filter_string="span.type = 'TOOL'"))
    unfiltered = filtered.update(sampling_config=config(filter_string=""))

    assert (filtered.sample_rate, filtered.filter_string) == (0.5, "span.type = 'TOOL'")
    assert (unfiltered.sample_rate, unfiltered.filter_string) == (0.5, None)
    assert unfiltered.update(sampling_config=config(0)).status is ScorerStatus.STOPPED


def test_start_says_everything_anew(module: Any, store: Path) -> None:
    started = module.has_answer.register(store=store).start(sampling_config=config(0.5, "status = 'OK'"))

    assert started.start(sampling_config=config(1)).filter_string is None


@pytest.mark.parametrize("rate", [None, 0, -0.1, 1.5, True, "1", float("nan"), float("inf")])
def test_a_scorer_is_started_with_a_rate_above_zero(module: Any, store: Path, rate: Any) -> None:
    registered = module.has_answer.register(store=store)

    with pytest.raises(ScorerError, match="sample rate must be a number"):
        registered.start(sampling_config=config(rate))

    assert not stored(store).is_started


def test_a_scorer_that_is_not_registered_cannot_be_started(module: Any, store: Path) -> None:
    with pytest.raises(ScorerError, match=r"call register\(\) first"):
        module.has_answer.start(sampling_config=config(1), store=store)
    with pytest.raises(ScorerError, match=r"call register\(\) first"):
        module.has_answer.stop()


def test_a_scorer_that_was_deleted_cannot_be_started(module: Any, store: Path) -> None:
    registered = module.has_answer.register(store=store)
    delete_scorer(name="has_answer", store=store)

    with pytest.raises(ScorerError, match="no registered scorer 'has_answer'"):
        registered.start(sampling_config=config(1))


def test_a_filter_that_cannot_be_read_changes_nothing(module: Any, store: Path) -> None:
    started = module.has_answer.register(store=store).start(sampling_config=config(0.5))

    with pytest.raises(ConfigError, match="no OR"):
        started.update(sampling_config=config(1.0, "status = 'OK' OR status = 'ERROR'"))

    assert (stored(store).sample_rate, stored(store).filter_string) == (0.5, None)


def test_what_is_no_sampling_config_is_refused(module: Any, store: Path) -> None:
    registered = module.has_answer.register(store=store)

    with pytest.raises(ScorerError, match="must be a ScorerSamplingConfig"):
        registered.start(sampling_config={"sample_rate": 1.0})


def test_registering_the_same_again_changes_nothing(module: Any, store: Path) -> None:
    module.has_answer.register(store=store).start(sampling_config=config(0.5))
    with open_database(store) as database:
        before = Registrations(database).revision()
        again = module.has_answer.register(store=store)

        assert Registrations(database).revision() == before
    assert (again.registered_version, again.status, again.sample_rate) == (1, ScorerStatus.STARTED, 0.5)


def test_a_changed_scorer_becomes_the_next_version_and_keeps_running(module: Any, store: Path) -> None:
    module.Quality(words=5).register(store=store).start(sampling_config=config(0.5))

    second = module.Quality(words=9).register(store=store)

    assert (second.registered_version, second.status) == (2, ScorerStatus.STARTED)
    assert words_of(get_scorer(name="quality", store=store)) == 9
    assert words_of(get_scorer(name="quality", version=1, store=store)) == 5
    assert [(words_of(made), version) for made, version in list_scorer_versions(name="quality", store=store)] == [
        (5, 1),
        (9, 2),
    ]


def test_registered_scorers_are_listed_by_name(module: Any, store: Path) -> None:
    module.tool_seconds.register(store=store)
    module.has_answer.register(name="b", store=store).start(sampling_config=config(1))
    module.Quality(words=2).register(name="a", store=store)

    found = list_scorers(store=store)

    assert [(each.name, each.status.value) for each in found] == [
        ("a", "STOPPED"),
        ("b", "STARTED"),
        ("seconds", "STOPPED"),
    ]
    assert words_of(found[0]) == 2


def test_a_scorer_can_be_found_and_changed_by_name(module: Any, store: Path) -> None:
    module.has_answer.register(name="answered", store=store)

    found = get_scorer(name="answered", store=store)
    found.start(sampling_config=config(1.0))

    assert found.status is ScorerStatus.STOPPED
    assert get_scorer(name="answered", store=store).status is ScorerStatus.STARTED
    assert found(outputs="x") is True


def test_what_is_not_registered_cannot_be_found(module: Any, store: Path) -> None:
    for call in (get_scorer, delete_scorer, list_scorer_versions):
        with pytest.raises(ScorerError, match="no registered scorer 'nobody'"):
            call(name="nobody", store=store)
    assert not store.exists()
    module.has_answer.register(store=store)
    with pytest.raises(ScorerError, match="no version 3 of a registered scorer 'has_answer'"):
        get_scorer(name="has_answer", version=3, store=store)


def test_deleting_takes_one_version_or_all(module: Any, store: Path) -> None:
    for words in (1, 2, 3):
        module.Quality(words=words).register(store=store)

    delete_scorer(name="quality", version=3, store=store)
    assert get_scorer(name="quality", store=store).registered_version == 2
    delete_scorer(name="quality", version="all", store=store)
    assert list_scorers(store=store) == []
    with pytest.raises(ScorerError, match="'all'"):
        delete_scorer(name="quality", version="latest", store=store)


def test_one_that_cannot_be_loaded_any_more_does_not_hide_the_others(
    module: Any, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module.has_answer.register(store=store)
    gone = tmp_path / "gone.py"
    gone.write_text(MODULE, encoding="utf-8")
    load_scorers([f"{gone}:plain"])[0].register(store=store)
    gone.unlink()

    with caplog.at_level(logging.WARNING):
        found = list_scorers(store=store)

    assert [each.name for each in found] == ["has_answer"]
    assert "'plain' is left out" in caplog.text
    with pytest.raises(ConfigError, match="does not exist"):
        get_scorer(name="plain", store=store)


def test_the_store_is_named_by_the_environment(
    module: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SCORER_STORE", str(store))
    registered = module.has_answer.register()
    monkeypatch.setenv("OTEL_SCORER_STORE", str(tmp_path / "other.db"))

    registered.start(sampling_config=config(1))

    assert stored(store).is_started
    assert list_scorers() == []


def test_registered_scorers_judge_every_trace_that_is_chosen_otherwise(module: Any, store: Path) -> None:
    started = module.tool_seconds.register(store=store).start(sampling_config=config(0.5, "status = 'OK'"))

    plain = unscheduled(started)

    assert (plain.name, plain.sample_rate, plain.filter) == ("seconds", 0.25, None)
    assert unscheduled(module.has_answer) is module.has_answer
    assert unscheduled(started.with_options(sample_rate=0.9, filter=None)).sample_rate == 0.9


# What the store keeps, and how it is loaded.


@pytest.mark.parametrize(
    ("make", "ref", "kept"),
    [
        (lambda module: module.has_answer, "has_answer", ({}, {})),
        (lambda module: module.tool_seconds, "tool_seconds", ({}, {})),
        (lambda module: scorer(module.plain), "plain", ({}, {})),
        (lambda module: scorer(module.plain, name="x", pass_if=">= 1"), "plain", ({}, {"pass_if": ">= 1"})),
        (lambda module: module.named, "named", ({}, {})),
        (
            lambda module: module.tool_seconds.with_options(timeout=9, span_types=["LLM", "TOOL"], description="d"),
            "tool_seconds",
            ({}, {"timeout": 9.0, "span_types": ["LLM", "TOOL"], "description": "d"}),
        ),
        (lambda module: module.Quality(), "Quality", ({}, {})),
        (
            lambda module: module.Quality(name="x", words=9, sections=["a"], timeout=3, aggregations=["max"]),
            "Quality",
            ({"words": 9, "sections": ["a"]}, {"timeout": 3.0, "aggregations": ["max"]}),
        ),
        (
            lambda module: module.Quality(limits=module.Limits(low=3)),
            "Quality",
            ({"limits": {"low": 3, "key": None}}, {}),
        ),
        (lambda module: module.Nameless(name="x", words=2), "Nameless", ({"name": "x", "words": 2}, {})),
        (lambda module: module.Counting(), "Counting", ({}, {})),
        # What parameters cannot carry, a reference to an object in a module can.
        (lambda module: module.high, "high", ({}, {})),
        (lambda module: module.with_key, "with_key", ({}, {})),
        (
            lambda module: module.Aliased(at_least=3, signs=4),
            "Aliased",
            ({"at_least": 3, "characters": 4}, {}),
        ),
        # A name that is bound in one way or another is the same one everywhere.
        (lambda module: module.chosen, "chosen", ({}, {})),
        (lambda module: module.before, "before", ({}, {})),
        (lambda module: module.last, "last", ({}, {})),
        # What the class reads for itself is no parameter.
        (lambda module: module.Judge(model="large"), "Judge", ({"model": "large"}, {})),
    ],
)
def test_the_store_keeps_a_reference_and_plain_data(
    module: Any, store: Path, make: Any, ref: str, kept: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    made = make(module)

    made.register(store=store)
    found = get_scorer(name=made.name, store=store)

    definition = stored(store).definition
    assert definition.ref == f"registered_scorers:{ref}"
    assert (definition.parameters, definition.options) == kept
    assert definition.folder == str(Path(module.__file__).parent)
    assert found.scorer_version == made.scorer_version
    assert unscheduled(found).model_dump(exclude={"pass_if"}) == made.model_dump(exclude={"pass_if"})
    assert b"sk-very-secret" not in store.read_bytes()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda module: scorer(lambda outputs: True), "it is a lambda"),
        # Whoever imports the module finds another scorer under these names than the module did when it registered one.
        (lambda module: module.each, "it is a lambda without a name in a module.* a name of its own"),
        (lambda module: module.twice, "it is a lambda without a name in a module.* a name of its own"),
        (lambda module: module.Looped(name="short"), "registered_scorers binds the name Looped more than once"),
        (lambda module: module.build(), r"build\(\) defines it"),
        (lambda module: module.Owner().method, "a method of an object"),
        (lambda module: module.Threshold(3), "has another 'threshold', which is no field"),
        (lambda module: module.Judge(key="sk-very-secret"), "its field 'key' holds a secret"),
        (lambda module: module.OpenJudge(api_key="sk-very-secret"), "its field 'api_key' holds a secret"),
        (lambda module: module.Quality(limits={"key": "sk-very-secret"}), "its field 'limits' holds a secret"),
        (lambda module: module.has_answer.with_options(pass_if=bool), "its option 'pass_if' differs"),
        (lambda module: module.tool_seconds.with_options(timeout=None), "its option 'timeout' differs"),
    ],
)
def test_what_no_other_process_could_make_is_refused_with_the_cure(
    module: Any, store: Path, make: Any, why: str
) -> None:
    with pytest.raises(ScorerError, match=why) as caught:
        make(module).register(store=store)

    assert type(caught.value) is NotReferableError  # a name that people can look up
    assert "sk-very-secret" not in str(caught.value)
    assert not store.exists()


def test_a_class_inside_a_function_is_refused(store: Path) -> None:
    class Local(Scorer):
        name: str = "local"

        def __call__(self, outputs: str) -> bool:
            return True

    with pytest.raises(ScorerError, match="defines it, so no other process can import it"):
        Local().register(store=store)


def test_a_scorer_of_a_file_is_referred_to_by_its_path(tmp_path: Path, store: Path) -> None:
    file = tmp_path / "by_path.py"
    file.write_text(MODULE, encoding="utf-8")

    for made in load_scorers([f"{file}:has_answer", f"{file}:Quality"]):
        made.register(store=store)

    assert [each.definition.ref for each in registered_in(store)] == [f"{file}:has_answer", f"{file}:Quality"]


def test_a_built_in_scorer_can_be_registered(store: Path) -> None:
    load_scorers(["latency"])[0].register(name="slow", store=store)

    found = get_scorer(name="slow", store=store)

    assert found.scorer_version == load_scorers(["latency"])[0].scorer_version
    assert stored(store).definition.folder == str(ROOT)


def test_a_live_scorer_is_loaded_under_its_name_with_its_sample_and_filter(module: Any, store: Path) -> None:
    quality = module.Quality(words=7, timeout=2).register(name="live", store=store)
    quality.start(sampling_config=config(0.5, "span.type = 'TOOL'"))
    module.has_answer.register(store=store)

    [spec] = live_specs(registered_in(store))
    [loaded] = load_scorers([spec])

    assert (loaded.name, loaded.sample_rate, loaded.timeout) == ("live", 0.5, 2.0)
    assert loaded.filter == 'trace.span_types.exists(value, value == "TOOL")'
    assert words_of(loaded) == 7


def test_the_filter_of_the_code_holds_where_there_is_no_filter_string(module: Any, store: Path) -> None:
    made = module.has_answer.with_options(filter='root.name == "x"')
    registered = made.register(store=store)

    assert load_scorers([spec_of(stored(store))])[0].filter == 'root.name == "x"'
    started = registered.start(sampling_config=config(1, "status = 'OK'"))
    assert load_scorers([spec_of(stored(store))])[0].filter == started.filter == 'trace.state == "OK"'
    assert started.stop().filter == 'root.name == "x"'


def test_a_module_is_found_from_another_folder(module: Any, store: Path, tmp_path: Path) -> None:
    module.has_answer.register(store=store)

    done = run_python(
        tmp_path,
        f"from otel_scorer import get_scorer; print(get_scorer(name='has_answer', store={str(store)!r})(outputs='x'))",
    )

    assert done == "True\n"


# Programs.


def run_python(folder: Path, code: str, *, fails: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


SCRIPT = """
from otel_scorer import ScorerSamplingConfig, get_scorer, list_scorers, scorer

print("runs")


@scorer
def has_answer(outputs: str) -> bool:
    return bool(outputs)


started = has_answer.register(name="answered").start(sampling_config=ScorerSamplingConfig(sample_rate=1.0))
print(started.status, get_scorer(name="answered")(outputs="x"))
"""


def run_script(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, path.name],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OTEL_SCORER_STORE": str(path.parent / "store.db")},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_can_register_what_it_defines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SCORER_STORE", str(tmp_path / "store.db"))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")

    assert run_script(script) == "runs\nSTARTED True\n"

    store = tmp_path / "store.db"
    assert stored(store).definition.ref == f"{script}:has_answer"
    before = stored(store)
    assert get_scorer(name="answered", store=store)(outputs="x") is True
    assert stored(store) == before


def test_loading_a_script_that_registers_as_it_runs_leaves_the_store_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SCORER_STORE", str(tmp_path / "store.db"))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    run_script(script)
    store = tmp_path / "store.db"
    with open_database(store) as database:
        Registrations(database).schedule("answered", lambda _: (0.0, None))
        before = Registrations(database).revision()

        assert get_scorer(name="answered", store=store).status is ScorerStatus.STOPPED

        assert Registrations(database).revision() == before


def test_an_interactive_session_is_told_to_use_a_file(tmp_path: Path) -> None:
    error = run_python(
        tmp_path,
        "from otel_scorer import scorer\n@scorer\ndef s(outputs):\n    return True\ns.register(store='s.db')",
        fails=True,
    )

    assert "defined in an interactive session" in error
    assert "Write it to a file" in error
    assert not (tmp_path / "s.db").exists()


def test_registering_needs_no_sqlite_before_it_happens() -> None:
    loaded = run_python(
        ROOT,
        "import sys; from otel_scorer import ScorerSamplingConfig, scorer; scorer(id, name='x'); print(*sys.modules)",
    )

    assert "sqlite3" not in loaded.split()


def test_a_module_of_a_package_is_referred_to_by_its_name(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "registered_package"
    package.mkdir()
    (package / "__init__.py").write_text(MODULE, encoding="utf-8")
    (package / "inner.py").write_text("from registered_package import has_answer as again\n" + MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    top: ModuleType = importlib.import_module("registered_package")
    inner: ModuleType = importlib.import_module("registered_package.inner")
    try:
        top.has_answer.register(name="a", store=store)
        inner.has_answer.register(name="b", store=store)
        inner.again.register(name="c", store=store)
    finally:
        del sys.modules["registered_package"], sys.modules["registered_package.inner"]

    found = [each.definition for each in registered_in(store)]
    assert [each.ref for each in found] == [
        "registered_package:has_answer",
        "registered_package.inner:has_answer",
        "registered_package:has_answer",
    ]
    assert {each.folder for each in found} == {str(tmp_path)}
