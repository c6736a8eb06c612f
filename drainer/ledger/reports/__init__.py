"""What the ledger keeps about bounces: pending, queued, sent, limited."""
