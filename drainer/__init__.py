"""Drain a backup MX's spool to the primary mail server."""

__version__ = "0.1.0"
