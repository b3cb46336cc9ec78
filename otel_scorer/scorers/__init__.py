"""Scorers: how they are written, what they are given, how what they return is read, and where they are found."""

from otel_scorer.scorers.base import Scorer, ScorerDefinitionError, as_scorer, as_scorers, scorer
from otel_scorer.scorers.loading import ScorerSpec, load_scorers

__all__ = ["Scorer", "ScorerDefinitionError", "ScorerSpec", "as_scorer", "as_scorers", "load_scorers", "scorer"]
