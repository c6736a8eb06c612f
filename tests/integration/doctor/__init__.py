"""Real sockets, files and servers: doctor."""
