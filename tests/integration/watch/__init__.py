"""Real sockets, files and servers: watch."""
