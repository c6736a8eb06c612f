"""The circuit breaker and the refusal detector. Pure."""
