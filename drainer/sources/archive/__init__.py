"""Sources in an archive: tar or zip, compressed or not."""
