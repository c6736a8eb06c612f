"""Scanners of contents, real ones, each in a drain."""
