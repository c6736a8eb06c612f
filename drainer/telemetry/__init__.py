"""Traces: a projection of the ledger's decisions onto spans."""

LAST_WORDS = 20.0
"""Seconds that the export may take once the drain is over."""
