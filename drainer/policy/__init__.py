"""Decisions, pure: (facts, now) -> decision. No I/O, no clock, no randomness."""
