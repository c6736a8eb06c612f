"""Classify one reply: what it means, for whom, and by which rule.

The stage outranks the code, and a specific enhanced code outranks the basic code. The
text decides where the codes are generic; otherwise it can only make the verdict safer.
A reply before MAIL is never about a message (Exim, Haraka and Postfix each bounce on
some of them). A `bounce` is always provisional. An unknown or malformed reply is never
permanent.

A text may quote what a stranger chose: an address, a header field. So the classifier
reads whatever looks like a refusal of us a second time, with all that was sent masked.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from msgspec.structs import replace

from drainer.mail.echo import SentData, remove_echo
from drainer.mail.message import (
    BEHIND_BREAKER,
    HOST_LIMIT,
    PROBLEMS,
    UNSCANNED,
    Problem,
    ScanProblem,
)
from drainer.mail.reply import EXTENSION, SESSION_END, Lost, Reply, Stage
from drainer.mail.reply_codes import GO_AHEAD, INTERMEDIATE, SUCCESS, TRANSIENT
from drainer.policy.classify import codes
from drainer.policy.classify.grammar import plain
from drainer.policy.classify.normalize import words_of
from drainer.policy.classify.rules import Rule, families, find
from drainer.policy.classify.verdict import (
    BOUNCES,
    STOPS,
    VERDICTS,
    Action,
    Classification,
    Scope,
    Verdict,
)

Answer = Reply | Lost | Problem
"""The outcome of an attempt: a reply, no reply, or our own refusal to send."""

_TOO_MANY = frozenset((452, 552))
_TOO_MANY_WORDS = "too-many-recipients"
_SICK = frozenset((451, 452))
_GENERIC = frozenset(("", "0.0", "1.0", "2.0", "3.0", "5.0", "7.0", "7.1"))
"""Details that say little: there the text decides."""
_NOT_FINAL = frozenset(Action) - BOUNCES
_SAFER = {
    Action.BOUNCE: _NOT_FINAL,
    Action.BOUNCE_MESSAGE: _NOT_FINAL,
    Action.HOLD: STOPS,
}
"""What a text may change in an action if the code is specific."""
_ABOUT_US = frozenset(("our-address", "our-rate"))
"""What a text may say behind a code about the recipient: wait, and count as a vote."""
_FAULT = "filter-down"
_SENT_AGAIN = {
    EXTENSION: "sent again without an extension that fails there",
    SESSION_END: "sent again in another session, because the primary ended this one",
}
"""Reasons of a Lost after which the same message is sent again, at once."""
_GREYLISTED = "greylisted"
_SUSPECT = frozenset((Verdict.STOP, Verdict.HOLD))
"""Verdicts that a stranger's text must not cause."""


def classify(
    answer: Answer,
    stage: Stage,
    *,
    accepted: int = 0,
    rules: Sequence[Rule] = (),
    sent: Callable[[], SentData] | None = None,
) -> Classification:
    """Classify the outcome of a stage.

    ``accepted`` is the number of recipients that this transaction had accepted before.
    It separates "too many recipients" from a refusal (RFC 5321 4.5.3.1.10). ``rules``
    are the operator's own; they outrank ours from MAIL on. ``sent`` returns what the
    transaction has sent; it is called for a refusal of us only.
    """
    match answer:
        case Problem():
            return _judge_problem(answer)
        case Lost():
            return _judge_loss(answer, stage)
        case Reply():  # pragma: no branch
            found = _judge_reply(answer, stage, accepted, rules)
            if found.verdict is Verdict.DELIVER or sent is None:
                return found
            if stage.before_mail or not _is_about_us(found):
                return found
            masked = _judge_reply(remove_echo(answer, sent()), stage, accepted, rules)
            return _without_echo(found, masked)


def _is_about_us(found: Classification) -> bool:
    """Return whether it counts against the primary, so no stranger may cause it."""
    is_vote = found.rule.removeprefix("text-") in _ABOUT_US
    return is_vote or found.verdict in _SUSPECT


def _without_echo(found: Classification, masked: Classification) -> Classification:
    """Return what a reply means without the text that was sent, and say so.

    Masking never makes the verdict worse: it may also hide text that keeps a rule from
    applying.
    """
    is_worse = masked.verdict is Verdict.STOP is not found.verdict
    if is_worse or masked.rule == found.rule:
        return found
    reason = f"{masked.reason}; the reply quotes what was sent, {found.rule} is ignored"
    return replace(masked, reason=reason)


