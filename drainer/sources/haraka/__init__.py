"""The queue of Haraka."""
