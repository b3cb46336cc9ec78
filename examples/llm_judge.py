"""
A scorer that asks a model, with a client of its own. Needs `pip install openai`.

    export OPENAI_API_KEY_FILE=/run/secrets/openai      # or OPENAI_API_KEY
    otel-scorer score traces.jsonl --scorers examples/llm_judge.py
    otel-scorer serve --scorers examples/llm_judge.py --export http://127.0.0.1:14317

The key is read where the scorer runs: scorer processes inherit the environment, and a configuration or a store of
registered scorers never holds it. Any server that speaks OpenAI's API will do: set OPENAI_BASE_URL.
"""

import os
from pathlib import Path

import openai
from pydantic import BaseModel

from otel_scorer import AssessmentError, AssessmentSource, Feedback, Scorer

INSTRUCTIONS = """You are given a question and an answer. Does the answer address the question?
Reply with JSON only: {"addresses": true or false, "reason": "one sentence"}"""


class Verdict(BaseModel):
    addresses: bool
    reason: str


class AnswersTheQuestion(Scorer):
    """Does the answer address the question? Calls overlap, so that one slow answer of the model holds up no other."""

    name: str = "answers_the_question"
    timeout: float | None = 30
    concurrent: bool = True
    model: str = "gpt-5-mini"
    seconds: float = 10
    retries: int = 1

    async def __call__(self, inputs: str, outputs: str) -> Feedback:
        try:
            text = await self._ask(f"Question: {inputs}\n\nAnswer: {outputs}")
            verdict = Verdict.model_validate_json(text)
        except openai.APIStatusError as error:
            # Not str(error): a server may quote the key that it refused.
            return Feedback(error=AssessmentError(type(error).__name__, f"The model's server said {error.status_code}"))
        return Feedback(
            value=verdict.addresses,
            rationale=verdict.reason,
            source=AssessmentSource(source_type="LLM_JUDGE", source_id=self.model),
        )

    async def _ask(self, question: str) -> str:
        # One client per call: its connections belong to the event loop that it is used on.
        async with openai.AsyncOpenAI(api_key=api_key(), timeout=self.seconds, max_retries=self.retries) as client:
            answer = await client.chat.completions.create(
                model=self.model,
                messages=[{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": question}],
            )
        return answer.choices[0].message.content or ""


def api_key() -> str:
    file = os.environ.get("OPENAI_API_KEY_FILE")
    return Path(file).read_text(encoding="utf-8").strip() if file else os.environ["OPENAI_API_KEY"]
