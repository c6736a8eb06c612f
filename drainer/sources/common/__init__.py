"""What the source formats share."""
