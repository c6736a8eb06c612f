"""Real sockets, files and servers: smtp."""
