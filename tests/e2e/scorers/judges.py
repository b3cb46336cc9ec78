"""The judges of examples/, less patient, beneath an instrumentation that marks the model calls that it would trace."""

import sys
from importlib import import_module
from pathlib import Path

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value

sys.path.append(str(Path(__file__).resolve().parents[3] / "examples"))

# The client is there only where everything for the tests is installed; the examples are no package.
openai = import_module("openai")
completions = import_module("openai.resources.chat.completions")
llm_judge = import_module("llm_judge")
tool_judge = import_module("tool_judge")


def instrument(kind):
    create = kind.create

    def traced(self, **arguments):
        # What every instrumentation of OpenTelemetry asks before it starts a span.
        if not get_value(_SUPPRESS_INSTRUMENTATION_KEY):
            arguments["extra_headers"] = {"x-traced": "yes"}
        # Only who gets no answer shall feel how impatient the judges are: the machine may be busy with something else.
        if "slow" not in str(arguments["messages"]):
            arguments["timeout"] = 30
        return create(self, **arguments)

    kind.create = traced


for kind in (completions.AsyncCompletions, completions.Completions):
    instrument(kind)

vars(tool_judge)["client"] = lambda: openai.OpenAI(api_key=llm_judge.api_key(), timeout=1, max_retries=0)

answers = llm_judge.AnswersTheQuestion(seconds=1, retries=0)
helps = tool_judge.tool_call_helps
