"""Pure code: sources/database."""
