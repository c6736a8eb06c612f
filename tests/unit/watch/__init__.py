"""Pure code: watch."""
