"""What the tests share: spools."""
