"""The nouns of mail, pure: no I/O, no clock, no randomness."""
