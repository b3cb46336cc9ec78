"""The sidecar's configuration, read for an application: which of it counts there, and the SDK's exporters for it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_scorer.config.exporters import ConsoleExporter, FileExporter, OtlpExporter
from otel_scorer.config.native import NativeExporter
from otel_scorer.config.reading import load_config
from otel_scorer.errors import ConfigError
from otel_scorer.model.wire import Signal
from otel_scorer.transport.endpoints import Protocol, choose_protocol, signal_url
from otel_scorer.transport.file_sender import ConsoleSender, FileSender

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import grpc
    import requests
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_scorer.config.exporters import SpanExporter as Places
    from otel_scorer.config.model import Config
    from otel_scorer.pipeline.verdicts.sinks import VerdictOutlets
    from otel_scorer.scorers.loading import ScorerSpec
    from otel_scorer.transport.exchange import Sender, TlsFiles

__all__ = ["AppSettings", "app_settings", "environment_outlets", "otlp_exporter"]

logger = logging.getLogger(__name__)

_SEND_TIMEOUT: Final = 10.0
_OTLP: Final = "OTEL_EXPORTER_OTLP_"
_GROUP: Final = "opentelemetry_traces_exporter"
_ENTRY_POINTS: Final = {Protocol.GRPC: "otlp_proto_grpc", Protocol.HTTP_PROTOBUF: "otlp_proto_http"}
# These are as in the application where the file is silent.
_OWN_DEFAULTS: Final = ("emit", "forwarding")
_PLAIN: Final = ("explanations", "hold_deadline", "store")
_ASSEMBLY: Final = ("root_cap", "max_age", "max_traces", "max_spans_per_trace", "max_bytes_per_trace")
_SCORING: Final = ("timeout", "concurrency", "trace_scorers")
# What a trace waits for is no matter of taste where its spans are counted, and late ones are exported as they are.
_SIDECAR_ALONE: Final = ("trigger", "local_root_grace", "late_spans", "rescore_window", "rescore_memory")
_GRACES: Final = ("root_grace", "idle_timeout")


@dataclass(frozen=True, slots=True)
class AppSettings:
    """
    What a configuration file says to an application.

    Attributes:
        scorers: References with their options.
        options: Arguments of `ScoringSpanProcessor`.
        graces: When traces close where nobody counts: `root_grace` and `idle_timeout`, in seconds.
        exporter: Makes what the file, or else the environment, says about where to export to.
    """

    scorers: list[ScorerSpec]
    options: dict[str, Any]
    graces: dict[str, float]
    exporter: Callable[[], SpanExporter]


def app_settings(path: str | Path, environ: Mapping[str, str] | None = None) -> AppSettings:
    """
    Read a configuration file for an application.

    Args:
        path: The YAML file.
        environ: The environment; by default the one of this process.

    Raises:
        ConfigError: Something in it cannot be used; the message names the setting and its line.
    """
    environ = os.environ if environ is None else environ
    # Where the sidecar listens has no meaning here, so spans may well be sent to such an address.
    nowhere = {f"receivers.otlp.protocols.{name}.endpoint": "127.0.0.1:0" for name in ("grpc", "http")}
    others = {name: value for name, value in environ.items() if not name.startswith(_OTLP)}
    config = load_config(path, overrides=nowhere, environ=others)
    options: dict[str, Any] = {name: getattr(config, name) for name in _OWN_DEFAULTS if name in config.model_fields_set}
    options |= {name: getattr(config, name) for name in _PLAIN}
    options |= {name: getattr(config.assembly, name) for name in _ASSEMBLY}
    options |= {name: getattr(config.scoring, name) for name in _SCORING}
    options["outlets"] = partial(_outlets, config, environ)
    if config.keep is not None:
        logger.warning("keep is for the sidecar: the application exports every trace")
    if config.score_spans.duration:
        logger.warning("score_spans.duration is for the sidecar: evaluation spans of the application last no time")
    given = config.assembly.model_fields_set
    if idle := [f"assembly.{name}" for name in _SIDECAR_ALONE if name in given]:
        logger.warning(
            "%s: for the sidecar alone; in the application each local root is scored once, with its last span",
            ", ".join(idle),
        )
    if "dialects" in config.model_fields_set:
        options["dialects"] = path
    return AppSettings(
        [scorer.spec for scorer in config.scorers],
        options,
        {name: getattr(config.assembly, name) for name in _GRACES},
        lambda: _exporter_of(config, environ),
    )


def environment_outlets(emit: Collection[str]) -> VerdictOutlets:
    """
    Return what sends verdicts beside spans to where `OTEL_EXPORTER_OTLP_*` says.

    Raises:
        ConfigError: That cannot be used, or there is no place for one of the kinds.
    """
    from otel_scorer.config.score_outlets import ScoreOutlets, exporters_of_environment

    return ScoreOutlets(exporters_of_environment(), emit)


def _outlets(config: Config, environ: Mapping[str, str], emit: Collection[str]) -> VerdictOutlets:
    from otel_scorer.config.score_outlets import ScoreOutlets, exporters_of_environment

    if "exporters" not in config.model_fields_set:
        config = config.model_copy(update={"exporters": exporters_of_environment(environ).exporters})
    return ScoreOutlets(config, emit)


def otlp_exporter(environ: Mapping[str, str], **given: Any) -> SpanExporter:
    """
    Return the OTLP exporter that the SDK would make for `OTEL_TRACES_EXPORTER=otlp`.

    Args:
        environ: The environment; the exporter itself reads the one of the process.
        given: `protocol`, and arguments for the exporter (`endpoint`, `headers`, `timeout` in seconds), which win.

    Raises:
        ConfigError: No such protocol, or its exporter is not installed.
    """
    protocol = given.pop("protocol", None)
    endpoint = given.get("endpoint")
    if protocol is None:
        protocol = (environ.get(f"{_OTLP}TRACES_PROTOCOL") or environ.get(f"{_OTLP}PROTOCOL") or "").strip() or None
    if protocol is None:
        protocol = Protocol.GRPC if endpoint is None else choose_protocol(endpoint)
    name = _ENTRY_POINTS.get(cast("Protocol", protocol), "otlp_" + str(protocol).replace("/", "_"))
    for entry_point in entry_points(group=_GROUP, name=name):
        return cast("SpanExporter", entry_point.load()(**given))
    msg = f"{_OTLP}PROTOCOL: no exporter for {str(protocol)!r} is installed; known are {', '.join(Protocol)}"
    raise ConfigError(msg)


def _exporter_of(config: Config, environ: Mapping[str, str]) -> SpanExporter:
    if "exporters" not in config.model_fields_set:
        return otlp_exporter(environ)
    # Score APIs take no spans.
    made = [_sdk_exporter(each) for each in config.exporters.values() if not isinstance(each, NativeExporter)]
    return made[0] if len(made) == 1 else _Several(made)


def _sdk_exporter(exporter: Places) -> SpanExporter:
    match exporter:
        case ConsoleExporter():
            return _Sending(ConsoleSender())
        case FileExporter():
            return _Sending(FileSender(exporter.path))
        case OtlpExporter():
            return _otlp(exporter)


def _otlp(exporter: OtlpExporter) -> SpanExporter:
    # An endpoint without a scheme is plain text unless `tls` says otherwise, as in the sidecar; the SDK has it the
    # other way round.
    endpoint = exporter.url_of(exporter.endpoint)
    headers = {key: value.get_secret_value() for key, value in exporter.headers.items()}
    if choose_protocol(endpoint, exporter.protocol) is Protocol.GRPC:
        return _grpc(exporter, endpoint, headers)
    return _http(exporter, endpoint, headers)


def _grpc(exporter: OtlpExporter, endpoint: str, headers: dict[str, str]) -> SpanExporter:
    import grpc
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    tls = exporter.tls.files
    name = tls.server_name
    return OTLPSpanExporter(
        endpoint=endpoint,
        credentials=_credentials(tls),
        headers=headers,
        timeout=exporter.timeout,
        compression=grpc.Compression.Gzip if exporter.compression == "gzip" else grpc.Compression.NoCompression,
        channel_options=None if name is None else (("grpc.ssl_target_name_override", name),),
    )


def _credentials(tls: TlsFiles) -> grpc.ChannelCredentials | None:
    """Return what the files say; None: there are none, and the SDK goes by the environment."""
    import grpc

    from otel_scorer.transport.tls import client_context, read_pem

    files = (tls.ca, tls.key, tls.certificate)
    if not any(files):
        return None
    client_context(tls)  # gRPC would not say what is wrong with a file
    return grpc.ssl_channel_credentials(*(None if file is None else read_pem(file) for file in files))


def _http(exporter: OtlpExporter, endpoint: str, headers: dict[str, str]) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from otel_scorer.transport.tls import client_context

    tls = exporter.tls
    client_context(tls.files)  # the SDK would read them when it sends
    if tls.server_name_override is not None:
        logger.warning("tls.server_name_override: not over HTTP in the application, where the endpoint's name counts")
    return OTLPSpanExporter(
        endpoint=signal_url(endpoint, Signal.TRACES),
        session=None if tls.ca_file is None else _session_with_own_authority(),
        certificate_file=tls.ca_file,
        client_key_file=tls.key_file,
        client_certificate_file=tls.cert_file,
        headers=headers,
        timeout=exporter.timeout,
        compression=Compression.Gzip if exporter.compression == "gzip" else Compression.NoCompression,
    )


def _session_with_own_authority() -> requests.Session:
    """Return a session that keeps to the file it is given: `REQUESTS_CA_BUNDLE` would win over it."""
    import requests

    class Session(requests.Session):
        def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
            return {**super().merge_environment_settings(*args, **kwargs), "verify": self.verify}

    return Session()


class _Sending(SpanExporter):
    """Has one of our senders take what the SDK exports."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        self._sender.send(Signal.TRACES, encode_spans(spans).SerializeToString(), _SEND_TIMEOUT)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._sender.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        del timeout_millis
        return True


class _Several(SpanExporter):
    """One after the other; what one of them does wrong does not keep the others from it."""

    def __init__(self, exporters: Sequence[SpanExporter]) -> None:
        self._exporters = exporters

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        results = {_exported(exporter, spans) for exporter in self._exporters}
        return SpanExportResult.FAILURE if SpanExportResult.FAILURE in results else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        for exporter in self._exporters:
            exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return all(exporter.force_flush(timeout_millis) for exporter in self._exporters)


def _exported(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> SpanExportResult:
    try:
        return exporter.export(spans)
    except Exception:
        logger.exception("%s failed", type(exporter).__name__)
        return SpanExportResult.FAILURE
