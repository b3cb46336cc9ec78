"""Spans of this process, from their start to their verdicts."""
