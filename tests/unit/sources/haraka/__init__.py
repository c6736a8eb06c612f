"""Pure code: sources/haraka."""
