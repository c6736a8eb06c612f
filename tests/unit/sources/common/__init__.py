"""Pure code: sources/common."""
