"""Pure code: runtime."""
