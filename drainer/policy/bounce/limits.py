"""How many reports may be sent, and which two are the same; pure arithmetic.

The key is on disk before a report is queued, so a crash neither repeats a report nor
changes its name.
"""

import hashlib
from collections.abc import Hashable, Iterable
from datetime import datetime, timedelta

from msgspec import Struct

from drainer.mail.envelope import domain_of
from drainer.mail.mailbox import mailbox_key

KEEP_KEYS = timedelta(days=14)
"""How long a key is kept: a failure that comes again later is reported again."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class ReportLimits(Struct, frozen=True, kw_only=True):
    """The most reports that may be sent to a mailbox, to a domain, and in all."""

    sender_per_hour: int = 3
    sender_per_day: int = 10
    domain_per_hour: int = 50
    per_hour: int = 200
    per_run: int = 1000
    #: Each starts a tag, which leads to the same mailbox: user+tag is user.
    tag_delimiters: str = "+"


class ReportHistory(Struct, frozen=True, kw_only=True):
    """The reports that were sent already."""

    sender_last_hour: int = 0
    sender_last_day: int = 0
    domain_last_hour: int = 0
    last_hour: int = 0
    this_run: int = 0


def find_exceeded(limits: ReportLimits, sent: ReportHistory) -> str:
    """Return which limit one more report would exceed; '' for none."""
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


class ReportedRecipient(Struct, frozen=True, kw_only=True):
    """A recipient that a report to the sender is about."""

    at: datetime
    sender: str
    key: str
    #: Recipients with the same id share one report, which counts once.
    report: Hashable
    run: str
    #: The organisation of the sender's domain; '' if it is not known.
    organisation: str = ""

    @property
    def domain(self) -> str:
        """Return what counts for the limit of a domain: names below it are free."""
        return self.organisation or domain_of(mailbox_key(self.sender))


class ReportTally:
    """All reports that were sent, as they count against the next one."""

    def __init__(self, recipients: Iterable[ReportedRecipient]) -> None:
        self._keys: set[str] = set()
        self._reports: dict[Hashable, ReportedRecipient] = {}
        for each in recipients:
            self.add(each)

    def add(self, recipient: ReportedRecipient) -> None:
        """Count one more; another recipient of the same report adds nothing."""
        self._keys.add(recipient.key)
        self._reports.setdefault(recipient.report, recipient)

    def knows(self, recipient: ReportedRecipient) -> bool:
        """Return whether the same failure was reported."""
        return recipient.key in self._keys

    def before(
        self, recipient: ReportedRecipient, tag_delimiters: str = ""
    ) -> ReportHistory:
        """Return what was sent before this report; nothing if it joins an earlier one.

        All spellings of a mailbox count as one.
        """
        if recipient.report in self._reports:
            return ReportHistory()
        others = self._reports.values()
        day = [each for each in others if each.at > recipient.at - DAY]
        hour = [each for each in day if each.at > recipient.at - HOUR]
        by_day, by_hour = (
            [mailbox_key(each.sender, tag_delimiters) for each in these]
            for these in (day, hour)
        )
        mine = mailbox_key(recipient.sender, tag_delimiters)
        return ReportHistory(
            sender_last_hour=by_hour.count(mine),
            sender_last_day=by_day.count(mine),
            domain_last_hour=sum(each.domain == recipient.domain for each in hour),
            last_hour=len(hour),
            this_run=sum(each.run == recipient.run for each in others),
        )


def dedupe_key(sender: str, original: str, recipient: str, status: str) -> str:
    """Return the key (64 hex digits) of one recipient's failure.

    ``original`` is the message's Message-ID, or a hash of its content if it has none.
    ``status`` is the enhanced status code.
    """
    parts = "".join(
        f"{len(part)}:{part}" for part in (sender, original, recipient, status)
    )
    return hashlib.sha256(parts.encode("utf-8", "surrogateescape")).hexdigest()


def report_id(keys: Iterable[str], hostname: str) -> str:
    """Return the Message-ID of the report about these failures, in any order."""
    digest = hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()
    return f"<report-{digest[:32]}@{hostname}>"
