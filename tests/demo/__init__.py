"""``make demo``: a sample spool drained into a local primary, as a user would do it."""
