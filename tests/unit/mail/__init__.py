"""Pure code: mail."""
