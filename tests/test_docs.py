"""What the documents show can be pasted: snippets run, commands exist, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from otel_scorer.cli import cli
from otel_scorer.config import Config, OtlpExporter, load_config
from otel_scorer.scorers.builtin import BUILT_IN

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = (sys.executable, "-m", "otel_scorer")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.py)\b")
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Snippet:
    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name in its first line, if the document says that it is a file."""
        found = FILE_NAME.match(self.text)
        return found[1] if found else None


def snippets_of(document: Path) -> Iterator[Snippet]:
    text = document.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Snippet(document, text.count("\n", 0, found.start()) + 1, found[1], found[2])


SNIPPETS = [snippet for document in DOCUMENTS for snippet in snippets_of(document)]
README = [snippet for snippet in SNIPPETS if snippet.document == ROOT / "README.md"]


def in_language(language: str) -> list[Snippet]:
    return [snippet for snippet in SNIPPETS if snippet.language == language]


def commands_in(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("otel-scorer ")]


def parse(command: list[str]) -> click.Context:
    """Read a command line as otel-scorer does, without running it."""
    name, *arguments = command
    return cli.commands[name].make_context(name, arguments)


def environment(folder: Path) -> dict[str, str]:
    # An exporter without a backend must not keep a snippet for long.
    return {**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, timeout=50
    )


