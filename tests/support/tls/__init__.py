"""What the tests share: tls."""
