"""
The configuration: every key of `otel-scorer.yaml`, its default and what it does.

Defaults of the service live here only.
`config/otel-scorer.yaml` is generated from these classes (see `sample`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from otel_scorer.config.dialects import DialectSettings
from otel_scorer.config.emission import ScoreLogs, ScoreMetrics, ScoreSpans
from otel_scorer.config.exporters import Exporter, Exporters, OtlpExporter, takes
from otel_scorer.config.keeping import Rule, refuse_parts
from otel_scorer.config.memory import MemorySettings
from otel_scorer.config.native import NativeExporter
from otel_scorer.config.presets import PresetName  # noqa: TC001 - pydantic evaluates the annotations
from otel_scorer.config.quantities import OFF, ByteSize, Duration
from otel_scorer.config.receivers import Receivers
from otel_scorer.config.scoring import ScorerSettings, ScoringSettings
from otel_scorer.config.section import Empty, Section
from otel_scorer.config.telemetry import TelemetrySettings
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, LatePolicy, Trigger
from otel_scorer.pipeline.keeping.rules import KeepRule
from otel_scorer.pipeline.keeping.triage import COUNT_ATTRIBUTE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AssemblySettings",
    "Config",
    "Emit",
    "Forwarding",
]

Emit: TypeAlias = Literal["evaluation_span", "attributes", "events", "logs", "metrics", "native"]
Forwarding: TypeAlias = Literal["passthrough", "hold_root", "hold_trace"]

_LIMITS: Final = AssemblyLimits()
_MATCH: Final = re.compile(r"\s*([^\s=]+)\s*=\s*(.+?)\s*")
_HIDDEN: Final = "***"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


class AssemblySettings(Section):
    """When a trace is complete."""

    trigger: str = Field(
        default=_LIMITS.trigger.value,
        description="What starts the countdown: root, auto (a root, else a local root), local_root (each of them, "
        "and each is scored on its own), or a span with an attribute, such as "
        "'gen_ai.operation.name = invoke_agent'.",
    )
    root_grace: Duration = Field(
        default=_LIMITS.root_grace, description="A trace with a root closes after this much quiet."
    )
    root_cap: Duration = Field(default=_LIMITS.root_cap, description="The longest that arrivals extend root_grace.")
    local_root_grace: Duration = Field(
        default=_LIMITS.local_root_grace,
        description="Quiet time when there is only a local root: a span with a remote parent.",
    )
    idle_timeout: Duration = Field(default=_LIMITS.idle_timeout, description="Quiet time when there is neither.")
    max_age: Duration = Field(
        default=_LIMITS.max_age, gt=0, description="The longest a trace stays open, from its first span."
    )
    max_traces: int = Field(
        default=_LIMITS.max_traces, ge=1, description="Open traces; beyond, heavy old ones close early."
    )
    max_spans_per_trace: int = Field(
        default=_LIMITS.max_spans_per_trace,
        ge=1,
        description="A trace with this many spans closes; later ones are forwarded.",
    )
    max_bytes_per_trace: ByteSize = Field(default=_LIMITS.max_bytes_per_trace, description="The same, by size.")
    late_spans: Literal["ignore", "rescore"] = Field(
        default="ignore",
        description="Spans that come after their trace was scored are forwarded and counted. ignore: nothing else. "
        "rescore: the whole trace is scored again (revision 2 and so on).",
    )
    rescore_window: Duration = Field(
        default=_LIMITS.rescore_window, description="How long after its first score a trace can be scored again."
    )
    rescore_memory: ByteSize = Field(
        default=_LIMITS.rescore_memory,
        description="Memory for traces that can be; those that were scored the longest ago go first.",
    )

    @field_validator("trigger")
    @classmethod
    def _check_trigger(cls, value: str) -> str:
        named = {Trigger.AUTO, Trigger.ROOT, Trigger.LOCAL_ROOT}
        if value not in named and not _MATCH.fullmatch(value):
            raise PydanticCustomError("trigger", "must be auto, root, local_root or 'attribute = value'")
        return value

    @property
    def match(self) -> tuple[str, str] | None:
        """The attribute and value of a span that starts the countdown, if `trigger` is such a match."""
        if self.trigger in set(Trigger):
            return None
        found = _MATCH.fullmatch(self.trigger)
        return None if found is None else (found[1], found[2])

    @property
    def limits(self) -> AssemblyLimits:
        """The same for the assembler."""
        return AssemblyLimits(
            trigger=Trigger.MATCH if self.match else Trigger(self.trigger),
            root_grace=self.root_grace,
            root_cap=self.root_cap,
            local_root_grace=self.local_root_grace,
            idle_timeout=self.idle_timeout,
            max_age=self.max_age,
            max_traces=self.max_traces,
            max_spans_per_trace=self.max_spans_per_trace,
            max_bytes_per_trace=self.max_bytes_per_trace,
            late_spans=LatePolicy(self.late_spans),
            rescore_window=self.rescore_window,
            rescore_memory=self.rescore_memory,
        )


class Spool(Section):
    """Requests on disk until everything in them is scored and sent."""

    directory: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of the spool, for one sidecar alone. null: what is acknowledged is in memory only.",
    )
    max_size: ByteSize = Field(
        default=10 << 30,
        ge=1 << 20,
        description="When full, new requests are refused with a hint when to retry; one that is larger, for good.",
    )
    synchronous: Literal["normal", "full"] = Field(
        default="normal", description="normal survives a killed process, full a power loss too."
    )


def _default_emit() -> list[Emit]:
    return ["evaluation_span"]


def _default_exporters() -> dict[str, Exporter]:
    return {"otlp": OtlpExporter()}


class Config(Section):
    """All of `otel-scorer.yaml`."""

    receivers: Receivers = Field(default_factory=Receivers, description="Where spans come from.")
    assembly: AssemblySettings = Field(default_factory=AssemblySettings, description="When a trace is complete.")
    dialects: DialectSettings = Field(
        default_factory=DialectSettings, description="What spans mean, beyond the vocabularies that are built in."
    )
    scoring: ScoringSettings = Field(default_factory=ScoringSettings, description="How scorers are run.")
    scorers: Annotated[list[ScorerSettings], Empty] = Field(
        default_factory=list[ScorerSettings],
        description="What is scored. A plain reference stands for {use: REFERENCE}.",
    )
    emit: list[Emit] = Field(
        default_factory=_default_emit,
        min_length=1,
        description="How verdicts go out, together: evaluation_span, attributes or events on the scored span "
        "(these two need a hold), logs, metrics, and native: over the score APIs among the exporters.",
    )
    score_spans: ScoreSpans = Field(default_factory=ScoreSpans, description="With emit: evaluation_span.")
    score_logs: ScoreLogs = Field(default_factory=ScoreLogs, description="With emit: logs.")
    score_metrics: ScoreMetrics = Field(default_factory=ScoreMetrics, description="With emit: metrics.")
    explanations: Literal["stack_traces", "full", "capped", "off"] = Field(
        default="full",
        description="Explanations may quote user data: full, capped (shortened) or off. stack_traces: full, and "
        "errors with their stack trace.",
    )
    forwarding: Forwarding = Field(
        default="passthrough",
        description="passthrough: spans go on at once. hold_root: the root waits for its verdicts. "
        "hold_trace: the whole trace waits.",
    )
    hold_deadline: Duration = Field(
        default=5.0, description="The longest that spans wait for verdicts once their trace is closed."
    )
    keep: Rule | None = Field(
        default=None,
        description="With hold_trace: which traces are sent on, such as any_failed or sample(0.05). null: all.",
    )
    keep_count_attribute: str = Field(
        default=COUNT_ATTRIBUTE,
        min_length=1,
        description="With keep, on every span: how many traces it stands for, 1 or the inverse of the sampled share.",
    )
    exporters: Exporters = Field(
        default_factory=_default_exporters,
        description="Where everything goes: otlp, otlp/NAME, console, file/NAME: {path: FILE}. Several are possible. "
        "phoenix, mlflow and langfuse take scores alone, with emit: native.",
    )
    spool: Spool = Field(
        default_factory=Spool,
        description="Requests on disk until everything in them is scored and sent.",
    )
    store: str | None = Field(
        default=None,
        description="File that keeps scored traces and verdicts; scorers that are registered in it run too. "
        "null: nothing is kept.",
    )
    store_max_size: ByteSize = Field(
        default=10 << 30, description="What the store may take: then the oldest traces that were scored live go."
    )
    preset: PresetName | None = Field(
        default=None,
        description="Fills in what suits a backend and is not set here: phoenix, mlflow, langfuse, tempo, jaeger, "
        "datadog, clickhouse, azure, generic.",
    )
    memory: MemorySettings = Field(default_factory=MemorySettings, description="What the process may use.")
    telemetry: TelemetrySettings = Field(
        default_factory=TelemetrySettings, description="What otel_scorer says about itself."
    )
    drain_timeout: Duration = Field(
        default=15.0,
        gt=0,
        description="How long SIGTERM waits for the last verdicts, and again for sending what is queued.",
    )
    _secret: frozenset[tuple[int | str, ...]] = PrivateAttr(default_factory=frozenset[tuple["int | str", ...]])

    @field_validator("scorers", mode="before")
    @classmethod
    def _plain_references(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        return [{"use": item} if isinstance(item, str) else item for item in cast("list[object]", value)]

    @field_validator("emit")
    @classmethod
    def _check_emit(cls, value: list[Emit]) -> list[Emit]:
        return list(dict.fromkeys(value))

    @field_validator("exporters")
    @classmethod
    def _check_exporters(cls, value: Exporters) -> Exporters:
        if all(isinstance(exporter, NativeExporter) for exporter in value.values()):
            raise PydanticCustomError("exporters", "needs at least one destination for spans, such as console: {}")
        return value

    @model_validator(mode="after")
    def _refuse_late_verdicts(self) -> Self:
        on_span = sorted({"attributes", "events"} & set(self.emit))
        if on_span and self.forwarding == "passthrough":
            raise PydanticCustomError(
                "emit",
                "emit: {on_span} need the span to wait for its verdicts: set forwarding to hold_root or hold_trace, "
                "or emit evaluation_span",
                {"on_span": " and ".join(on_span)},
            )
        return self

    @model_validator(mode="after")
    def _refuse_keeping_parts(self) -> Self:
        if self.keep is not None:
            refuse_parts(self.forwarding, self.assembly.trigger)
        return self

    @model_validator(mode="after")
    def _refuse_verdicts_without_a_way(self) -> Self:
        for kind in ("logs", "metrics"):
            if kind in self.emit and not any(takes(exporter, kind) for exporter in self.exporters.values()):
                raise PydanticCustomError(
                    "emit",
                    "emit: no exporter takes {kind}: set {kind}_endpoint of one of them, or leave {kind} out",
                    {"kind": kind},
                )
        natives = [key for key, exporter in self.exporters.items() if isinstance(exporter, NativeExporter)]
        if "native" in self.emit and not natives:
            raise PydanticCustomError("emit", "emit: native needs a score API among the exporters, such as phoenix: {}")
        if natives and "native" not in self.emit:
            raise PydanticCustomError(
                "emit", "exporters.{key} takes scores alone and gets none: add native to emit", {"key": natives[0]}
            )
        return self

    @model_validator(mode="after")
    def _refuse_loops(self) -> Self:
        protocols = self.receivers.otlp.protocols
        if protocols.grpc.endpoint == protocols.http.endpoint == OFF:
            raise PydanticCustomError("receivers", "receivers: grpc and http are both off, so nothing can arrive")
        for address in (protocols.grpc.endpoint, protocols.http.endpoint):
            for key, exporter in self.exporters.items():
                if isinstance(exporter, OtlpExporter) and _same_address(address, exporter.endpoint):
                    raise PydanticCustomError(
                        "loop",
                        "exporters.{key}.endpoint: this process listens on {address}, so it would send to itself",
                        {"key": key, "address": address},
                    )
        return self

    def with_secrets(self, paths: Iterable[tuple[int | str, ...]]) -> Config:
        """Return a copy that hides these settings in `dump`: something secret may have been filled in there."""
        copy = self.model_copy()
        copy._secret = frozenset(paths)  # noqa: SLF001 - of the same class
        return copy

    def dump(self) -> dict[str, Any]:
        """Return all settings as plain data to be shown: header values and what came from `${...}` are hidden."""
        shown = self.model_dump(mode="json")
        for path in self._secret:
            _hide(shown, path)
        return shown

    def __repr__(self) -> str:
        return f"Config({self.dump()})"

    __str__ = __repr__

    @property
    def remarks(self) -> list[str]:
        """What is allowed but probably not meant, one sentence each."""
        found: list[str] = []
        if not self.scorers and self.store is None:
            found.append("no scorers: spans are forwarded and nothing is scored")
            if self.keep is not None and KeepRule(self.keep).asks_scorers:
                found.append("keep: there are no scorers, so no verdict keeps a trace")
        protocols = self.receivers.otlp.protocols
        for name, receiver in (("grpc", protocols.grpc), ("http", protocols.http)):
            host = receiver.endpoint.rpartition(":")[0].strip("[]").lower()
            if receiver.endpoint == OFF or host in _LOOPBACK:
                continue
            if receiver.auth.credentials is not None and receiver.tls.files is None:
                found.append(f"{name}: tokens and passwords travel in plain text, as there is no tls")
        return found


def _hide(shown: Any, path: tuple[int | str, ...]) -> None:
    """Replace what stands at `path`, or the deepest part of it that is there."""
    *way, last = path
    for step in way:
        try:
            shown = shown[step]
        except (KeyError, IndexError, TypeError):
            return
    shown[last] = _HIDDEN


def _same_address(listening: str, endpoint: str) -> bool:
    host, _, port = listening.rpartition(":")
    parts = urlsplit(endpoint)
    if listening == OFF or port == "0" or str(parts.port) != port:
        return False
    host, other = host.strip("[]").lower(), (parts.hostname or "").lower()
    return host == other or (host in _LOCAL_HOSTS and other in _LOCAL_HOSTS)