def anchors_of(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("snippet", in_language("python"), ids=str)
def test_python_snippets_can_be_compiled(snippet: Snippet) -> None:
    compile(snippet.text, str(snippet), "exec")


@pytest.mark.parametrize("snippet", [each for each in in_language("python") if each.file_name is None], ids=str)
def test_python_snippets_run_as_they_are(snippet: Snippet, tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, "-W", "error", "-c", snippet.text)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("snippet", in_language("shell"), ids=str)
def test_every_command_and_option_that_is_shown_exists(snippet: Snippet) -> None:
    commands = commands_in(snippet.text)

    assert commands
    for command in commands:
        parse(command)


@pytest.mark.parametrize("snippet", in_language("yaml"), ids=str)
def test_every_setting_that_is_shown_exists(snippet: Snippet, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    # The secrets that it names are somebody else's.
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    text = re.sub(r"\$\{file:[^}]*\}", f"${{file:{tmp_path / 'secret'}}}", snippet.text)
    secrets = re.findall(r"\$\{env:(\w+)\}", snippet.text)
    file.write_text(text, encoding="utf-8")

    load_config(file, environ=dict.fromkeys(secrets, "secret"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = (document.parent / target).resolve() if target else document

        assert path.exists(), target
        assert not anchor or anchor in anchors_of(path), anchor


def test_the_readme_names_every_command_and_every_built_in_scorer() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    named = set(re.findall(r"^\| `otel-scorer (\w+)", text, re.MULTILINE))
    built_in = set(re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE))

    assert named == set(cli.commands)
    assert built_in == set(BUILT_IN)


@pytest.mark.server
def test_the_quick_start_does_what_the_readme_says(tmp_path: Path) -> None:
    for snippet in README:
        if snippet.file_name is not None:
            (tmp_path / snippet.file_name).write_text(snippet.text, encoding="utf-8")
    serve, *offline = [command for each in README if each.language == "shell" for command in commands_in(each.text)]

    in_the_app = run(tmp_path, sys.executable, "in_the_app.py")

    assert in_the_app.returncode == 0, in_the_app.stderr
    assert '"otel_scorer.few_tool_calls.value": false' in in_the_app.stdout
    assert '"otel_scorer.answer_length.value": 5' in in_the_app.stdout
    assert '"otel_scorer.tool_errors.value": true' in in_the_app.stdout

    sent = through_the_sidecar(tmp_path, serve)

    assert sent.count("evaluation few_tool_calls") == 1
    assert "Called get_weather, get_weather" in sent

    inspect, score, bounded = (run(tmp_path, *PROGRAM, *command) for command in offline)

    assert inspect.returncode == 0, inspect.stderr
    assert "execute_tool get_weather" in inspect.stdout
    assert score.returncode == 0, score.stderr
    assert "few_tool_calls" in score.stdout
    assert bounded.returncode == 1, bounded.stderr


def through_the_sidecar(folder: Path, command: list[str]) -> str:
    """Run the README's application against the README's sidecar, on free ports, and return what the sidecar printed."""
    ports = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    sidecar = subprocess.Popen(
        [*PROGRAM, *command, *ports], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    )
    try:
        assert sidecar.stdout is not None
        ready = sidecar.stdout.readline()
        bound = re.match(r"ready .*grpc=(\S+)", ready)
        assert bound, ready
        application = folder / "through_the_sidecar.py"
        text = application.read_text(encoding="utf-8")
        assert "127.0.0.1:4317" in text
        application.write_text(text.replace("127.0.0.1:4317", bound[1]), encoding="utf-8")

        done = run(folder, sys.executable, application.name)

        assert done.returncode == 0, done.stderr
        sidecar.terminate()
        printed, _ = sidecar.communicate(timeout=60)
    finally:
        sidecar.kill()
        sidecar.wait()
    assert sidecar.returncode == 0
    return printed


def test_the_collector_sends_to_the_sidecar_and_takes_back_what_it_exports() -> None:
    text = (ROOT / "config" / "collector-sidecar.yaml").read_text(encoding="utf-8")
    collector: dict[str, Any] = yaml.safe_load(text)
    [command] = commands_in(re.sub(r"^#   ", "", text, flags=re.MULTILINE))
    serve = parse(command).params

    exporter = Config().exporters["otlp"]

    assert isinstance(exporter, OtlpExporter)
    assert collector["exporters"]["otlp/scorer"]["endpoint"] == serve["grpc"]
    assert "http://" + collector["receivers"]["otlp/scored"]["protocols"]["grpc"]["endpoint"] == exporter.endpoint
    assert serve["export"] == ()


def test_the_collector_configuration_names_only_what_it_defines() -> None:
    text = (ROOT / "config" / "collector-sidecar.yaml").read_text(encoding="utf-8")
    collector: dict[str, Any] = yaml.safe_load(text)

    pipelines: dict[str, dict[str, list[str]]] = collector["service"]["pipelines"]

    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert used == set(collector[kind])


def test_the_sidecar_understands_the_commands_of_the_deployments() -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "config" / "compose.yaml").read_text(encoding="utf-8"))
    text = (ROOT / "config" / "kubernetes.yaml").read_text(encoding="utf-8")
    settings: dict[str, Any]
    deployment: dict[str, Any]
    settings, deployment = yaml.safe_load_all(text)
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["initContainers"]
    [mounted] = [each for each in container["volumeMounts"] if each["name"] == settings["metadata"]["name"]]

    assert "tool_errors" in parse(compose["services"]["otel-scorer"]["command"]).params["scorers"]
    file = Path(parse(container["args"]).params["config_file"])
    assert file.parent == Path(mounted["mountPath"])
    assert file.name in settings["data"]
    assert {"name": mounted["name"], "configMap": {"name": mounted["name"]}} in pod["volumes"]


def test_the_tests_that_the_page_on_ci_shows_do_what_it_says(tmp_path: Path) -> None:
    for snippet in SNIPPETS:
        if snippet.file_name in {"agent.py", "my_scorers.py", "test_agent.py", "test_recorded.py"}:
            (tmp_path / snippet.file_name).write_text(snippet.text, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "captures" / "strands.json", tmp_path / "traces.jsonl")
    is_installed = any(each.value == "otel_scorer.pytest_plugin" for each in entry_points(group="pytest11"))
    plugin = () if is_installed else ("-p", "otel_scorer.pytest_plugin")

    done = run(tmp_path, sys.executable, "-m", "pytest", *plugin, "--rootdir=.", "-v", ".")

    assert "test_the_weather_takes_few_calls FAILED" in done.stdout, done.stdout
    assert "AssertionError: few_tool_calls: False on invoke_agent" in done.stdout
    assert "answer_length:" not in done.stdout
    assert '{"city": "Paris"}' in done.stdout
    assert re.search(r"test_recorded_traces\[\S+\] (PASSED|FAILED)", done.stdout)


@pytest.mark.server
def test_a_scorer_lives_as_the_page_says(tmp_path: Path) -> None:
    page = [snippet for snippet in SNIPPETS if snippet.document.name == "lifecycle.md"]
    for snippet in page:
        if snippet.file_name is not None:
            (tmp_path / snippet.file_name).write_text(snippet.text, encoding="utf-8")
    [serve, *shell] = [command for each in page if each.language == "shell" for command in commands_in(each.text)]
    is_installed = any(each.value == "otel_scorer.pytest_plugin" for each in entry_points(group="pytest11"))
    plugin = () if is_installed else ("-p", "otel_scorer.pytest_plugin")

    collected, developed = (run(tmp_path, sys.executable, f"{name}.py") for name in ("collect", "develop"))
    tested = run(tmp_path, sys.executable, "-m", "pytest", *plugin, "--rootdir=.", "test_assistant.py")
    gated = run(tmp_path, sys.executable, "gate.py")

    assert collected.returncode == 0, collected.stderr
    assert "'from_tools/mean': 0.66" in developed.stdout, developed.stderr
    assert (tmp_path / "from_tools.html").is_file()
    assert tested.returncode == 0, tested.stdout
    assert gated.returncode == 1, gated.stderr
    assert "from_tools" in gated.stdout

    sent = put_live(tmp_path, serve, shell)

    assert sent.count("evaluation from_tools_live") == 1
    assert "No tool said 20" in sent
    assert "evaluation fahrenheit" not in sent


def put_live(folder: Path, serve: list[str], shell: list[list[str]]) -> str:
    """Start the page's sidecar on free ports, register and change scorers, and return what the sidecar printed."""
    sidecar = subprocess.Popen(
        [*PROGRAM, *serve, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sidecar.stdout is not None
    assert sidecar.stderr is not None
    try:
        bound = re.match(r"ready .*grpc=(\S+)", sidecar.stdout.readline())
        assert bound
        live = run(folder, sys.executable, "go_live.py")
        assert live.stdout == "STOPPED STARTED\n", live.stderr
        # The log says when it follows.
        assert any("Scorers from now on: from_tools_live" in line for line in sidecar.stderr)
        traffic = folder / "traffic.py"
        traffic.write_text(traffic.read_text(encoding="utf-8").replace("127.0.0.1:4317", bound[1]), encoding="utf-8")
        assert run(folder, sys.executable, "traffic.py").returncode == 0
        # What follows changes what is scored, so the trace must have been.
        printed = ""
        while "evaluation from_tools_live" not in printed:
            line = sidecar.stdout.readline()
            assert line, "the sidecar has ended"
            printed += line
        said = [run(folder, *PROGRAM, *command) for command in shell]
        assert [each.returncode for each in said] == [0] * len(said), said
        sidecar.terminate()
        rest, _ = sidecar.communicate(timeout=60)
        printed += rest
    finally:
        sidecar.kill()
        sidecar.wait()
    assert sidecar.returncode == 0
    return printed
