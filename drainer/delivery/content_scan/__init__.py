"""Scanners that look at a message before it is sent (``[scan]``), by protocol."""
