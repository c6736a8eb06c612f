"""What a check of the doctor is, and what it finds."""

import enum
from collections.abc import Callable
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Grade(enum.StrEnum):
    """The result of a check."""

    OK = "ok"
    #: It works now, but will cause trouble one day.
    WARN = "warn"
    #: Mail would be lost, misrouted, or refused during an outage or after it.
    FAIL = "fail"
    #: It was asked, but the answer allows no judgement.
    UNKNOWN = "unknown"
    #: It was not asked.
    SKIPPED = "skipped"


class CheckResult(NamedTuple):
    """A grade, what was found, about which subject, and the remedy."""

    grade: Grade
    found: str
    #: '' = the subject of the section.
    subject: str = ""
    #: '' = the check's own remedy.
    remedy: str = ""


class Check(Struct, Generic[T], frozen=True, kw_only=True):
    """One row of the table, over the facts of a section."""

    id: str
    #: The requirement.
    about: str
    #: What makes it fail or warn; for the documentation.
    unless: str
    #: The remedy, in one line.
    remedy: str
    look: Callable[[T], CheckResult | list[CheckResult]]


class DoctorFinding(Struct, frozen=True, kw_only=True):
    """What one check found about one subject."""

    check: str
    subject: str
    grade: Grade
    found: str
    #: '' when nothing needs to be done.
    remedy: str


ok = partial(CheckResult, Grade.OK)
warn = partial(CheckResult, Grade.WARN)
fail = partial(CheckResult, Grade.FAIL)
unknown = partial(CheckResult, Grade.UNKNOWN)
skip = partial(CheckResult, Grade.SKIPPED)

NO_RECIPIENT = skip(
    "no existing recipient is known",
    remedy="name one with --recipient, or in [health] accept",
)
"""Shared by several checks."""
