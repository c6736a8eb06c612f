"""Pure code: sources/eml."""
