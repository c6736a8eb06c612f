"""Pure code: policy/admission."""
