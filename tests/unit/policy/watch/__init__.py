"""Pure code: policy/watch."""
