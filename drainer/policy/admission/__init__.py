"""Which messages are taken up: identity, selection, recipient domains. Pure."""
