"""Pure code: delivery."""
