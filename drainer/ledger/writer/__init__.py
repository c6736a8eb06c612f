"""The one process that writes the ledger, and its client."""
