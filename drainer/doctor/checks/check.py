"""What one check of the doctor is, and what it finds."""

import enum
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from drainer.runtime.values import dataclass

T = TypeVar("T")


class Grade(enum.StrEnum):
    """How a check ends."""

    OK = "ok"
    #: It works, and will hurt one day.
    WARN = "warn"
    #: Mail would be lost, misled, or refused during an outage or after it.
    FAIL = "fail"
    #: It was asked, and there was no answer to judge.
    UNKNOWN = "unknown"
    #: It was not asked.
    SKIPPED = "skipped"


class CheckResult(NamedTuple):
    """A grade, what was found, about whom, and what to do."""

    grade: Grade
    found: str
    #: '' = whom the section is about.
    subject: str = ""
    #: '' = the usual one.
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[T]):
    """One row of the table, over facts of a section."""

    id: str
    #: What must hold.
    about: str
    #: What makes it fail or warn, for the documentation.
    unless: str
    #: What to do, in one line.
    remedy: str
    look: Callable[[T], CheckResult | list[CheckResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFinding:
    """What one check found about one subject."""

    check: str
    subject: str
    grade: Grade
    found: str
    #: '' when there is nothing to do.
    remedy: str


def ok(found: str, subject: str = "") -> CheckResult:
    """Say that it is as it should be."""
    return CheckResult(Grade.OK, found, subject)


def warn(found: str, subject: str = "", remedy: str = "") -> CheckResult:
    """Say what will hurt one day."""
    return CheckResult(Grade.WARN, found, subject, remedy)


def fail(found: str, subject: str = "", remedy: str = "") -> CheckResult:
    """Say what is wrong."""
    return CheckResult(Grade.FAIL, found, subject, remedy)


def unknown(found: str, subject: str = "", remedy: str = "") -> CheckResult:
    """Say why nobody knows."""
    return CheckResult(Grade.UNKNOWN, found, subject, remedy)


def skipped(found: str, subject: str = "", remedy: str = "") -> CheckResult:
    """Say why it was not asked."""
    return CheckResult(Grade.SKIPPED, found, subject, remedy)


NO_RECIPIENT = skipped(
    "no recipient is known that exists",
    remedy="name one with --recipient, or in [health] accept",
)
"""What several checks need."""
