"""Other scorers for a running sidecar: no trace is lost or scored twice, and what is wrong changes nothing."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.e2e.sidecar import SCORERS, Gate, Sidecar, Traces, id_of, small_trace
from tests.e2e.sink import Sink

from otel_scorer.stores.database import open_database
from otel_scorer.stores.registrations import Definition, Registrations
from otel_scorer.testing import make_request, make_span

GATED = SCORERS / "gated.py"
TAKEN, REFUSED = "Scorers from now on:", "The scorers stay as they are"


class Settings:
    """A configuration file and a file with one scorer, to be changed at will."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.folder = folder
        self.config = folder / "sidecar.yaml"
        self.scorer = folder / "mine.py"
        self.sink = sink
        self.says("one")
        self.configure()

    def configure(self, *scorers: str, more: str = "") -> None:
        listed = ", ".join(scorers or [str(self.scorer)])
        self.config.write_text(
            f"scorers: [{listed}]\nassembly: {{root_grace: 0.3s, idle_timeout: 20s}}\n"
            f"exporters: {{otlp: {{endpoint: '{self.sink.grpc}'}}}}\n{more}",
            encoding="utf-8",
        )

    def says(self, value: str) -> None:
        self.scorer.write_text(
            f"from otel_scorer import scorer\n\n@scorer\ndef mine(trace):\n    return {value!r}\n", encoding="utf-8"
        )


@pytest.fixture
def settings(tmp_path: Path, own_sink: Sink) -> Settings:
    return Settings(tmp_path, own_sink)


def without_filters(folder: Path) -> dict[str, str]:
    """Return the environment of a program for which the extra `filters` is not installed."""
    absent = folder / "absent"
    absent.mkdir()
    (absent / "cel.py").write_text("raise ImportError('not installed')\n", encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(absent), os.environ["PYTHONPATH"]])}


def reload(sidecar: Sidecar, outcome: str = TAKEN) -> None:
    """Send SIGHUP and wait until it is served."""
    before = sidecar.log.count(outcome)
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_for_log_times(outcome, before + 1)


def values(sink: Sink, *traces: int) -> Counter[tuple[int, str, object]]:
    scores = sink.scores_of(*map(id_of, traces))
    return Counter((int.from_bytes(score.raw.trace_id, "big"), score.name, score.value) for score in scores)


