"""The watch: checks the primary, drains when it is healthy, and checks again."""
