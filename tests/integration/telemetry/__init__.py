"""Telemetry, with a ledger."""
