"""What the tests share: web."""
