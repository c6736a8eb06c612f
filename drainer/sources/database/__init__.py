"""Databases: the built-in spool, and tables of other applications."""
