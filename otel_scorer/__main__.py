"""`python -m otel_scorer`: the command line without an installed script."""

from otel_scorer.cli import main

main()
