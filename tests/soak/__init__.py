"""Drains that are disturbed at every step: random walks, for minutes or hours."""
