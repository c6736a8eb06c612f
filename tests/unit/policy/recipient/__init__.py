"""Pure code: policy/recipient."""
