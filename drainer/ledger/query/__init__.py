"""Read-only queries of the ledger."""
