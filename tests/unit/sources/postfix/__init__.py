"""Pure code: sources/postfix."""
