"""A folder of messages, each with an envelope next to it."""
