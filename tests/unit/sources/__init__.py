"""Pure code: sources."""
