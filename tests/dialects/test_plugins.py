"""Dialects of other packages: what is wrong with one is said and costs that one, never the traces."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from tests.dialects.installed import acme_request, install
from tests.dialects.made import made

from otel_scorer import dialects
from otel_scorer.dialects import DIALECTS, Attribute, Computed, Dialect, DialectReader, SpanTypeKey
from otel_scorer.dialects.plugins import Plugin, check_dialect, guarded, installed, load_plugin, usable
from otel_scorer.model.decode import spans_from_request
from otel_scorer.model.trace import Span, Trace
from otel_scorer.telemetry import snapshot

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "acme_dialect.py"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed in."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    forget()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    forget()


def forget() -> None:
    installed.cache_clear()
    dialects._installed_reader.cache_clear()  # noqa: SLF001  # what pip install would do


def loaded(folder: Path, code: str, value: str = "bad:DIALECT") -> Plugin:
    install(folder, "bad", code, bad=value)
    [point] = entry_points(group="otel_scorer.dialects", name="bad")
    return load_plugin(point)


def test_the_example_is_understood(folder: Path) -> None:
    install(folder, "acme_dialect", EXAMPLE.read_text(encoding="utf-8"), acme="acme_dialect:DIALECT")

    trace = Trace(spans_from_request(acme_request()), dialects.default_reader())

    assert trace.dialects == ["acme"]
    assert [span.span_type for span in trace.spans] == ["AGENT", "CHAT_MODEL", "TOOL"]
    [call] = trace.tool_calls
    assert (call.name, call.arguments, call.result) == ("get_weather", {"city": "Paris"}, "18 C")
    assert trace.usage is not None
    assert (trace.usage.input_tokens, trace.usage.output_tokens, trace.model) == (5, 2, "acme-1")
    assert (trace.inputs, trace.outputs, trace.session_id) == ("Weather?", "18 C", "chat-1")


def test_a_plugin_comes_before_what_is_built_in_and_after_the_users_own_word(folder: Path) -> None:
    install(folder, "acme_dialect", EXAMPLE.read_text(encoding="utf-8"), acme="acme_dialect:DIALECT")

    names = [dialect.name for dialect in dialects.default_reader().dialects]

    assert names == ["otel_scorer", "acme", *(dialect.name for dialect in DIALECTS[1:])]


GOOD = "from otel_scorer.dialects import *\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("syntax error", "SyntaxError"),
        ("", "AttributeError"),
        ("DIALECT = 3", "TypeError: neither a Dialect nor a list of them: int"),
        ("DIALECT = [3]", "TypeError: neither a Dialect nor a list of them: int"),
        (f"{GOOD}DIALECT = Dialect(name='x')", "'x': nothing says how it is recognised"),
        (f"{GOOD}DIALECT = Dialect(name='x', keys='abc')", "keys must be a tuple of texts"),
        (
            f"{GOOD}DIALECT = Dialect(name='x', keys=('a',), fields={{'input': attributes('k')}})",
            "there is no field 'input'; did you mean 'inputs'?",
        ),
        (
            f"{GOOD}DIALECT = Dialect(name='x', keys=('a',), fields={{'inputs': ('k',)}})",
            "fields['inputs'] must be a tuple of sources",
        ),
        (
            f"{GOOD}DIALECT = Dialect(name='x', keys=('a',), span_types=(SpanTypeKey('k', {{'a': 'TOOLS'}}),))",
            "k: no span type TOOLS",
        ),
        (f"{GOOD}def DIALECT(): raise KeyError('lost')", "KeyError: 'lost'"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named_with_its_reason(folder: Path, code: str, said: str) -> None:
    plugin = loaded(folder, code)

    assert plugin.dialects == ()
    assert plugin.problem is not None
    assert plugin.problem.startswith("bad:DIALECT: ")
    assert said in plugin.problem
    assert plugin.package == "bad 1.2"


def test_one_bad_plugin_costs_neither_traces_nor_the_good_ones(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(folder, "acme_dialect", EXAMPLE.read_text(encoding="utf-8"), acme="acme_dialect:DIALECT")
    install(folder, "bad", "raise RuntimeError('boom')", bad="bad:DIALECT")

    with caplog.at_level(logging.WARNING):
        trace = Trace(spans_from_request(acme_request()), dialects.default_reader())
        dialects.make_reader()

    assert trace.dialects == ["acme"]
    [record] = caplog.records
    assert record.getMessage() == "Dialect plugin 'bad' (bad 1.2) is not used: bad:DIALECT: RuntimeError: boom"


def test_a_function_may_return_several_dialects(folder: Path) -> None:
    plugin = loaded(folder, f"{GOOD}def DIALECT(): return [Dialect(name=n, keys=(n,)) for n in 'ab']")

    assert [dialect.name for dialect in plugin.dialects] == ["a", "b"]


def test_a_bad_dialect_in_a_list_costs_that_one_and_is_named(folder: Path) -> None:
    found = loaded(folder, f"{GOOD}DIALECT = [Dialect(name='good', keys=('good',)), Dialect(name='bad')]")

    assert [dialect.name for dialect in found.dialects] == ["good"]
    assert found.problem is not None
    assert "'bad': nothing says how it is recognised" in found.problem
    assert "good" not in found.problem


def test_a_name_that_is_taken_is_not_used_twice(caplog: pytest.LogCaptureFixture) -> None:
    mine = Dialect(name="mlflow", keys=("k",))
    plugins = [Plugin("one", "one 1", (mine,)), Plugin("two", "two 1", (Dialect(name="x", keys=("x",)), mine))]

    with caplog.at_level(logging.WARNING):
        assert [dialect.name for dialect in usable(plugins, {"mlflow"})] == ["x"]
        assert usable(plugins, set()) == [mine, plugins[1].dialects[0]]
        assert usable(plugins, set(), disabled=["mlflow", "x"]) == []
    assert "'mlflow' of one 1 is not used" in caplog.text


def boom(value: object) -> object:
    raise ValueError(f"cannot read {value}")


def test_what_raises_while_reading_is_not_said_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def explode(span: Span) -> object:
        raise KeyError(span.name)

    dialect = Dialect(
        name="explosive",
        keys=("k",),
        span_types=(SpanTypeKey("k", {"tool": "TOOL"}, decode=boom),),
        fields={
            "inputs": (Attribute("k", boom), Attribute("k")),
            "outputs": (Computed("anything", explode),),
        },
    )
    assert check_dialect(dialect) == []
    reader = DialectReader([guarded(dialect)])
    before = snapshot().get("dialects.failures{dialect=explosive}", 0)

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            [span] = Trace.from_dict({"info": {}, "data": {"spans": [made("x", {"k": "tool"})]}}, reader).spans
            assert span.span_type == "UNKNOWN"
            assert (span.inputs, span.outputs) == ("tool", None)

    assert len(caplog.records) == 3
    assert "Dialect 'explosive' failed to read inputs from k: ValueError: cannot read tool" in caplog.text
    assert snapshot()["dialects.failures{dialect=explosive}"] >= before + 5
