"""Pure code: policy/classify."""
