"""Pure code: no I/O, no event loop."""