def _judge_problem(problem: Problem) -> Classification:
    if problem.code == BEHIND_BREAKER:
        reason = f"not tried, because the primary refuses this host: {problem.detail}"
        return _judgement(Action.STOP_DOMAIN, "breaker-open", reason)
    if problem.code == HOST_LIMIT:
        reason = f"not sent, because of this host: {problem.detail}"
        return _judgement(Action.RETRY, HOST_LIMIT, reason, Scope.MESSAGE, counts=False)
    if isinstance(problem, ScanProblem):
        return _judge_scan(problem)
    reason = f"{PROBLEMS[problem.code][0]}: {problem.detail}"
    return _judgement(Action.HOLD, f"local-{problem.code}", reason, Scope.MESSAGE)


def _judge_scan(problem: ScanProblem) -> Classification:
    is_hit = problem.code != UNSCANNED
    words = "a scanner objects to its content" if is_hit else "not scanned, so not sent"
    return Classification(
        verdict=Verdict.HOLD if is_hit else Verdict.RETRY,
        scope=Scope.MESSAGE,
        rule=problem.code,
        reason=f"{words}: {problem.detail}",
        counts=is_hit,
        evidence=problem.evidence,
    )


def _judge_loss(lost: Lost, stage: Stage) -> Classification:
    if stage.before_mail:
        # A failed handshake is as good as a 5xx; waiting does not fix it.
        action = Action.STOP if lost.reason == "tls" else Action.STOP_BRIEFLY
        return _judgement(action, f"{stage}-lost", f"no {stage}: {lost}")
    if stage is Stage.DOT:  # it may have been accepted: RFC 5321 4.5.3.2.6, RFC 1047
        return Classification(
            verdict=Verdict.UNKNOWN,
            scope=Scope.MESSAGE,
            rule="dot-lost",
            reason=f"the reply to the final dot was lost: {lost}",
        )
    if lost.reason in _SENT_AGAIN:
        return Classification(
            verdict=Verdict.RETRY,
            scope=Scope.MESSAGE,
            rule=f"{stage}-{lost.reason}",
            reason=f"{_SENT_AGAIN[lost.reason]}: {lost}",
            short=lost.reason == SESSION_END,  # then alone: it may be the cause
            counts=False,
        )
    reason = f"the connection was lost before the final dot: {lost}"
    return _judgement(Action.RETRY, f"{stage}-lost", reason, Scope.MESSAGE)


def _judge_reply(
    reply: Reply, stage: Stage, accepted: int, rules: Sequence[Rule]
) -> Classification:
    if reply.category in (SUCCESS, INTERMEDIATE):
        return _judge_positive(reply, stage)
    if stage.before_mail:
        return _judge_early(reply, stage)
    words = words_of(reply.text)
    own = find(rules, words, reply, stage)
    if own is not None:
        return _judge_by_rule(own, reply, stage)
    if reply.code == 421:  # noqa: PLR2004 - RFC 5321 3.8
        if stage is Stage.DOT:
            reason = "the primary closed the connection and did not accept the message"
            return _judgement(Action.RETRY, "dot-421", reason, Scope.MESSAGE)
        return _judgement(
            Action.STOP_BRIEFLY, f"{stage}-421", "the primary closes the channel"
        )
    if stage is Stage.RCPT and accepted and _is_too_many(reply, words):
        reason = "too many recipients in one transaction: sent in another"
        return _judgement(Action.RETRY, "rcpt-too-many", reason, counts=False)
    if stage is Stage.MAIL and reply.code in _SICK and reply.detail[:2] == "3.":
        reason = "the primary's mail system is full or has a fault"
        return _judgement(Action.STOP_BRIEFLY, f"mail-{reply.enhanced}", reason)
    return _judge_by_text(reply, stage, plain(words))


def _judge_positive(reply: Reply, stage: Stage) -> Classification:
    due = reply.code == GO_AHEAD if stage is Stage.DATA else reply.category == SUCCESS
    if not due:  # 2xx where 354 is due, 3xx elsewhere
        reason = f"{reply.code} is not a valid answer at {stage}"
        rule = f"{stage}-protocol"
        if stage.before_mail:
            return _judgement(Action.STOP_BRIEFLY, rule, reason)
        return _judgement(Action.RETRY, rule, reason, Scope.MESSAGE)
    return _classify_acceptance(stage)


@cache
def _classify_acceptance(stage: Stage) -> Classification:
    return Classification(
        verdict=Verdict.DELIVER,
        scope=Scope.RECIPIENT,
        rule=f"{stage}-accepted",
        reason="accepted by the primary",
    )


def _judge_early(reply: Reply, stage: Stage) -> Classification:
    transient = reply.category == TRANSIENT
    reason = f"the primary refuses this host at {stage}"
    rule = f"{stage}-{reply.category}xx"
    return _judgement(Action.STOP_BRIEFLY if transient else Action.STOP, rule, reason)


def _is_too_many(reply: Reply, words: str) -> bool:
    found = _family(plain(words), reply.code, reply.detail, Stage.RCPT)
    if reply.detail == "5.3" or (found is not None and found.id == _TOO_MANY_WORDS):
        return True
    return reply.code in _TOO_MANY and reply.detail in ("", "0.0", "3.0", "5.0")


