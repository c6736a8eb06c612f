"""Below everything: worker processes, private files, databases, units."""
