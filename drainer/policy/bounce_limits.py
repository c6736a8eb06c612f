"""How many reports may leave, and what makes two of them the same; pure arithmetic.

Whoever calls counts; the key is kept on disk before a report is queued, so that a
crash neither repeats a report nor gives it another name.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

KEEP_KEYS = timedelta(days=14)
"""How long a key is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most reports that may leave; the sender and its domain are in lower case."""

    sender_per_hour: int = 3
    sender_per_day: int = 10
    domain_per_hour: int = 50
    per_hour: int = 200
    per_run: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The reports that left already."""

    sender_last_hour: int = 0
    sender_last_day: int = 0
    domain_last_hour: int = 0
    last_hour: int = 0
    this_run: int = 0


def exceeded(limits: Limits, sent: Sent) -> str:
    """Say which limit one more report would break; '' for none."""
    for count, limit, words in (
        (sent.sender_last_hour, limits.sender_per_hour, "to this sender in an hour"),
        (sent.sender_last_day, limits.sender_per_day, "to this sender in a day"),
        (sent.domain_last_hour, limits.domain_per_hour, "to this domain in an hour"),
        (sent.last_hour, limits.per_hour, "in an hour"),
        (sent.this_run, limits.per_run, "in one run"),
    ):
        if count >= limit:
            return f"{count} reports were sent {words}, {limit} are allowed"
    return ""


def dedupe_key(sender: str, original: str, recipient: str, status: str) -> str:
    """Return the key (64 hex digits) of one recipient's failure.

    ``original`` is the message's Message-ID, or a hash of its content when it has
    none; ``status`` the enhanced status code.
    """
    parts = "".join(
        f"{len(part)}:{part}" for part in (sender, original, recipient, status)
    )
    return hashlib.sha256(parts.encode("utf-8", "surrogateescape")).hexdigest()


def report_id(keys: Iterable[str], hostname: str) -> str:
    """Return the Message-ID of the report about these failures, in any order."""
    digest = hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()
    return f"<report-{digest[:32]}@{hostname}>"
