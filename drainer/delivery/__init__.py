"""The engine: one run, from the scan to the acknowledgement."""
