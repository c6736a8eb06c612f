"""Fuzzing: bytes of any kind into every parser, for seconds or for hours."""
