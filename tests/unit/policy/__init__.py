"""Pure code: policy."""
