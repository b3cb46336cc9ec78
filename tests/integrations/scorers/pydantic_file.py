from dataclasses import dataclass

from pydantic_evals.evaluators import Contains, EvaluationReason, Evaluator, EvaluatorContext

contains = Contains(value="Paris", case_sensitive=False)


@dataclass
class Tools(Evaluator):
    most: int = 1

    def evaluate(self, ctx: EvaluatorContext):
        failed = ctx.span_tree.find({"has_status": "error"})
        calls = ctx.span_tree.find({"has_attributes": {"gen_ai.operation.name": "execute_tool"}})
        return {
            "few_tools": EvaluationReason(value=len(calls) <= self.most, reason=f"{len(calls)} calls"),
            "failed_tools": len(failed),
        }
