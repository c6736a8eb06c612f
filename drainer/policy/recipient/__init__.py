"""The states of a recipient, and what an attempt means for it. Pure."""
