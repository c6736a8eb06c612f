"""Real sockets, files and servers: bounce."""
