"""Complete traces out of spans in any order: sans-I/O, time is an argument."""
