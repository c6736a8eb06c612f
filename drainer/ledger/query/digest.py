"""What a postmaster gets once a day: sums, no bodies, of addresses only the domain.

The digest masks the addresses that replies name (policy.classify.normalize).
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import DecisionKind, to_micros
from drainer.mail.envelope import domain_of
from drainer.policy.bounce.decision import RULES as BOUNCE_RULES
from drainer.policy.classify.describe import meaning_of
from drainer.policy.classify.normalize import mask_reply
from drainer.policy.classify.rules import Rule
from drainer.policy.recipient.state import State

TOP = 20
"""Rows of a list."""
MAX_WORDS = 200
"""Characters of a reply."""

_R, _M, _N = schema.recipients.c, schema.messages.c, schema.reports.c
_D = schema.decisions.c
_REFUSED = [
    state.value for state in (State.BOUNCE_PENDING, State.BOUNCED, State.QUARANTINED)
]
_CODE = re.compile(r"(?:[a-z]+: )?[245]\d\d(?: [245]\.\d{1,3}\.\d{1,3})?(?=\s|$)")


def digest(
    report: LedgerReader, since: datetime, until: datetime, rules: Sequence[Rule]
) -> dict[str, Any]:
    """Return the facts for scripts: the present counts, and what came since a time.

    ``reasons`` are all that is not delivered. ``sender_domains`` and ``refusals`` are
    about what was refused permanently since then, most first, at most TOP each.
    ``not_told`` is about what the bounce rules refused to report.
    """
    start = to_micros(since)
    states = report.states()
    spooled = report.sums().spooled
    domains, refusals = _refused(report, start)
    return {
        "since": since.isoformat(),
        "until": until.isoformat(),
        "spooled": spooled,
        "balanced": spooled == sum(states.values()),
        "states": states,
        "reasons": _reasons(report, start, rules),
        "sender_domains": [
            {"domain": domain, "recipients": count} for domain, count in domains
        ],
        "refusals": [
            {"words": words, "recipients": count} for words, count in refusals
        ],
        "not_told": _not_told(report, start),
        "breakers": [
            breaker | {"reply": fingerprint(breaker["reply"])}
            for breaker in report.breakers()
        ],
        "reports": _reports(report, start),
    }


def fingerprint(reply: str) -> str:
    """Return a reply without what names a person, host or id; its codes stay.

    Replies that belong to a breaker have the stage in front.
    """
    code = _CODE.match(reply)
    words = mask_reply(reply[code.end() :] if code else reply)
    return f"{code[0] if code else ''} {words}".strip()[:MAX_WORDS]


def _reasons(
    report: LedgerReader, start: int, rules: Sequence[Rule]
) -> list[dict[str, Any]]:
    count = sa.func.count().label("count")
    recent = sa.func.sum(sa.case((_R.since >= start, 1), else_=0)).label("recent")
    query = (
        sa.select(_R.state, _R.rule, count, recent)
        .where(_R.state != State.DELIVERED.value)
        .group_by(_R.state, _R.rule)
        .order_by(count.desc(), _R.state, _R.rule)
        .limit(TOP)
    )
    return [
        {
            "state": row["state"],
            "rule": row["rule"],
            "reason": meaning_of(row["rule"], rules),
            "recipients": int(row["count"]),
            "new": int(row["recent"]),
        }
        for row in report.rows(query)
    ]


def _refused(
    report: LedgerReader, start: int
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return sender domains, and fingerprints, of what was refused permanently."""
    domains, words = Counter[str](), Counter[str]()
    query = (
        sa.select(_M.reverse_path, _R.reply)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state.in_(_REFUSED), _R.since >= start)
    )
    for row in report.rows(query):
        domains[domain_of(row["reverse_path"]) or "<>"] += 1
        words[fingerprint(row["reply"])] += 1
    return domains.most_common(TOP), words.most_common(TOP)


def _not_told(report: LedgerReader, start: int) -> list[dict[str, Any]]:
    """Return the bounce rules because of which quarantined mail has no report."""
    count = sa.func.count().label("count")
    final = (_D.message == _R.message) & (_D.n == _R.n) & (_D.at == _R.since)
    query = (
        sa.select(_D.rule, count)
        .join(schema.recipients, final)
        .where(_R.state == State.QUARANTINED.value, _R.since >= start)
        .where(_D.kind == DecisionKind.BOUNCE.value)
        .group_by(_D.rule)
        .order_by(count.desc(), _D.rule)
    )
    return [
        {
            "rule": row["rule"],
            "about": BOUNCE_RULES[row["rule"]][0]
            if row["rule"] in BOUNCE_RULES
            else "",
            "recipients": int(row["count"]),
        }
        for row in report.rows(query)
    ]


def _reports(report: LedgerReader, start: int) -> dict[str, int]:
    """Return the reports to senders since then, by what became of them."""
    one = (
        sa.select(_N.state, _N.message, _N.action, _N.sender, _N.report)
        .where(_N.at >= start)
        .distinct()
        .subquery()
    )
    count = sa.func.count().label("count")
    query = sa.select(one.c.state, count).group_by(one.c.state)
    found = {row["state"]: int(row["count"]) for row in report.rows(query)}
    return {state: found.get(state, 0) for state in ("queued", "sent", "failed")}
