"""Decisions as pure functions: (facts, now) -> decision. No I/O, clock, randomness."""
