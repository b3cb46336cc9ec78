"""Where recorded traces are read from."""
