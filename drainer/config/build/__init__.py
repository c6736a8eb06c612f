"""Build working objects from a Config: one module for each kind of object.

Import each module by its own name: a command that reads a spool loads no HTTP code.
"""
