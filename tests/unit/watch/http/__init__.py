"""Pure code: watch/http."""
