"""
The demo's "model" and its tools: a table of rules and a few constants, so that every run asks and answers the same.

Two rules are wrong on purpose. One makes up an answer when its tool fails, one asks its tool twice: something to find.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["MODEL", "QUESTIONS", "TOOLS", "Plan", "Tool", "ToolRequest", "plan_for"]

MODEL: Final = "travel-rules-1"
"""What the spans say was asked: no language model, the rules of this module."""


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """One call that the rules ask for."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What a rule does with a question.

    Attributes:
        requests: Tool calls, one after the other.
        answer: Makes the answer of the tools' results; a failed call's result is None.
    """

    requests: tuple[ToolRequest, ...]
    answer: Callable[[Sequence[str | None]], str]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of the agent. `seconds` is how long it pretends to work."""

    description: str
    run: Callable[..., str]
    seconds: float


_WEATHER: Final = {"Paris": "18 °C, sunny", "Oslo": "9 °C, rain", "Lisbon": "24 °C, clear", "Kyoto": "21 °C, cloudy"}


def _get_weather(city: str) -> str:
    return f"{city}: {_WEATHER[city]}"


def _convert_currency(amount: int, source: str, target: str) -> str:
    raise ConnectionError(f"cannot convert {amount} {source} to {target}: no answer from the rate service")


def _find_trains(origin: str, destination: str) -> str:
    return f"{origin} to {destination}: ICE 371 at 08:26, EC 175 at 10:18"


def _find_hotels(city: str, nights: int) -> str:
    return f"{city}: Garden Inn, {nights} nights, 312 EUR"


TOOLS: Final[dict[str, Tool]] = {
    "get_weather": Tool("Weather in a city now", _get_weather, 0.03),
    "convert_currency": Tool("Convert an amount of money", _convert_currency, 0.06),
    "find_trains": Tool("Find trains between two cities", _find_trains, 0.05),
    "find_hotels": Tool("Find a hotel room", _find_hotels, 0.08),
}
"""The tools by name. `convert_currency` always fails."""


def _weather(found: re.Match[str]) -> Plan:
    request = ToolRequest("get_weather", {"city": found["city"]})
    return Plan((request,), lambda results: f"The weather in {results[0]}.")


def _conversion(found: re.Match[str]) -> Plan:
    amount = int(found["amount"])
    request = ToolRequest("convert_currency", {"amount": amount, "source": "EUR", "target": "JPY"})
    # Wrong on purpose: without a rate there is nothing to answer with.
    return Plan((request,), lambda _: f"{amount} euros are about {amount * 165} yen.")


def _trains(found: re.Match[str]) -> Plan:
    request = ToolRequest("find_trains", {"origin": found["origin"], "destination": found["destination"]})
    # Wrong on purpose: nothing that the second call could answer is open after the first.
    return Plan((request, request), lambda results: f"You can take {str(results[0]).partition(': ')[2]}.")


def _warmer(found: re.Match[str]) -> Plan:
    cities = (found["first"], found["second"])
    requests = tuple(ToolRequest("get_weather", {"city": city}) for city in cities)
    return Plan(requests, lambda results: f"The warmer one is {max(results, key=_degrees)}.")


def _stay(found: re.Match[str]) -> Plan:
    city = found["city"]
    requests = (
        ToolRequest("get_weather", {"city": city}),
        ToolRequest("find_hotels", {"city": city, "nights": int(found["nights"])}),
    )
    return Plan(requests, lambda results: f"Weather in {results[0]}. Hotel in {results[1]}.")


def _degrees(weather: str | None) -> int:
    found = re.search(r"(\d+) °C", weather or "")
    return int(found[1]) if found else 0


_RULES: Final[tuple[tuple[str, Callable[[re.Match[str]], Plan]], ...]] = (
    (r"weather in (?P<city>\w+)", _weather),
    (r"are (?P<amount>\d+) euros in yen", _conversion),
    (r"from (?P<origin>\w+) to (?P<destination>\w+)", _trains),
    (r"warmer, (?P<first>\w+) or (?P<second>\w+)", _warmer),
    (r"(?P<nights>\d+) nights in (?P<city>\w+)", _stay),
)

QUESTIONS: Final = (
    "What is the weather in Paris?",
    "How much are 250 euros in yen?",
    "Which trains go from Berlin to Prague?",
    "Who are you?",
    "Which is warmer, Oslo or Lisbon?",
    "Can you plan 3 nights in Kyoto?",
)
"""What the agent is asked, over and over."""


def plan_for(question: str) -> Plan:
    """Return what the first rule that fits makes of a question."""
    for pattern, rule in _RULES:
        found = re.search(pattern, question)
        if found:
            return rule(found)
    return Plan((), lambda _: "I am a travel assistant made of a few rules. Ask me about weather, trains or hotels.")
