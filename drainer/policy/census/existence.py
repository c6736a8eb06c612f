"""Whether a recipient exists, and who says so. Pure.

A list of recipients answers for the domains that it has entries of. Of others it says
nothing, and so does a list that is too old.
"""

import enum
from collections.abc import Sequence
from typing import NamedTuple


class Existence(enum.StrEnum):
    """Whether a recipient exists."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CANNOT_TELL = "cannot-tell"


LISTED = "listed"
CATCH_ALL = "catch-all"
NOT_LISTED = "not-listed"
NO_ENTRIES = "no-entries"
TOO_OLD = "list-too-old"
POSTMASTER = "postmaster"
ACCEPTED = "accepted"
REFUSED = "refused"
ACCEPTS_ANY = "accepts-any-address"
NO_ANSWER = "no-answer"

REASONS = {
    LISTED: "a list has the address",
    CATCH_ALL: "a list has the whole domain",
    NOT_LISTED: "a list has other addresses of the domain, and not this one",
    NO_ENTRIES: "no list has an address of the domain",
    TOO_OLD: "the list that has the domain is older than [recipients] max_age",
    POSTMASTER: "every domain has a postmaster, whatever a list says (RFC 5321 4.5.1)",
    ACCEPTED: "the primary accepted it at RCPT",
    REFUSED: "the primary says at RCPT that it does not exist",
    ACCEPTS_ANY: "the primary accepts any address of the domain",
    NO_ANSWER: "the primary was not asked, or did not say whether it exists",
}
"""What each reason means."""


class ExistenceAnswer(NamedTuple):
    """What is said about one recipient."""

    existence: Existence
    #: A key of REASONS.
    reason: str
    #: The list that says so, or the primary's reply; '' = none.
    by: str = ""


UNLISTED = ExistenceAnswer(Existence.CANNOT_TELL, NO_ENTRIES)


def combine(answers: Sequence[ExistenceAnswer]) -> ExistenceAnswer:
    """Return what several lists say together.

    A recipient is unknown only if no list that may know it is too old.
    """
    for answer in answers:
        if answer.existence is Existence.KNOWN:
            return answer
    undecided = [a for a in answers if a.reason in (TOO_OLD, POSTMASTER)]
    unknown = [a for a in answers if a.existence is Existence.UNKNOWN]
    return next(iter((*undecided, *unknown)), UNLISTED)
