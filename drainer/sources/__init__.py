"""Where spooled mail is read from: a protocol, a registry, and a folder per format."""
