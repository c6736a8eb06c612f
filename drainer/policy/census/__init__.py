"""Which recipients exist: what lists and the primary say, and where they disagree."""
