"""Pure code: telemetry."""
