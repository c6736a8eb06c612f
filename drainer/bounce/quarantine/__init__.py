"""Quarantine: copies of messages that are final without a delivery."""
