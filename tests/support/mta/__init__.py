"""What the tests share: mta."""
