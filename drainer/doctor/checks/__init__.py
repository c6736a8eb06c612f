"""The doctor's checks: a table that turns facts into findings; pure.

``drainer.doctor`` collects the facts. A check is one row: its function, and its texts,
from which docs/doctor.md is generated.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from drainer.bounce.evidence.dns import DnsOutcome
from drainer.doctor.checks import backup, domain, here, primary
from drainer.doctor.checks.check import (
    Check,
    CheckResult,
    DoctorFinding,
    Grade,
    skip,
)
from drainer.doctor.checks.facts import DoctorFacts

T = TypeVar("T")

HERE = "this host"
"""The subject of findings about this host."""


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield id, requirement, what fails it, and remedy of every check."""
    sections: tuple[Iterable[Check[Any]], ...] = (
        domain.RECORDS,
        domain.CHECKS,
        backup.CHECKS,
        primary.CHECKS,
        here.CHECKS,
    )
    for section in sections:
        for check in section:
            yield check.id, check.about, check.unless, check.remedy


def examine(facts: DoctorFacts) -> list[DoctorFinding]:
    """Return the findings of all checks, in the order of the table."""
    name = facts.domain.name
    found = _apply(domain.RECORDS, facts.domain, name)
    if facts.domain.outcome is DnsOutcome.FOUND and facts.domain.hosts:
        found += _apply(domain.CHECKS, facts.domain, name)
    else:
        found += [
            _finding(check, skip("there is no MX record to check"), name)
            for check in domain.CHECKS
        ]
    for each in facts.backups:
        found += _apply(backup.CHECKS, each, each.host)
    found += _apply(primary.CHECKS, facts.primary, facts.primary.route or "primary")
    return found + _apply(here.CHECKS, facts.here, HERE)


def _apply(checks: Sequence[Check[T]], facts: T, subject: str) -> list[DoctorFinding]:
    return [
        _finding(check, answer, subject)
        for check in checks
        for answer in _as_list(check.look(facts))
    ]


def _as_list(answers: CheckResult | list[CheckResult]) -> list[CheckResult]:
    return answers if isinstance(answers, list) else [answers]


def _finding(check: Check[T], answer: CheckResult, subject: str) -> DoctorFinding:
    return DoctorFinding(
        check=check.id,
        subject=answer.subject or subject,
        grade=answer.grade,
        found=answer.found,
        remedy=answer.remedy or _USUAL.get(answer.grade, check.remedy),
    )


_USUAL = {
    Grade.OK: "",
    Grade.UNKNOWN: "run it again later, or from another host",
    Grade.SKIPPED: "",
}
"""The remedy for grades that need no fix."""


def has_failure(findings: Iterable[DoctorFinding]) -> bool:
    """Return whether any check failed."""
    return any(each.grade is Grade.FAIL for each in findings)
