"""The spool of OpenSMTPD."""
