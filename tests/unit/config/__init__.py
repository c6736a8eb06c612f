"""Pure code: config."""
