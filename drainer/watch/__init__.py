"""The watch: looks at the primary, drains when it is well, and looks again."""
