from deepeval.metrics import BaseMetric, PatternMatchMetric

pattern = PatternMatchMetric(pattern=r".*Paris.*", threshold=0.5)


class ShortAnswer(BaseMetric):
    def __init__(self, threshold: float = 0.5, longest: int = 100):
        self.threshold = threshold
        self.longest = longest

    def measure(self, test_case):
        self.score = 1.0 if len(test_case.actual_output) <= self.longest else 0.0
        self.reason = f"{len(test_case.actual_output)} characters"
        return self.score

    async def a_measure(self, test_case):
        return self.measure(test_case)

    @property
    def __name__(self):
        return "Short answer"
