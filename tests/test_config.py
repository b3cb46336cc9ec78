"""Settings: what is read from YAML, flags and the environment, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.config import (
    Config,
    ConsoleExporter,
    FileExporter,
    OtlpExporter,
    exporters_from_urls,
    format_bytes,
    format_duration,
    generate_sample,
    load_config,
    parse_bytes,
    parse_duration,
)
from otel_scorer.errors import ConfigError
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, Trigger

SAMPLE = Path(__file__).resolve().parent.parent / "config" / "otel-scorer.yaml"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load_text(text: str, environ: dict[str, str] | None = None, **overrides: object) -> Config:
        path = tmp_path / "sidecar.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides=overrides, environ=environ or {})

    return load_text


def otlp(config: Config, key: str = "otlp") -> OtlpExporter:
    exporter = config.exporters[key]
    assert isinstance(exporter, OtlpExporter)
    return exporter


def test_the_sample_is_what_the_code_says() -> None:
    assert SAMPLE.read_text(encoding="utf-8") == generate_sample()


def test_the_sample_sets_every_setting_to_its_default() -> None:
    assert load_config(SAMPLE, environ={}) == load_config(environ={})


def test_the_sample_shows_every_key() -> None:
    shown = yaml.safe_load(generate_sample())

    assert shown.keys() == Config.model_fields.keys()
    assert shown["exporters"]["otlp"].keys() == OtlpExporter.model_fields.keys()
    assert shown["assembly"]["root_grace"] == "2s"


def test_an_empty_file_means_the_defaults(load: Any) -> None:
    assert load("") == load("# nothing\n") == load("assembly:\nscorers:\nexporters:\n") == load_config(environ={})


def test_the_assembler_gets_its_own_defaults() -> None:
    assert load_config(environ={}).assembly.limits == AssemblyLimits()


def test_durations_and_sizes_have_units(load: Any) -> None:
    config = load("assembly: {root_grace: 500ms, idle_timeout: 90, max_age: 1h30m, max_bytes_per_trace: 4MB}")

    assert config.assembly.limits.root_grace == 0.5
    assert config.assembly.limits.idle_timeout == 90.0
    assert config.assembly.limits.max_age == 5400.0
    assert config.assembly.limits.max_bytes_per_trace == 4_000_000


@given(st.floats(0, 1e7, allow_nan=False).map(lambda seconds: round(seconds, 6)))
def test_a_written_duration_is_read_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@given(st.integers(1, 1 << 45))
def test_a_written_size_is_read_back(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == size


@pytest.mark.parametrize("text", ["", "s", "2 s ago", "-1s", "1e3s", "nan", "2m3", True, None, [1]])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "MB", "1.5.5MB", "1 parsec", 0, -5, True, None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("assembly: {root_grcae: 1s}", "sidecar.yaml, line 1: unknown key assembly.root_grcae; did you mean "),
        ("\nroot_grace: 1s", "line 2: unknown key root_grace; did you mean assembly.root_grace?"),
        ("exporters: {otlp/b: {endpont: http://h:1}}", "endpont; did you mean exporters.otlp/b.endpoint?"),
        ("exporters: {zipkin: {}}", "unknown key exporters.zipkin; known here: otlp, console, file"),
        ("scorers: [{use: latency, sampel_rate: 1}]", "did you mean scorers.0.sample_rate?"),
        ("receivers: {otlp: {protocols: {grcp: {}}}}", "did you mean receivers.otlp.protocols.grpc?"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest_known_one(load: Any, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("assembly: {max_traces: many}", "assembly.max_traces: must be a valid integer"),
        ("assembly: {root_grace: soon}", "assembly.root_grace: write a duration"),
        ("assembly: {trigger: whenever}", "assembly.trigger: must be auto, root, local_root or 'attribute = value'"),
        ("forwarding: hold", "forwarding: must be 'passthrough', 'hold_root' or 'hold_trace', got 'hold'"),
        ("receivers: {otlp: {protocols: {grpc: {endpoint: nowhere}}}}", "grpc.endpoint: write an address as HOST:PORT"),
        ("receivers: {otlp: {protocols: {grpc: {endpoint: 'h:99999'}}}}", "grpc.endpoint: write an address"),
        ("receivers: {otlp: {protocols: {grpc: {endpoint: off}, http: {endpoint: off}}}}", "both off"),
        ("exporters: {otlp: {endpoint: 'ftp://h'}}", "exporters.otlp.endpoint: write a URL"),
        ("exporters: {}", "exporters: needs at least one destination"),
        ("exporters: {file: {}}", "exporters.file.path: is missing"),
        ("exporters: {otlp: {endpoint: 'http://localhost:4317'}}", "it would send to itself"),
        ("scorers: [{use: latency, sample_rate: 2}]", "scorers.0.sample_rate: must be less than or equal to 1, got 2"),
        ("emit: [attributes]", "set forwarding to hold_root or hold_trace"),
        ("emit: []", "emit: "),
        ("assembly: 5", "assembly: must be a mapping"),
        ("- a list", "must be a mapping of settings"),
        ("a: b: c", "line 1, column 5: not usable as YAML"),
        ("hold_deadline: 1s\nhold_deadline: 2s\n", "line 2, column 1: not usable as YAML: the key 'hold_deadline' is"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_named(load: Any, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("emit: [native]", "needs a score API among the exporters"),
        ("exporters: {console: {}, phoenix: {}}", "exporters.phoenix takes scores alone and gets none"),
        ("emit: [native]\nexporters: {phoenix: {}}", "at least one destination for spans"),
        ("emit: [native]\nexporters: {console: {}, mlflow: {connections: 0}}", "exporters.mlflow.connections"),
        ("emit: [native]\nexporters: {console: {}, mlflow: {usrname: a}}", "did you mean exporters.mlflow.username"),
    ],
)
def test_a_score_api_has_verdicts_and_spans_have_a_destination(load: Any, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(text)


def test_credentials_of_score_apis_are_sent_and_never_shown(load: Any) -> None:
    config = load(
        "emit: [native]\n"
        "exporters:\n"
        "  console: {}\n"
        "  phoenix: {endpoint: 'phoenix:6006', api_key: '${env:ONE}', headers: {x-team: two-secret}}\n"
        "  mlflow: {username: me, password: '${env:THREE}'}\n"
        "  mlflow/token: {username: me, token: '${env:FOUR}'}\n"
        "  langfuse: {public_key: pk, secret_key: '${env:FIVE}'}\n"
        "  langfuse/open: {}\n",
        {"ONE": "one-secret", "THREE": "three-secret", "FOUR": "four-secret", "FIVE": "five-secret"},
    )
    headers = {name: each.all_headers() for name, each in config.exporters.items() if name != "console"}

    assert headers == {
        "phoenix": {"Authorization": "Bearer one-secret", "x-team": "two-secret"},
        "mlflow": {"Authorization": "Basic bWU6dGhyZWUtc2VjcmV0"},
        "mlflow/token": {"Authorization": "Bearer four-secret"},
        "langfuse": {"Authorization": "Basic cGs6Zml2ZS1zZWNyZXQ="},
        "langfuse/open": {},
    }
    assert config.exporters["phoenix"].endpoint == "http://phoenix:6006"
    assert "secret" not in str(config).replace("secret_key", "")


def test_limits_of_memory_are_shares_or_sizes(load: Any) -> None:
    assert load("").memory.limits(1000) == (750, 900)
    assert load("memory: {soft: 12.5%, hard: 2KiB}").memory.limits(1000) == (125, 2048)
    assert load("memory: {soft: off, hard: 50%}").memory.limits(1000) == (None, 500)
    assert load("memory: {soft: 512, hard: off}").memory.limits(1000) == (512, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{soft: 0%}", "more than 0%"),
        ("{soft: 101%}", "at most 100%"),
        ("{hard: much}", "75% or 400MiB"),
        ("{soft: 90%, hard: 90%}", r"memory.soft \(90%\) must be less than memory.hard"),
        ("{soft: 2MiB, hard: 1MiB}", "must be less"),
    ],
)
def test_limits_of_memory_that_cannot_be_meant_are_refused(load: Any, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(f"memory: {text}")


def test_a_share_and_a_size_that_contradict_each_other_are_found_where_memory_is_known(load: Any) -> None:
    with pytest.raises(ConfigError, match=r"memory.soft \(1GiB\) must be less than memory.hard \(90%\)"):
        load("memory: {soft: 1GiB}").memory.limits(1000)


@pytest.mark.parametrize("kind", ["logs", "metrics"])
def test_verdicts_that_no_destination_takes_are_refused(load: Any, kind: str) -> None:
    off = f"otlp: {{{kind}_endpoint: off}}"

    with pytest.raises(ConfigError, match=f"no exporter takes {kind}"):
        load(f"emit: [{kind}]\nexporters: {{{off}}}")

    assert load(f"emit: [{kind}]\nexporters: {{{off}, console: {{}}}}").emit == [kind]


def test_all_problems_are_said_at_once_in_the_order_of_the_file(load: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load("forwarding: hold\nemitt: []\nassembly: {max_traces: 0}\n")

    lines = str(caught.value).splitlines()
    assert "3 settings cannot be used" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["line 1", "line 2", "line 3"]


def test_off_is_a_word_and_no_false(load: Any) -> None:
    config = load("explanations: off\nexporters: {otlp: {endpoint: 'http://h:1', logs_endpoint: off}}")

    assert config.explanations == "off"
    assert otlp(config).logs_endpoint == "off"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff\xfe")

    with pytest.raises(ConfigError, match=r"missing\.yaml: No such file"):
        load_config(tmp_path / "missing.yaml", environ={})
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load_config(tmp_path / "binary.yaml", environ={})


def test_variables_and_files_are_filled_in(load: Any, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("s3cret\n", encoding="utf-8")

    config = load(
        "exporters: {otlp: {endpoint: '${env:HOST:-http://other}:1', timeout: '${env:TIMEOUT}',"
        f" headers: {{authorization: 'Bearer ${{file:{secret}}}', literal: '$${{env:X}}'}}}}}}",
        {"TIMEOUT": "3s", "HOST": "http://h"},
    )

    assert otlp(config).endpoint == "http://h:1"
    assert otlp(config).timeout == 3.0
    assert otlp(config).headers["authorization"].get_secret_value() == "Bearer s3cret"
    assert otlp(config).headers["literal"].get_secret_value() == "${env:X}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${env:NOT_THERE}", "exporters.otlp.endpoint: the environment variable NOT_THERE is not set"),
        ("${file:/not/there}", "exporters.otlp.endpoint: cannot read the file /not/there: No such file"),
        ("${HOME}", "is neither ${env:NAME} nor ${file:PATH}"),
    ],
)
def test_what_cannot_be_filled_in_is_named(load: Any, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"exporters: {{otlp: {{endpoint: '{text}'}}}}")

    assert message in str(caught.value)


def test_a_variable_never_becomes_structure(load: Any) -> None:
    with pytest.raises(ConfigError, match=r"forwarding: must be"):
        load("forwarding: '${env:X}'", {"X": "hold_root\nstore: x"})


SECRET_HEADERS = [
    "authorization",
    "Proxy-Authorization",
    "x-api-key",
    "API_KEY",
    "X-Auth-Token",
    "client-secret",
    "Cookie",
]


@pytest.mark.parametrize("name", SECRET_HEADERS)
@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("exporters.otlp.headers", "exporters: {{otlp: {{endpoint: 'http://h:1', headers: {{{}: '{}'}}}}}}"),
        ("exporters.otlp/2.headers", "exporters: {{otlp/2: {{endpoint: 'http://h:1', headers: {{{}: '{}'}}}}}}"),
        (
            "exporters.phoenix.headers",
            "{{emit: [native], exporters: {{console: {{}}, phoenix: {{endpoint: 'h:1', headers: {{{}: '{}'}}}}}}}}",
        ),
        ("telemetry.metrics.headers", "telemetry: {{metrics: {{headers: {{{}: '{}'}}}}}}"),
    ],
)
def test_headers_that_let_somebody_in_are_not_written_in_the_file(load: Any, where: str, text: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("# a comment\n" + text.format(name, "Bearer s3cret"))

    cure = "secrets do not belong here; write ${env:NAME} or ${file:PATH}"
    assert f"line 2: {where}.{name}: {cure}" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    load(text.format(name, "Bearer ${env:KEY}"), {"KEY": "s3cret"})
    load(text.format(name, ""))


@pytest.mark.parametrize(
    ("exporter", "key"),
    [("phoenix", "api_key"), ("mlflow", "token"), ("mlflow/2", "password"), ("langfuse", "secret_key")],
)
def test_keys_and_passwords_of_score_apis_are_not_written_in_the_file(load: Any, exporter: str, key: str) -> None:
    text = "{{emit: [native], exporters: {{console: {{}}, {}: {{{}: '{}'}}}}}}"

    with pytest.raises(ConfigError) as caught:
        load(text.format(exporter, key, "s3cret"))

    assert f"exporters.{exporter}.{key}: secrets do not belong here" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    load(text.format(exporter, key, "${env:KEY}"), {"KEY": "s3cret"})


def test_headers_that_let_nobody_in_may_be_written_anywhere_and_the_others_by_programs(
    load: Any, tmp_path: Path
) -> None:
    load("exporters: {otlp: {endpoint: 'http://h:1', headers: {x-project-name: shop, x-tenant: '7'}}}")
    given = {"exporters.otlp": {"endpoint": "http://h:1", "headers": {"authorization": "Bearer s3cret"}}}
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=s3cret", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1"}

    assert otlp(load_config(overrides=given, environ={})).headers["authorization"].get_secret_value() == "Bearer s3cret"
    assert otlp(load_config(environ=environ)).headers["authorization"].get_secret_value() == "s3cret"


def test_secrets_are_hidden_in_dumps_and_messages(load: Any) -> None:
    config = load(
        "exporters: {otlp: {endpoint: 'http://user:pass@h:1', headers: {a: s3cret}}}\n"
        "scorers: [{use: latency, parameters: {key: '${env:KEY}'}}]",
        {"KEY": "s3cret"},
    )

    with pytest.raises(ConfigError) as caught:
        load("hold_deadline: '${env:KEY}'", {"KEY": "s3cret"})

    shown = f"{config.dump()} {config!r} {config} {caught.value}"
    assert config.scorers[0].parameters["key"] == "s3cret"
    assert "s3cret" not in shown
    assert "pass@" not in shown
    assert "***" in shown


def test_flags_win_over_the_file(load: Any) -> None:
    config = load("assembly: {root_grace: 5s, idle_timeout: 7s}", **{"assembly.root_grace": 1.0, "scoring.workers": 3})

    assert (config.assembly.root_grace, config.assembly.idle_timeout, config.scoring.workers) == (1.0, 7.0, 3)


def test_a_scorer_may_be_a_plain_reference(load: Any) -> None:
    first, second = load(
        "scorers: [tool_errors, {use: a.py, timeout: 5s, span_types: [TOOL], pass_if: '>= 1'}]"
    ).scorers

    assert first.spec.use == "tool_errors"
    assert first.spec.options == {}
    assert second.spec.options == {"timeout": 5.0, "span_types": ["TOOL"], "pass_if": ">= 1"}


def test_a_span_match_can_be_the_trigger(load: Any) -> None:
    assembly = load("assembly: {trigger: gen_ai.operation.name = invoke_agent}").assembly

    assert assembly.match == ("gen_ai.operation.name", "invoke_agent")
    assert assembly.limits.trigger is Trigger.MATCH


def test_destinations_are_told_apart_by_their_key(load: Any) -> None:
    config = load(
        "exporters: {otlp: {endpoint: 'h:1'}, otlp/b: {endpoint: 'http://b:2'}, console: , file/x: {path: out}}"
    )

    assert otlp(config).endpoint == "h:1"
    assert isinstance(config.exporters["console"], ConsoleExporter)
    assert config.exporters["file/x"] == FileExporter(path="out")


def test_the_environment_says_where_to_export_to_if_nobody_else_does(load: Any) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20abc,x=1",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:1/v1/metrics",
    }

    found = otlp(load("", environ))
    ignored = otlp(load("exporters: {otlp: {endpoint: 'http://file:1'}}", environ))

    assert (found.endpoint, found.timeout, found.compression, found.protocol) == (
        "http://env:4318", 2.5, "gzip", "http/protobuf",
    )  # fmt: skip
    assert {key: value.get_secret_value() for key, value in found.headers.items()} == {
        "authorization": "Basic abc",
        "x": "1",
    }
    assert found.metrics_endpoint == "http://m:1/v1/metrics"
    assert ignored.endpoint == "http://file:1"
    assert ignored.headers == {}


def test_an_endpoint_for_traces_alone_is_for_traces_alone(load: Any) -> None:
    found = otlp(load("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h/otlp/v1/traces"}))

    assert (found.endpoint, found.protocol) == ("http://h/otlp", "http/protobuf")
    assert (found.logs_endpoint, found.metrics_endpoint) == ("off", "off")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PROTOCOL", "smoke"), ("TIMEOUT", "soon"), ("HEADERS", "s3cret"), ("TRACES_ENDPOINT", "http://h/elsewhere")],
)
def test_a_variable_that_cannot_be_meant_is_named(load: Any, variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"OTEL_EXPORTER_OTLP_{variable}") as caught:
        load("", {f"OTEL_EXPORTER_OTLP_{variable}": value})

    assert "s3cret" not in str(caught.value)


def test_export_flags_name_destinations() -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "k=v", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:1"}

    found = exporters_from_urls(["http://a:1", "http://b:2", "console", "file:out.jsonl"], "grpc", environ)

    assert found == {
        "otlp": {"headers": {"k": "v"}, "protocol": "grpc", "endpoint": "http://a:1"},
        "otlp/2": {"headers": {"k": "v"}, "protocol": "grpc", "endpoint": "http://b:2"},
        "console": {},
        "file": {"path": "out.jsonl"},
    }


AUTH = "receivers: {otlp: {protocols: {http: {auth: %s}}}}"


@pytest.mark.parametrize(
    ("auth", "place"),
    [
        ("{bearertokenauth: {token: hidden}}", "bearertokenauth.token"),
        ("{bearertokenauth: {tokens: ['${env:TOKEN}', hidden]}}", "bearertokenauth.tokens.1"),
        ("{basicauth: {htpasswd: {inline: 'app:hidden'}}}", "basicauth.htpasswd.inline"),
    ],
)
def test_a_secret_that_stands_in_the_file_itself_is_refused_and_not_repeated(load: Any, auth: str, place: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 1: .*{place}: .*\$\{{env:NAME\}}") as caught:
        load(AUTH % auth, {"TOKEN": "hidden"})

    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "auth",
    [
        "{bearertokenauth: {token: '${env:EMPTY}'}}",
        "{bearertokenauth: {token: {a: '${env:TOKEN}'}}}",
        "{bearertokenauth: {tokens: '${env:TOKEN}'}}",
        "{basicauth: {htpasswd: {inline: ['${env:TOKEN}']}}}",
    ],
)
def test_a_secret_that_cannot_be_one_is_refused_and_not_shown(load: Any, auth: str) -> None:
    with pytest.raises(ConfigError, match="auth") as caught:
        load(AUTH % auth, {"TOKEN": "hidden", "EMPTY": ""})

    assert "hidden" not in str(caught.value)


def test_secrets_of_receivers_are_read_and_never_dumped(load: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-a-file\n", encoding="utf-8")
    auth = f"{{bearertokenauth: {{token: '${{env:TOKEN}}', tokens: ['${{file:{tmp_path}/token}}']}}}}"

    config = load(AUTH % auth, {"TOKEN": "of-env"})

    credentials = config.receivers.otlp.protocols.http.auth.credentials
    assert credentials is not None
    assert credentials.tokens == ("of-env", "of-a-file")
    assert config.receivers.otlp.protocols.grpc.auth.credentials is None
    for text in (str(config), repr(config.dump()), str(config.receivers), repr(credentials)):
        assert "of-env" not in text
        assert "of-a-file" not in text


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ("{cert_file: a}", "cert_file and key_file need each other"),
        ("{key_file: a}", "cert_file and key_file need each other"),
        ("{client_ca_file: a}", "client_ca_file needs cert_file"),
        ("{cert_file: '', key_file: a}", "cert_file"),
        ("{min_version: 1.3}", "gRPC takes 1.2 and 1.3"),
        ("{min_version: '1.1'}", "min_version"),
        ("{insecure_skip_verify: true}", "insecure_skip_verify"),
    ],
)
def test_tls_that_cannot_be_meant_is_refused(load: Any, tls: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(f"receivers: {{otlp: {{protocols: {{grpc: {{tls: {tls}}}}}}}}}")


def test_a_version_of_tls_may_look_like_a_number(load: Any) -> None:
    tls = "{cert_file: a, key_file: b, min_version: 1.3, reload_interval: 1m}"
    config = load(f"receivers: {{otlp: {{protocols: {{http: {{tls: {tls}}}}}}}}}")

    files = config.receivers.otlp.protocols.http.tls.files
    assert files is not None
    assert (files.min_version, files.reload_interval, files.client_ca) == ("1.3", 60.0, None)


@pytest.mark.parametrize(
    ("exporter", "url"),
    [
        ("{endpoint: 'h:1'}", "http://h:1"),
        ("{endpoint: 'h:1', tls: {insecure: true}}", "http://h:1"),
        ("{endpoint: 'h:1', tls: {insecure: false}}", "https://h:1"),
        ("{endpoint: 'h:1', tls: {ca_file: a}}", "https://h:1"),
        ("{endpoint: 'https://h:1', tls: {ca_file: a}}", "https://h:1"),
    ],
)
def test_an_endpoint_without_a_scheme_is_encrypted_if_tls_says_so(load: Any, exporter: str, url: str) -> None:
    found = otlp(load(f"exporters: {{otlp: {exporter}}}"))

    assert found.url_of(found.endpoint) == url
    assert found.url_of(found.logs_endpoint) == "same"


@pytest.mark.parametrize(
    ("exporter", "words"),
    [
        ("{endpoint: 'http://h:1', tls: {ca_file: a}}", "endpoint says http://"),
        ("{endpoint: 'http://h:1', tls: {insecure: false}}", "endpoint says http://"),
        ("{endpoint: 'https://h:1', tls: {insecure: true}}", "endpoint says https://"),
        ("{endpoint: 'https://h:1', logs_endpoint: 'http://l:1', tls: {ca_file: a}}", "logs_endpoint says http://"),
        ("{endpoint: 'https://h:1', tls: {cert_file: a}}", "need each other"),
    ],
)
def test_certificates_that_would_not_be_used_are_refused(load: Any, exporter: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(f"exporters: {{otlp: {exporter}}}")


def test_certificates_of_the_environment_are_for_encrypted_endpoints(load: Any) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca",
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "own-ca",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "cert",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": "key",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }

    encrypted = otlp(load("", {**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "https://h:1"})).tls
    plain = otlp(load("", {**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1"})).tls
    bare = otlp(load("", {**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "h:1"}))
    flagged = exporters_from_urls(["https://h:1", "http://h:2"], environ=environ)

    assert (encrypted.ca_file, encrypted.cert_file, encrypted.key_file) == ("own-ca", "cert", "key")
    assert encrypted.insecure is None
    assert plain == otlp(load("", environ)).tls == OtlpExporter().tls
    assert bare.url_of(bare.endpoint) == "http://h:1"
    assert flagged["otlp"]["tls"]["ca_file"] == "own-ca"
    assert "tls" not in flagged["otlp/2"]


def test_secrets_in_plain_text_beyond_this_machine_are_remarked_on(load: Any) -> None:
    http = "{endpoint: '%s', auth: {bearertokenauth: {token: '${env:TOKEN}'}}%s}"

    def remarks(endpoint: str, tls: str = "") -> list[str]:
        text = f"receivers: {{otlp: {{protocols: {{http: {http % (endpoint, tls)}}}}}}}"
        return [remark for remark in load(text, {"TOKEN": "t"}).remarks if "plain text" in remark]

    assert remarks("0.0.0.0:4318")
    assert not remarks("localhost:4318")
    assert not remarks("[::1]:4318")
    assert not remarks("0.0.0.0:4318", ", tls: {cert_file: a, key_file: b}")
