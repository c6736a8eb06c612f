"""Pure code: policy/pacing."""
