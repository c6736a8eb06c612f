"""The circuit breaker at work: who may send, and the canary that probes."""
