"""A folder of messages with an envelope beside each."""
