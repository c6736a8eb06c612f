"""Pure code: sources/postcat."""
