"""Pure code: smtp."""
