"""Phoenix, MLflow, Jaeger and Tempo as their makers ship them, and where each shows verdicts."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from tests.backends.servers import ask, free_port, installed, running, wait_until

SERVICE = "travel-demo"
LABELS = {"pass": True, "fail": False}


class Verdict(NamedTuple):
    """
    What a backend says of one verdict.

    Attributes:
        name: What was judged.
        passed: As it is shown there; None where it is neither.
    """

    name: str
    passed: bool | None


class Backend(Protocol):
    """
    A server that runs.

    Attributes:
        name: Also the name of the preset.
        url: Takes OTLP, and scores if it has an API for them.
        searches: Filters of the documentation that find traces whose `tool_errors` is bad, and who to ask with them.
    """

    name: str
    url: str
    searches: Mapping[str, Callable[[str], set[str]]]

    def has(self, trace: str) -> bool:
        """Return whether a trace is there."""
        ...

    def scores(self, trace: str) -> list[Verdict]:
        """Return the scores of a trace that the backend knows to be scores, sorted; of an unknown trace, none."""
        ...

    def evaluations(self, trace: str) -> list[Verdict]:
        """Return what the evaluation spans of a trace say, sorted; of an unknown trace, nothing."""
        ...


class Phoenix:
    name = "phoenix"
    shown = r"tool_errors[^A-Za-z]*0\.00"

    def __init__(self, url: str) -> None:
        self.url = url
        self._project = f"{url}/v1/projects/default"
        self.searches: Mapping[str, Callable[[str], set[str]]] = {
            "trace_annotations['tool_errors'].score < 0.5": self._traces,
            "span_kind == 'EVALUATOR' and name == 'evaluation tool_errors' and"
            " attributes['gen_ai']['evaluation']['score']['label'] == 'fail'": self._spans,
        }

    def has(self, trace: str) -> bool:
        return bool(_list(f"{self._project}/spans?trace_id={trace}", "data"))

    def scores(self, trace: str) -> list[Verdict]:
        found = _list(f"{self._project}/trace_annotations?trace_ids={trace}&limit=1000", "data")
        return _sorted(Verdict(each["name"], LABELS.get(each["result"].get("label"))) for each in found)

    def evaluations(self, trace: str) -> list[Verdict]:
        found = _list(f"{self._project}/spans?trace_id={trace}&span_kind=EVALUATOR&limit=1000", "data")
        return _sorted(_verdict(each["attributes"]) for each in found)

    def page(self, trace: str) -> str:
        return f"{self.url}/projects/{self._id()}/traces/{trace}"

    def _id(self) -> str:
        [project] = [each["id"] for each in ask(f"{self.url}/v1/projects")["data"] if each["name"] == "default"]
        return str(project)

    def _traces(self, condition: str) -> set[str]:
        return {each["trace_id"] for each in _list(f"{self._project}/traces?filter={quote(condition)}", "data")}

    def _spans(self, condition: str) -> set[str]:
        # What its page of spans asks.
        query = """query ($project: ID!, $filter: String!) { node(id: $project) { ... on Project {
            spans(first: 1000, filterCondition: $filter) { edges { node { trace { traceId } } } } } } }"""
        answer = ask(f"{self.url}/graphql", {"query": query, "variables": {"project": self._id(), "filter": condition}})
        assert "errors" not in answer, answer
        return {each["node"]["trace"]["traceId"] for each in answer["data"]["node"]["spans"]["edges"]}


class Mlflow:
    name = "mlflow"
    shown = r"tool_errors[\s\S]*(False|Fail)"

    def __init__(self, url: str) -> None:
        self.url = url
        self._api = f"{url}/api/3.0/mlflow/traces"
        self.searches: Mapping[str, Callable[[str], set[str]]] = {
            "feedback.tool_errors = 'false'": self._search,
            "span.name = 'evaluation tool_errors' AND span.attributes.gen_ai.evaluation.score.label LIKE '%fail%'": (
                self._search
            ),
        }

    def has(self, trace: str) -> bool:
        return bool(_list(f"{self._api}/get?trace_id=tr-{trace}", "trace", "spans"))

    def scores(self, trace: str) -> list[Verdict]:
        found = _list(f"{self._api}/tr-{trace}", "trace", "trace_info", "assessments")
        values = ((each["assessment_name"], each["feedback"].get("value")) for each in found)
        return _sorted(Verdict(name, value if isinstance(value, bool) else None) for name, value in values)

    def evaluations(self, trace: str) -> list[Verdict]:
        found = _list(f"{self._api}/get?trace_id=tr-{trace}", "trace", "spans")
        attributes = ({each["key"]: each["value"].get("string_value") for each in span["attributes"]} for span in found)
        return _sorted(_verdict(each) for each in attributes if "gen_ai.evaluation.name" in each)

    def page(self, trace: str) -> str:
        del trace  # its score is a cell in the table of all traces
        return f"{self.url}/#/experiments/0/traces"

    def _search(self, condition: str) -> set[str]:
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
        answer = ask(f"{self._api}/search", {"locations": [place], "filter": condition, "max_results": 500})
        return {each["trace_id"].removeprefix("tr-") for each in answer.get("traces", [])}


class Jaeger:
    name = "jaeger"

    def __init__(self, url: str, query: str) -> None:
        self.url = url
        self._query = query
        self.searches: Mapping[str, Callable[[str], set[str]]] = {
            "gen_ai.evaluation.name=tool_errors gen_ai.evaluation.score.label=fail": self._search
        }

    def has(self, trace: str) -> bool:
        return bool(self.spans(trace))

    def scores(self, trace: str) -> list[Verdict]:
        return self.evaluations(trace)

    def spans(self, trace: str) -> list[dict[str, Any]]:
        """Return all spans of a trace."""
        return [span for each in _list(f"{self._query}/api/traces/{trace}", "data") for span in each["spans"]]

    def evaluations(self, trace: str) -> list[Verdict]:
        attributes = ({tag["key"]: tag["value"] for tag in span["tags"]} for span in self.spans(trace))
        return _sorted(_verdict(each) for each in attributes if "gen_ai.evaluation.name" in each)

    def _search(self, tags: str) -> set[str]:
        # Its page makes this of what is typed.
        pairs = dict(each.split("=") for each in tags.split())
        asked = urlencode({"service": SERVICE, "tags": json.dumps(pairs), "limit": 1000, "lookback": "1h"})
        return {each["traceID"] for each in _list(f"{self._query}/api/traces?{asked}", "data")}


class Tempo:
    name = "tempo"

    def __init__(self, url: str, query: str) -> None:
        self.url = url
        self._query = query
        self._known: dict[str, int] = {}
        bad = '{ span.gen_ai.evaluation.name = "tool_errors" && span.gen_ai.evaluation.score.label = "fail" }'
        self.searches: Mapping[str, Callable[[str], set[str]]] = {
            bad: self.search,
            f"{{ nestedSetParent < 0 }} &>> {bad}": self.search,
        }

    def has(self, trace: str) -> bool:
        return bool(self.spans(trace))

    def scores(self, trace: str) -> list[Verdict]:
        return self.evaluations(trace)

    def spans(self, trace: str) -> list[dict[str, Any]]:
        """Return all spans of a trace."""
        # While it moves a trace from memory into a block it has, for a moment, less of it than it said before.
        found = wait_until(partial(self._spans, trace), lambda spans: len(spans) >= self._known.get(trace, 0))
        self._known[trace] = len(found)
        return found

    def _spans(self, trace: str) -> list[dict[str, Any]]:
        batches = _list(f"{self._query}/api/traces/{trace}", "batches")
        return [span for batch in batches for scope in batch["scopeSpans"] for span in scope["spans"]]

    def evaluations(self, trace: str) -> list[Verdict]:
        spans = self.spans(trace)
        attributes = [
            {each["key"]: each["value"].get("stringValue") for each in span.get("attributes", [])} for span in spans
        ]
        return _sorted(_verdict(each) for each in attributes if "gen_ai.evaluation.name" in each)

    def search(self, query: str) -> set[str]:
        """Return the traces of the last hour that a TraceQL query finds."""
        asked = urlencode({"q": query, "limit": 1000, **self._last_hour()})
        # It leaves zeros out in front.
        return {each["traceID"].zfill(32) for each in _list(f"{self._query}/api/search?{asked}", "traces")}

    def metrics(self, query: str) -> dict[str, list[float]]:
        """Return what a TraceQL metrics query says of the last hour, by the value of its label; zeros are left out."""
        asked = urlencode({"q": query, "step": "60s", **self._last_hour()})
        found: dict[str, list[float]] = {}
        for series in _list(f"{self._query}/api/metrics/query_range?{asked}", "series"):
            [label] = [each["value"]["stringValue"] for each in series["labels"]]
            found[label] = [sample["value"] for sample in series["samples"] if "value" in sample]
        return found

    def _last_hour(self) -> dict[str, int]:
        now = int(time.time())
        return {"start": now - 3600, "end": now + 60}


@contextmanager
def phoenix(folder: Path) -> Iterator[Phoenix]:
    program, port = installed("phoenix"), free_port()
    environment = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    with running([program, "serve"], environment, folder, f"http://127.0.0.1:{port}/healthz"):
        yield Phoenix(f"http://127.0.0.1:{port}")


@contextmanager
def mlflow(folder: Path) -> Iterator[Mlflow]:
    program, port = installed("mlflow"), free_port()
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [
        program,
        "server",
        "--backend-store-uri",
        "sqlite:///mlflow.db",
        "--default-artifact-root",
        "./artifacts",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with running(command, environment, folder, f"http://127.0.0.1:{port}/health"):
        yield Mlflow(f"http://127.0.0.1:{port}")


@contextmanager
def jaeger(folder: Path) -> Iterator[Jaeger]:
    program, otlp, query = installed("jaeger"), f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    config = {
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10_000}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": {"endpoint": query},
                "grpc": {"endpoint": f"127.0.0.1:{free_port()}"},
            },
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": otlp}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    file = folder / "jaeger.yaml"
    # Every JSON document is a YAML document.
    file.write_text(json.dumps(config), encoding="utf-8")
    with running([program, "--config", str(file)], {}, folder, f"http://{query}/api/services"):
        yield Jaeger(f"http://{otlp}", f"http://{query}")


@contextmanager
def tempo(folder: Path) -> Iterator[Tempo]:
    program, otlp, query = installed("tempo"), f"127.0.0.1:{free_port()}", free_port()
    alone = {"kvstore": {"store": "inmemory"}, "instance_addr": "127.0.0.1"}
    inner = free_port()
    config = {
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": query,
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": inner,
        },
        "usage_report": {"reporting_enabled": False},
        "memberlist": {"bind_addr": ["127.0.0.1"], "bind_port": free_port()},
        "distributor": {"ring": alone, "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": otlp}}}}},
        "ingester": {
            "trace_idle_period": "1s",
            "flush_check_period": "1s",
            "lifecycler": {
                "address": "127.0.0.1",
                "min_ready_duration": "0s",
                "ring": {"kvstore": {"store": "inmemory"}, "replication_factor": 1},
            },
        },
        "compactor": {"ring": alone},
        "querier": {"frontend_worker": {"frontend_address": f"127.0.0.1:{inner}"}},
        # What the page on Tempo says of it.
        "metrics_generator": {
            "ring": alone,
            "storage": {"path": str(folder / "generator" / "wal")},
            "traces_storage": {"path": str(folder / "generator" / "traces")},
            "processor": {
                "local_blocks": {
                    "filter_server_spans": False,
                    "flush_to_storage": True,
                    "trace_idle_period": "1s",
                    "flush_check_period": "1s",
                }
            },
        },
        "overrides": {"defaults": {"metrics_generator": {"processors": ["local-blocks"]}}},
        "storage": {
            "trace": {
                "backend": "local",
                "wal": {"path": str(folder / "wal")},
                "local": {"path": str(folder / "blocks")},
            }
        },
    }
    file = folder / "tempo.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    with running([program, f"-config.file={file}"], {}, folder, f"http://127.0.0.1:{query}/ready"):
        yield Tempo(f"http://{otlp}", f"http://127.0.0.1:{query}")


SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[Backend]]] = {
    "phoenix": phoenix,
    "mlflow": mlflow,
    "jaeger": jaeger,
    "tempo": tempo,
}


def _list(url: str, *path: str) -> list[Any]:
    """Return the list at this place in the JSON of an address; of what is not there, an empty one."""
    try:
        found = ask(url)
    except urllib.error.HTTPError as error:
        with error:
            assert error.code == 404, error.read()  # noqa: PT017 - not what is tested
        return []
    for key in path[:-1]:
        found = found[key]
    return list(found.get(path[-1], []))


def _verdict(attributes: Mapping[str, Any]) -> Verdict:
    label = str(attributes.get("gen_ai.evaluation.score.label"))
    return Verdict(str(attributes["gen_ai.evaluation.name"]), LABELS.get(label))


def _sorted(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return sorted(verdicts, key=str)
