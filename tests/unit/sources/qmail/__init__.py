"""Pure code: sources/qmail."""
