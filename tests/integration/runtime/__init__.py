"""Real sockets, files and servers: runtime."""
