"""Pure code: policy/bounce."""
