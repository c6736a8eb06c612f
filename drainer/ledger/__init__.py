"""Durable memory: what was scanned, tried and decided.

One process writes (drainer.ledger.writer). A method returns when its group commit is
durable. Reading (drainer.ledger.reader) never waits for it.
"""
