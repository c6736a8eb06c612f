"""The HTTP server, the status page, and what they read."""