def test_new_code_scores_the_next_traces_and_open_ones_stay_whole(
    settings: Settings, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start("-c", str(settings.config))
    sidecar.send(small_trace(1))
    own_sink.wait_for_scores(1, id_of(1))
    sidecar.send(make_request(make_span("child", trace=2, span=2, parent=1)))
    settings.says("two")

    reload(sidecar)
    sidecar.send(make_request(make_span("root", trace=2, span=1)))
    sidecar.send(small_trace(3))

    own_sink.wait_for_scores(2, id_of(2), id_of(3))
    assert sidecar.stop() == 0
    assert values(own_sink, 1, 2, 3) == Counter([(1, "mine", "one"), (2, "mine", "two"), (3, "mine", "two")])
    [score] = own_sink.scores_of(id_of(2))
    assert score.attributes["otel_scorer.complete"] is True
    assert len(own_sink.spans_of(id_of(1), id_of(2), id_of(3))) == 8


def test_calls_in_flight_finish_in_the_workers_they_are_in(
    settings: Settings, own_sink: Sink, start: Callable[..., Sidecar], gate: Gate
) -> None:
    settings.configure(str(GATED))
    sidecar = start("-c", str(settings.config), environment=gate.environment)
    sidecar.send(small_trace(1))
    sidecar.send(small_trace(2))
    gate.wait_for_scorer()
    settings.configure(str(settings.scorer))

    reload(sidecar)
    sidecar.send(small_trace(3))
    own_sink.wait_for_scores(1, id_of(3))
    gate.open()
    gate.wait_for_scorer()
    gate.open()

    own_sink.wait_for_scores(5, *map(id_of, (1, 2, 3)))
    assert sidecar.stop() == 0
    old = [(trace, name, value) for trace in (1, 2) for name, value in (("quick", True), ("gated", "let through"))]
    assert values(own_sink, 1, 2, 3) == Counter([*old, (3, "mine", "one")])


def test_a_drain_waits_for_the_calls_of_replaced_scorers(
    settings: Settings, own_sink: Sink, start: Callable[..., Sidecar], gate: Gate
) -> None:
    settings.configure(str(GATED))
    sidecar = start("-c", str(settings.config), environment=gate.environment)
    sidecar.send(small_trace(1))
    gate.wait_for_scorer()
    settings.configure(str(settings.scorer))
    reload(sidecar)

    sidecar.terminate()
    sidecar.wait_for_log("Draining")
    gate.open()

    assert sidecar.wait() == 0
    assert values(own_sink, 1) == Counter([(1, "quick", True), (1, "gated", "let through")])


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda settings: settings.scorer.write_text("def broken(:\n", encoding="utf-8"), "mine.py"),
        (lambda settings: settings.configure(more="scoring: {wokers: 2}\n"), "wokers"),
        (lambda settings: settings.configure("nobody_knows_it"), "nobody_knows_it"),
        (lambda settings: settings.config.unlink(), "sidecar.yaml"),
    ],
    ids=["syntax error", "unknown key", "unknown scorer", "no file"],
)
def test_what_cannot_be_used_is_refused_in_one_line_and_changes_nothing(
    break_it: Callable[[Settings], object],
    says: str,
    settings: Settings,
    own_sink: Sink,
    start: Callable[..., Sidecar],
) -> None:
    sidecar = start("-c", str(settings.config))
    break_it(settings)

    reload(sidecar, REFUSED)
    sidecar.send(small_trace(1))
    own_sink.wait_for_scores(1, id_of(1))
    settings.configure()
    settings.says("fixed")
    reload(sidecar)
    sidecar.send(small_trace(2))
    own_sink.wait_for_scores(1, id_of(2))

    [line] = [line for line in sidecar.log.splitlines() if REFUSED in line]
    assert says in line
    assert "Traceback" not in sidecar.log
    assert values(own_sink, 1, 2) == Counter([(1, "mine", "one"), (2, "mine", "fixed")])


