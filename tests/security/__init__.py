"""Attempts to break the promises, each with the shape of the attack that it tries."""
