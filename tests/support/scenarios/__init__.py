"""What the tests share: scenarios."""
