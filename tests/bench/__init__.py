"""Measurements, not tests: `make bench` prints tables and judges nothing."""
