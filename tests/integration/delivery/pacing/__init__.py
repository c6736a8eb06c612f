"""Real sockets, files and servers: delivery/pacing."""