def test_settings_that_need_a_restart_are_named(
    settings: Settings, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start("-c", str(settings.config))
    settings.configure(
        "latency", more="hold_deadline: 9s\nreceivers: {otlp: {protocols: {http: {endpoint: 127.0.0.1:1}}}}\n"
    )

    reload(sidecar)
    sidecar.wait_for_log("only after a restart")
    sidecar.send(small_trace(1))

    own_sink.wait_for_scores(1, id_of(1))
    assert own_sink.score_names() == ["latency"]
    [line] = [line for line in sidecar.log.splitlines() if "only after a restart" in line]
    # What a flag says has not changed, whatever the file says.
    assert line.endswith("have changed: hold_deadline")


def test_the_status_page_shows_the_settings_that_are_in_effect(
    settings: Settings, start: Callable[..., Sidecar]
) -> None:
    page = "telemetry: {status_page: 127.0.0.1:0}\n"
    settings.configure("latency", more=page)
    sidecar = start("-c", str(settings.config))
    settings.configure("tool_errors", more=f"{page}hold_deadline: 9s\n")

    reload(sidecar)
    sidecar.wait_for_log("only after a restart")

    shown = yaml.safe_load(json.loads(sidecar.ask("/status.json").body)["settings"])
    assert [scorer["use"] for scorer in shown["scorers"]] == ["tool_errors"]
    assert shown["hold_deadline"] == "5s"


@pytest.mark.parametrize("forwarding", ["passthrough", "hold_root", "hold_trace"])
def test_scoring_can_be_switched_on_and_off(
    forwarding: str, settings: Settings, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    nothing = settings.config.read_text(encoding="utf-8").replace(f"[{settings.scorer}]", "[]")
    settings.config.write_text(nothing, encoding="utf-8")
    sidecar = start("-c", str(settings.config), "--forwarding", forwarding)
    sidecar.send(small_trace(1))
    own_sink.wait_for_spans(3, id_of(1))

    settings.configure()
    reload(sidecar)
    sidecar.send(small_trace(2))
    own_sink.wait_for_scores(1, id_of(2))
    sidecar.send(small_trace(3))
    settings.config.write_text(nothing, encoding="utf-8")
    reload(sidecar)
    sidecar.send(small_trace(4))

    own_sink.wait_for_spans(12, *map(id_of, (1, 2, 3, 4)))
    assert sidecar.stop() == 0
    assert len(own_sink.spans_of(*map(id_of, (1, 2, 3, 4)))) == 12
    assert values(own_sink, 1, 2, 4) == Counter([(2, "mine", "one")])


def test_under_load_every_trace_is_scored_once_by_one_set(
    settings: Settings, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    second = settings.folder / "also.py"
    second.write_text(
        "from otel_scorer import scorer\n\n@scorer\ndef also(trace):\n    return True\n", encoding="utf-8"
    )
    settings.configure(str(settings.scorer), str(second))
    sidecar = start("-c", str(settings.config), "--root-grace", "0.1")
    traces = Traces(90)
    ids: list[int] = []
    for number in range(3):
        settings.says(f"set {number}")
        sidecar.process.send_signal(signal.SIGHUP)
        for _ in range(60):
            ids.append(traces.new())
            sidecar.send(small_trace(ids[-1]))
        sidecar.wait_for_log_times(TAKEN, number + 1)

    own_sink.wait_for_scores(2 * len(ids), *map(id_of, ids))
    assert sidecar.stop() == 0
    found = Counter((trace, name) for trace, name, _ in values(own_sink, *ids).elements())
    assert found == Counter((trace, name) for trace in ids for name in ("mine", "also"))
    assert len(own_sink.spans_of(*map(id_of, ids))) == 3 * len(ids)


def test_registered_scorers_come_and_go_while_it_runs(
    settings: Settings, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    settings.configure("tool_errors")
    store = settings.folder / "store.db"
    with open_database(store) as database:
        registrations = Registrations(database)
        registrations.put("mine", Definition(str(settings.scorer)))
        registrations.schedule("mine", lambda _: (1.0, None))
        sidecar = start("-c", str(settings.config), "--store", str(store))
        sidecar.send(small_trace(1))
        own_sink.wait_for_scores(2, id_of(1))

        registrations.schedule("mine", lambda _: (0.0, None))
        sidecar.wait_for_log_times(TAKEN, 1)
        sidecar.send(small_trace(2))
        own_sink.wait_for_scores(1, id_of(2))
        settings.says("again")
        registrations.schedule("mine", lambda _: (1.0, None))
        sidecar.wait_for_log_times(TAKEN, 2)
        sidecar.send(small_trace(3))
        own_sink.wait_for_scores(2, id_of(3))
    settings.scorer.unlink()
    reload(sidecar)
    sidecar.send(small_trace(4))
    own_sink.wait_for_scores(1, id_of(4))

    assert sidecar.stop() == 0
    assert "A registered scorer is left out" in sidecar.log
    assert values(own_sink, 1, 2, 3, 4) == Counter([
        *((trace, "tool_errors", True) for trace in (1, 2, 3, 4)),
        (1, "mine", "one"),
        (3, "mine", "again"),
    ])  # fmt: skip


def test_a_registered_filter_that_cannot_be_used_here_leaves_out_its_scorer_only(
    settings: Settings, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    settings.configure("tool_errors")
    store = settings.folder / "store.db"
    with open_database(store) as database:
        registrations = Registrations(database)
        for name, wanted in (("filtered", "status = 'OK'"), ("plain", None)):
            registrations.put(name, Definition(str(settings.scorer)))

            def always(_: object, wanted: str | None = wanted) -> tuple[float, str | None]:
                return 1.0, wanted

            registrations.schedule(name, always)
        environment = without_filters(settings.folder)
        sidecar = start("-c", str(settings.config), "--store", str(store), environment=environment)
        sidecar.send(small_trace(1))
        own_sink.wait_for_scores(2, id_of(1))

        registrations.schedule("filtered", lambda _: (1.0, None))
        sidecar.wait_for_log_times(TAKEN, 1)
        sidecar.send(small_trace(2))
        own_sink.wait_for_scores(3, id_of(2))

    assert sidecar.stop() == 0
    assert "A registered scorer is left out: Scorer 'filtered' has a filter, which needs the extra" in sidecar.log
    assert "pip install 'otel-scorer[filters]'" in sidecar.log
    assert {name for _, name, _ in values(own_sink, 1)} == {"tool_errors", "plain"}
