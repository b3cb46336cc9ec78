"""Scorers chosen and called: on this thread, on threads of ours, on an event loop."""
