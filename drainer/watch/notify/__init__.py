"""Notifications: who is told that a person is needed, or that something is over."""
