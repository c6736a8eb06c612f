"""Checks of the primary, as this host will deliver to it; pure."""

from drainer.doctor.checks.check import (
    NO_RECIPIENT,
    Check,
    CheckResult,
    Grade,
    fail,
    ok,
    skip,
    unknown,
    warn,
)
from drainer.doctor.checks.facts import PrimaryFacts
from drainer.mail.reply import Lost, Reply
from drainer.policy.classify.classifier import classify

_NO_PRIMARY = skip("no primary is known", remedy="name it with --primary")
_NULL_MX = frozenset(("1.10", "7.27"))
"""Details of RFC 7505 4.2: the domain of a sender or recipient accepts no mail."""
_ANOTHER = "name another --spf-sender, of a domain that has SPF -all and an MX"


def _ready(primary: PrimaryFacts) -> CheckResult:
    if not primary.stages:
        return unknown(primary.problem) if primary.problem else _NO_PRIMARY
    if primary.is_loop:
        return fail("it has our own name: it is this host, or [primary] helo is wrong")
    for grade, say in ((Grade.FAIL, fail), (Grade.WARN, warn)):
        for stage in primary.stages:
            if stage.verdict == grade:
                words = f"{stage.stage}: {stage.reply}" if stage.reply else stage.stage
                return say(words, "", stage.hint)
    return ok("ready")


def _greylist(primary: PrimaryFacts) -> CheckResult:
    missing = _reason_unasked(primary)
    said = primary.strict
    if missing or said is None:
        return missing or _NO_PRIMARY
    if said.is_accepted or said.is_refused:
        return ok(str(said))
    if isinstance(said.answer, Lost):
        return unknown(str(said))
    if classify(said.answer, said.stage).rule == "text-greylisted":
        return fail(str(said))
    return warn(f"it defers an unknown sender: {said}")


def _strict(primary: PrimaryFacts) -> CheckResult:
    missing = _reason_unasked(primary)
    said = primary.strict
    if missing or said is None:
        return missing or _NO_PRIMARY
    words = f"{primary.strict_sender}: {said}"
    if said.is_refused:
        if isinstance(said.answer, Reply) and said.answer.detail in _NULL_MX:
            return unknown(f"refused for another reason: {words}", "", _ANOTHER)
        return fail(words)
    if not said.is_accepted:
        return unknown(words)
    if primary.is_strict is None:
        return unknown(f"DNS does not say if its SPF is strict: {words}", "", _ANOTHER)
    if not primary.is_strict:
        return unknown(f"its domain has no SPF with -all: {words}", "", _ANOTHER)
    return ok(words)


def _reason_unasked(primary: PrimaryFacts) -> CheckResult | None:
    """Return why the strict sender was not tried; None when it was."""
    if not primary.route:
        return _NO_PRIMARY
    if not primary.recipient:
        return NO_RECIPIENT
    if primary.strict is None:
        return unknown(primary.problem or "there was no session")
    return None


CHECKS: tuple[Check[PrimaryFacts], ...] = (
    Check(
        id="primary-ready",
        about="the primary lets this host relay: `drainer check` passes",
        unless="one of its stages fails; warns: one of its stages warns",
        remedy="run `drainer check` and follow its hints",
        look=_ready,
    ),
    Check(
        id="primary-greylist",
        about="it does not greylist this host",
        unless="its reply to an unknown sender says so; warns: it defers that sender",
        remedy="exempt this host there from greylisting, postscreen and rate limits",
        look=_greylist,
    ),
    Check(
        id="primary-spf",
        about="it accepts mail of a sender with strict SPF from this host",
        unless="it refuses the sender",
        remedy="exempt this host there from SPF and DMARC checks: it passes on mail of"
        " other senders",
        look=_strict,
    ),
)
