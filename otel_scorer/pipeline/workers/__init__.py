"""Scorers in processes of their own, so that none can hurt the sidecar."""
