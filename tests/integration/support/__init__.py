"""Real sockets, files and servers: support."""
