"""Where drainer reads spooled mail: a protocol, a registry, and a folder per format."""
