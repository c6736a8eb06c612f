"""Real sockets, files and servers: cli."""
