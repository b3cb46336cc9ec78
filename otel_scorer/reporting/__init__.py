"""Turn decisions and traces into what people and other programs read."""
