"""`serve`, `check` and `demo`: what runs, or is about to run, on live traffic."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from otel_scorer.cli.arguments import ManyValues, many
from otel_scorer.cli.logs import start_logging

if TYPE_CHECKING:
    from otel_scorer.config import Config, Exporter, NativeExporter
    from otel_scorer.config.receivers import GrpcSettings, HttpSettings
    from otel_scorer.scorers.base import Scorer

__all__ = ["check", "demo", "serve"]

logger = logging.getLogger(__name__)

_MIB = 1 << 20
_FORWARDING = ("passthrough", "hold_root", "hold_trace")
_EMIT = ("evaluation_span", "attributes", "events", "logs", "metrics", "native")
# The settings that flags stand for.
_SETTINGS = {
    "grpc": "receivers.otlp.protocols.grpc.endpoint",
    "http": "receivers.otlp.protocols.http.endpoint",
    "forwarding": "forwarding",
    "root_grace": "assembly.root_grace",
    "idle_timeout": "assembly.idle_timeout",
    "hold_deadline": "hold_deadline",
    "keep": "keep",
    "workers": "scoring.workers",
    "spool": "spool.directory",
    "store": "store",
    "preset": "preset",
    "log_level": "telemetry.log_level",
    "log_format": "telemetry.log_format",
}


@click.command(cls=ManyValues)
@click.option("-c", "--config", "config_file", metavar="FILE", help="Configuration; flags win over it.")
@click.option("--grpc", metavar="HOST:PORT", help="Where to listen for OTLP/gRPC; port 0: any free one; or off.")
@click.option("--http", metavar="HOST:PORT", help="Where to listen for OTLP/HTTP, likewise.")
@many("--export", metavar="URL ...", help="Where to send everything: URLs, console, file:PATH.")
@click.option(
    "--export-protocol", type=click.Choice(["grpc", "http/protobuf"]), help="Instead of what the URL suggests."
)
@many("--scorers", metavar="REF ...", help="module:attribute, module, file.py, file.py:attribute, or a built-in.")
@many(
    "--emit",
    type=click.Choice(_EMIT),
    metavar="KIND ...",
    help="evaluation_span, attributes, events, logs, metrics, native.",
)
@click.option("--forwarding", type=click.Choice(_FORWARDING), help="What waits for verdicts.")
@click.option("--root-grace", type=float, metavar="SECONDS", help="A trace with a root closes after this much quiet.")
@click.option("--idle-timeout", type=float, metavar="SECONDS", help="A trace without a root closes after this much.")
@click.option("--hold-deadline", type=float, metavar="SECONDS", help="The longest that spans wait for verdicts.")
@click.option(
    "--keep", metavar="RULE", help="With hold_trace: which traces are sent on, as in 'any_failed or sample(0.05)'."
)
@click.option("--workers", type=int, metavar="N", help="Processes that run scorers.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="What is logged.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Lines for people, or one JSON object a line.")
@click.option("--preset", metavar="NAME", help="Settings that suit a backend: phoenix, mlflow, langfuse, tempo, ...")
@click.option("--spool", metavar="DIR", help="Keep there what is acknowledged until it is scored and sent.")
@click.option("--store", metavar="FILE", help="Keep traces and verdicts there, and run what is registered in it.")
@click.pass_context
def serve(ctx: click.Context, /, config_file: str | None, **flags: Any) -> None:
    """Receive OTLP, score complete traces, and forward everything with the verdicts."""
    config = _configuration(config_file, flags)
    start_logging(config.telemetry.log_level, config.telemetry.log_format)

    from otel_scorer import service

    logger.debug("Configuration: %s", config.dump())
    for remark in config.remarks:
        logger.warning("Configuration: %s", remark)
    ctx.exit(service.run(config, lambda: _configuration(config_file, flags)))


def _configuration(config_file: str | None, flags: dict[str, Any]) -> Config:
    from otel_scorer.config import exporters_from_urls, load_config

    overrides: dict[str, object] = {
        setting: flags[flag] for flag, setting in _SETTINGS.items() if flags.get(flag) is not None
    }
    if flags.get("scorers"):
        overrides["scorers"] = [{"use": reference} for reference in flags["scorers"]]
    if flags.get("emit"):
        overrides["emit"] = list(flags["emit"])
    protocol = flags.get("export_protocol")
    if flags.get("export"):
        overrides["exporters"] = exporters_from_urls(flags["export"], protocol)
    elif protocol is not None:
        overrides["exporters.otlp.protocol"] = protocol
    return load_config(config_file, overrides=overrides)


@click.command()
@click.option("-c", "--config", "config_file", metavar="FILE", help="The configuration to check.")
@click.option(
    "--defaults", is_flag=True, help="Print every setting with its default and what it does, and nothing else."
)
@click.option("--send", is_flag=True, help="Send a test span to every destination, and say what came of it.")
@click.pass_context
def check(ctx: click.Context, config_file: str | None, *, defaults: bool, send: bool) -> None:
    """Validate a configuration, import its scorers, and say what will be sent where."""
    from otel_scorer.config import check_scorers, generate_sample, load_config
    from otel_scorer.pipeline.running.selection import Selector
    from otel_scorer.scorers.loading import load_scorers
    from otel_scorer.service import check_files

    if defaults:
        click.echo(generate_sample(), nl=False)
        return
    if config_file is None:
        raise click.UsageError("Missing option '-c': which configuration?")
    config = load_config(config_file)
    remarks = check_files(config)
    scorers = load_scorers([scorer.spec for scorer in config.scorers])
    Selector(scorers, default_timeout=config.scoring.timeout)
    if config.store is None:
        check_scorers(config.keep, [scorer.name for scorer in scorers])
    for line in [*_description(config, scorers), *(f"note        {remark}" for remark in remarks)]:
        click.echo(line)
    if not send:
        click.echo("ok")
    elif not _send(config):
        ctx.exit(1)


def _send(config: Config) -> bool:
    """Try every destination and return whether all of them took what they were sent."""
    from otel_scorer.reporting.plain_text import printable
    from otel_scorer.service.send_check import try_destinations

    is_fine = True
    for attempt in try_destinations(config):
        is_fine &= attempt.is_taken
        outcome = "ok" if attempt.is_taken else "FAILED"
        click.echo(f"sent to     {attempt.destination}: {attempt.what}: {outcome}: {printable(attempt.message)}")
    click.echo("ok" if is_fine else "not everything was taken")
    return is_fine


def _description(config: Config, scorers: list[Scorer]) -> list[str]:
    protocols = config.receivers.otlp.protocols
    receivers = (("OTLP/gRPC", protocols.grpc), ("OTLP/HTTP", protocols.http))
    lines = [f"receives    {', '.join(_about_receiver(name, settings) for name, settings in receivers)}"]
    lines += _about_dialects(config)
    lines += [f"scores      {_about(scorer)}" for scorer in scorers]
    lines += _about_preset(config)
    lines.append(f"emits       {', '.join(config.emit)} (explanations: {config.explanations})")
    lines += _about_encodings(config)
    lines.append(f"forwards    {config.forwarding}{'' if config.keep is None else f', traces with {config.keep}'}")
    lines += [f"exports to  {name}: {_about_exporter(exporter)}" for name, exporter in config.exporters.items()]
    if config.store is not None:
        lines.append(f"keeps       scored traces in {config.store}, and runs what is registered there")
    lines += _about_limits(config)
    lines += [f"note        {remark}" for remark in config.remarks]
    lines += [
        f"note        {scorer.name} keeps state: one per worker process, lost when that ends, "
        f"so what it says depends on which traces a process has seen"
        for scorer in scorers
        if scorer.is_stateful
    ]
    return lines


def _about_limits(config: Config) -> list[str]:
    """Say how much memory and disk there may be in use."""
    from otel_scorer.config import format_bytes
    from otel_scorer.pipeline.workers.memory_use import available_memory

    available = available_memory()
    soft, hard = config.memory.limits(available)
    facts = [
        "no limit for requests" if soft is None else f"requests are refused over {_whole(soft)}",
        "no limit for traces" if hard is None else f"traces are scored early over {_whole(hard)}",
    ]
    worker = config.memory.worker_limit(available)
    if worker is not None:
        facts.append(f"a scorer worker may have {_whole(worker)}")
    lines = [f"memory      {', '.join(facts)} (of {_whole(available)})"]
    spool = config.spool
    if spool.directory is None:
        return [*lines, "spools      nothing: what is acknowledged is lost if the process is killed"]
    return [
        *lines,
        f"spools      to {spool.directory}, up to {format_bytes(spool.max_size)}, synchronous: {spool.synchronous}",
    ]


def _whole(size: int) -> str:
    """Return a share of the memory for people, who need no bytes."""
    from otel_scorer.config import format_bytes

    return format_bytes(size if size < _MIB else size // _MIB * _MIB)


def _about_receiver(name: str, settings: GrpcSettings | HttpSettings) -> str:
    credentials = settings.auth.credentials
    facts = {
        "TLS": settings.tls.cert_file is not None,
        "client certificates": settings.tls.client_ca_file is not None,
        "tokens": credentials is not None and bool(credentials.tokens or credentials.token_file),
        "passwords": credentials is not None and bool(credentials.users or credentials.user_file),
    }
    asked = ", ".join(fact for fact, holds in facts.items() if holds)
    return f"{name} {settings.endpoint}{f' ({asked})' if asked else ''}"


def _about_dialects(config: Config) -> list[str]:
    """Say what is understood of spans beyond what is built in. A dialect that is disabled must be there."""
    from otel_scorer.dialects import make_reader
    from otel_scorer.dialects.plugins import installed

    teaching = config.dialects.teaching
    used = {dialect.name for dialect in make_reader(teaching).dialects}
    lines = [f"reads       {name} from {', '.join(keys)}" for name, keys in teaching.attributes.items()]
    lines += [f"types       {rule.type} if {rule}" for rule in teaching.span_types]
    lines += [f"disables    {name}" for name in teaching.disabled]
    for plugin in installed():
        who = f"plugin {plugin.name} of {plugin.package}"
        lines += [f"speaks      {each.name} ({who})" for each in plugin.dialects if each.name in used]
        if plugin.problem is not None:
            which = "partly used" if plugin.dialects else "not used"
            lines.append(f"note        {who} is {which}: {plugin.problem}")
    return lines


def _about(scorer: Scorer) -> str:
    facts = [f"version {scorer.scorer_version}"]
    facts.append(f"every {' or '.join(scorer.span_types)} span" if scorer.span_types else "whole traces")
    if scorer.sample_rate < 1:
        facts.append(f"{scorer.sample_rate:.6g} of them")
    if scorer.filter is not None:
        facts.append(f"filter {scorer.filter}")
    if isinstance(scorer.pass_if, str):
        facts.append(f"passes if {scorer.pass_if}")
    return f"{scorer.name} ({', '.join(facts)})"


def _about_preset(config: Config) -> list[str]:
    from otel_scorer.config import PRESETS

    if config.preset is None:
        return []
    tried = PRESETS[config.preset].tried
    return [f"preset      {config.preset} ({f'tried with {tried}' if tried else 'not tried with the real thing'})"]


def _about_encodings(config: Config) -> list[str]:
    """Say what is not alike everywhere in how verdicts are written; with a preset this is what it chose."""
    from otel_scorer.config.quantities import format_duration

    lines: list[str] = []
    # Also what could not ride on its span any more.
    if {"evaluation_span", "attributes", "events"} & set(config.emit) and config.score_spans.duration:
        lines.append(f"spans       of verdicts last {format_duration(config.score_spans.duration)}")
    if "logs" in config.emit and config.score_logs.attributes:
        marks = ", ".join(f"{key}: {value}" for key, value in config.score_logs.attributes.items())
        lines.append(f"logs        of verdicts have {marks}")
    if "metrics" in config.emit:
        settings = config.score_metrics
        lines.append(f"metrics     of verdicts are {settings.temporality}, every {format_duration(settings.interval)}")
    return lines


def _about_exporter(exporter: Exporter) -> str:
    from otel_scorer.config import FileExporter, NativeExporter, OtlpExporter
    from otel_scorer.transport.addresses import shown_url
    from otel_scorer.transport.endpoints import choose_protocol

    if isinstance(exporter, FileExporter):
        return exporter.path
    if isinstance(exporter, NativeExporter):
        return _about_native(exporter)
    if not isinstance(exporter, OtlpExporter):
        return "standard output"
    url = exporter.url_of(exporter.endpoint)
    facts = [shown_url(url), str(choose_protocol(url, exporter.protocol))]
    if exporter.compression != "none":
        facts.append(exporter.compression)
    if exporter.tls.cert_file is not None:
        facts.append("client certificate")
    if exporter.headers:
        facts.append(f"headers {', '.join(sorted(exporter.headers))}")
    facts += [
        f"{name} {shown_url(endpoint)}"
        for name, endpoint in (("logs", exporter.logs_endpoint), ("metrics", exporter.metrics_endpoint))
        if endpoint != "same"
    ]
    if exporter.dead_letters is not None:
        facts.append(f"what is given up goes to {exporter.dead_letters}")
    return ", ".join(facts)


def _about_native(exporter: NativeExporter) -> str:
    from otel_scorer.transport.addresses import shown_url

    facts = [shown_url(exporter.endpoint), f"scores alone, as {exporter.what}"]
    headers = exporter.all_headers()
    facts.append(f"headers {', '.join(sorted(headers))}" if headers else "no credentials")
    facts.append(f"waits {exporter.trace_timeout:g} s for a trace")
    if exporter.dead_letters is not None:
        facts.append(f"what is given up goes to {exporter.dead_letters}")
    return ", ".join(facts)


@click.command()
@click.option("--traces", type=click.IntRange(min=1), default=6, show_default=True, help="Questions the agent answers.")
@click.option("--out", metavar="FILE", help="Everything that the demo's backend received, as OTLP JSON lines.")
@click.pass_context
def demo(ctx: click.Context, traces: int, out: str | None) -> None:
    """Watch live traces of a small agent being scored; needs no server, no key and no network."""
    from pathlib import Path

    from otel_scorer import demo as demonstration

    ctx.exit(demonstration.run(traces, None if out is None else Path(out)))
