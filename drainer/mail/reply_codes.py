"""Reply codes, and the first digits of all of them (RFC 5321 4.2)."""

SUCCESS, INTERMEDIATE, TRANSIENT, PERMANENT = 2, 3, 4, 5
"""First digits (RFC 5321 4.2.1)."""
GO_AHEAD, CLOSING = 354, 421
"""The content may follow; the session ends."""
