"""One scorer for each kind of verdict."""

from otel_scorer import Feedback, scorer


@scorer
def fine(trace):
    return True


@scorer(pass_if=">= 0.7")
def share(trace):
    return Feedback(value=0.5, rationale="half of it", metadata={"of": "two"})


@scorer
def tone(outputs):
    return "friendly"


@scorer
def broken(trace):
    raise LookupError("nothing there")


@scorer(span_types=["TOOL"])
def per_tool(span):
    return Feedback(value=span.name == "search", rationale=f"looked at {span.name}")


@scorer
def about_the_tool(trace):
    (tool, *_) = trace.search_spans(span_type="TOOL") or [trace.root]
    return Feedback(name="child", value=3, span_id=tool.span_id)
