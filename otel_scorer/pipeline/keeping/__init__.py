"""Which traces a backend gets, by what scorers said of them."""
