"""Real sockets, files and servers: ledger."""
