"""The time of day, from one place."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return now, in UTC."""
    return datetime.now(UTC)
