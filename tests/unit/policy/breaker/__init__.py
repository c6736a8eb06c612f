"""Pure code: policy/breaker."""
