"""What the tests share: command."""
