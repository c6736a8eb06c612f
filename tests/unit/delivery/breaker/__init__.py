"""Pure code: delivery/breaker."""
