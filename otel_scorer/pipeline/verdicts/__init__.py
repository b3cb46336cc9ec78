"""Where a verdict goes: onto spans, into spans of its own, into logs, metrics and score APIs."""
