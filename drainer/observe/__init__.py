"""Traces: a projection of the ledger's decisions onto spans."""
