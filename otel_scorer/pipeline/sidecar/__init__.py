"""Requests in; spans and verdicts out."""
