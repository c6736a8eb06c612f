"""What the tests share: databases."""
