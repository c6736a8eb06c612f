"""What the tests share: smtp_peer."""
