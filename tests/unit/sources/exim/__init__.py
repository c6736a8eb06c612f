"""Pure code: sources/exim."""
