from mlflow.entities import Feedback, Trace
from mlflow.genai.scorers import RegexMatch, Scorer, scorer


@scorer
def word_count(outputs: str) -> int:
    return len(outputs.split())


@scorer(name="tools", aggregations=["min"], pass_if=lambda value: value < 3)
def tool_count(trace: Trace) -> int:
    return len(trace.search_spans(span_type="TOOL"))


class Mentions(Scorer):
    name: str = "mentions"
    word: str = "Paris"

    def __call__(self, outputs):
        return Feedback(value=self.word in str(outputs), rationale=f"looked for {self.word}")


in_celsius = RegexMatch(name="in_celsius", pattern=r"\d+ C")
