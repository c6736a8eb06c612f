"""Which messages drainer accepts: identity, selection, recipient domains. Pure."""
