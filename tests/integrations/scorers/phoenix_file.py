from typing import Any

from phoenix.evals import create_evaluator
from phoenix.evals.metrics import MatchesRegex

regex = MatchesRegex(pattern=r"\d+ C", name="celsius")


@create_evaluator(name="mentions_city", kind="code")
def mentions_city(output: str, tool_calls: list[dict[str, Any]]) -> bool:
    return all(call["arguments"]["city"] in output for call in tool_calls if call["arguments"])
