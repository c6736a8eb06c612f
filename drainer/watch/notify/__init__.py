"""Notifications: drainer tells people that one is needed, or that something is over."""
