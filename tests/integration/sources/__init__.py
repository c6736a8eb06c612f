"""Real sockets, files and servers: sources."""
