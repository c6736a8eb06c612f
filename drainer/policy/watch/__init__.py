"""The state machine of `drainer watch`. Pure."""
