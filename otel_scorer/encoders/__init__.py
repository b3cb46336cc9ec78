"""Feedback as OpenTelemetry data: evaluation spans, and attributes and events on the target."""