def _judge_by_text(reply: Reply, stage: Stage, words: str) -> Classification:
    """Let the text decide as far as it may; the codes decide the rest."""
    action, rule, meaning = _row(reply, stage)
    family = _family(words, reply.code, reply.detail, stage)
    if family is not None and _names_recipient(reply, stage):
        family = _behind_code(family, reply, stage, words)
    if family is not None:
        is_generic = reply.detail in _GENERIC and reply.code not in codes.OUTRANKING
        is_clear = bool(family.details) or family.id == _GREYLISTED
        theirs = family.action(reply.category)
        if is_generic or is_clear or theirs in _SAFER.get(action, ()):
            return _judge_by_rule(family, reply, stage)
    if action in BOUNCES and reply.mixed:
        return _judgement(Action.HOLD, "mixed-codes", "the lines of the reply disagree")
    return _judgement(_widen(action, stage), rule, meaning)


@lru_cache(maxsize=2048)
def _family(words: str, code: int, detail: str, stage: Stage) -> Rule | None:
    """Return the family of a reply; servers repeat themselves, so it is kept."""
    enhanced = f"{code // 100}.{detail}" if detail else ""
    return find(families(), words, Reply(code=code, enhanced=enhanced), stage)


def family_of(reply: Reply) -> Rule | None:
    """Return the family of words that a reply belongs to, whatever its codes say."""
    words = plain(words_of(reply.text))
    return _family(words, reply.code, reply.detail, Stage.RCPT)


def _names_recipient(reply: Reply, stage: Stage) -> bool:
    """Return whether the code is about this recipient: no text overrules that."""
    return (
        stage not in (Stage.MAIL, Stage.DATA)
        and codes.is_of_recipient(reply.detail)
        and (reply.code, reply.detail) not in codes.DIALECTS
        and reply.code not in codes.OUTRANKING
    )


def _behind_code(family: Rule, reply: Reply, stage: Stage, words: str) -> Rule | None:
    """Return what a text may say behind a code that is about the recipient.

    It never says that the primary refuses us. If it names our address, or our rate, the
    recipient waits, and it is a vote against the primary (policy.breaker.detector). If
    a part of the primary failed, the recipient is tried again.
    """
    if family.id == _FAULT:
        return replace(family, permanent=Action.RETRY, temporary=Action.RETRY)
    if family.action(reply.category) not in STOPS:
        return family
    ours = (each for each in families() if each.id in _ABOUT_US)
    found = find(ours, words, reply, stage)
    return found and replace(
        found,
        permanent=Action.RETRY_LONG,
        temporary=Action.RETRY_LONG,
        details=frozenset((reply.detail,)),
    )


def _judge_by_rule(rule: Rule, reply: Reply, stage: Stage) -> Classification:
    action = rule.action(reply.category)
    assert action is not None  # noqa: S101 - else the rule would not match
    if action in BOUNCES and reply.mixed:
        return _judgement(Action.HOLD, "mixed-codes", "the lines of the reply disagree")
    return _judgement(_widen(action, stage), f"text-{rule.id}", rule.why)


def _row(reply: Reply, stage: Stage) -> tuple[Action, str, str]:
    """Return action, rule and meaning by the codes alone."""
    row = codes.DIALECTS.get((reply.code, reply.detail)) or codes.ENHANCED.get(
        reply.detail
    )
    if row is not None and reply.code not in codes.OUTRANKING:
        action = row[0] if reply.category == TRANSIENT else row[1]
        if reply.enhanced == "5.7.9" and stage in (Stage.DATA, Stage.DOT):
            action = Action.BOUNCE_MESSAGE  # there it is about the content ("policy")
        if action is not None:
            return action, f"enhanced-{reply.enhanced}", row[2]
    default = (
        (Action.RETRY, "a temporary failure")
        if reply.category == TRANSIENT
        else (Action.BOUNCE, "a permanent failure")
    )
    action, meaning = codes.BASIC.get(reply.code, default)
    return action, f"basic-{reply.code}", meaning


def _widen(action: Action, stage: Stage) -> Action:
    """Widen a bounce that did not come at RCPT: it concerns the whole message."""
    is_wide = action is Action.BOUNCE and stage is not Stage.RCPT
    return Action.BOUNCE_MESSAGE if is_wide else action


def _judgement(
    action: Action,
    rule: str,
    reason: str,
    scope: Scope | None = None,
    *,
    counts: bool = True,
) -> Classification:
    verdict, usual = VERDICTS[action]
    return Classification(
        verdict=verdict,
        scope=scope or usual,
        rule=rule,
        reason=reason,
        short=action is Action.STOP_BRIEFLY,
        counts=counts and verdict is not Verdict.STOP,
    )
