"""What the tests share: dns."""
