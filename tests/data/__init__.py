"""Data that tests read, and the programs that made it."""
