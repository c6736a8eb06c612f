"""Notifications: a person is needed, or something is over."""
