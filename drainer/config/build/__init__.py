"""From a Config to the objects that do the work: a module for each kind of them.

Each is imported by its own name: a command that reads a spool loads nothing of HTTP.
"""
