"""The spool of Exim."""
