"""The rate controller: moves the rate limit by latency, load, operator and hosts."""
