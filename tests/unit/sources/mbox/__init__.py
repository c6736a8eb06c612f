"""Pure code: sources/mbox."""
