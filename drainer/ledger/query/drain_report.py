"""The facts of `drainer report`: sums of the ledger, as JSON for scripts has them.

The sums are about all of the ledger. Their totals equal those of `drainer status`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.columns import from_json
from drainer.ledger.query.digest import digest
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import DecisionKind, Row, from_micros
from drainer.policy.breaker.remedies import advice
from drainer.policy.classify.describe import meaning_of
from drainer.policy.classify.rules import Rule
from drainer.policy.recipient.state import FINAL, State

_R, _M = schema.recipients.c, schema.messages.c
_D, _A, _RUN = schema.decisions.c, schema.attempts.c, schema.runs.c

BARS = 60
"""Bars of the throughput."""
MOST = 100
"""Rows of a list."""
SAMPLES = 3
"""Messages that are named for a reason."""
ATTEMPTS = 20_000
"""The last attempts: the times of replies are of them."""
AGES: Final = (("1 h", 1), ("6 h", 6), ("1 d", 24), ("2 d", 48), ("5 d", 120))
"""Ages of mail at delivery: words, and hours. What is older comes last."""
_FINAL = [state.value for state in FINAL]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def report_facts(
    reader: LedgerReader, now: datetime, rules: Sequence[Rule]
) -> dict[str, Any]:
    """Return everything that a report shows; ``rules`` are the operator's own."""
    states, recorded = reader.states(), reader.sums()
    sums = digest(reader, _EPOCH, now, rules)
    return {
        "at": now.isoformat(timespec="seconds"),
        "spooled": recorded.spooled,
        "states": states,
        "balanced": recorded.spooled == sum(states.values()),
        "messages": recorded.messages,
        "routes": _routes(reader),
        "runs": _runs(reader),
        "throughput": _throughput(reader),
        "latency": _latency(reader),
        "ages": _ages(reader),
        "reasons": _reasons(reader, rules),
        "breakers": reader.breakers(),
        "breaker_history": _breaker_history(reader),
        "reports": sums["reports"],
        "not_told": sums["not_told"],
        "refusals": sums["refusals"],
        "sender_domains": sums["sender_domains"],
    }


def _routes(reader: LedgerReader) -> list[dict[str, Any]]:
    """Return the recipients of each route by state."""
    found = reader.states_by_route()
    return [{"route": name, "states": counts} for name, counts in found.items()]


def _runs(reader: LedgerReader) -> list[dict[str, Any]]:
    """Return the last runs, the first of them first."""
    query = sa.select(schema.runs).order_by(_RUN.started.desc()).limit(MOST)
    rows = list(reader.rows(query))[::-1]
    ends = sa.select(_D.run, _D.verdict, _D.evidence).where(
        _D.kind == DecisionKind.RUN_ENDED.value,
        _D.run.in_([row["id"] for row in rows]),
    )
    known = {row["run"]: row for row in reader.rows(ends)}
    taken = schema.run_routes.c
    routes: dict[str, list[str]] = {}
    for row in reader.rows(sa.select(taken.run, taken.route).order_by(taken.place)):
        routes.setdefault(row["run"], []).append(row["route"])
    return [
        _run(row, known.get(row["id"]), ", ".join(routes.get(row["id"], [])))
        for row in rows
    ]


def _run(row: Row, end: Row | None, route: str) -> dict[str, Any]:
    evidence = from_json(end["evidence"]) if end else {}
    return {
        "id": row["id"],
        "route": route,
        "started": _iso(row["started"]),
        "ended": _iso(evidence.get("last_seen") or row["ended"]),
        "exit": row["exit"],
        "died": bool(end and end["verdict"]),
        "messages": evidence.get("messages"),
        "bytes": evidence.get("bytes"),
    }


def _throughput(reader: LedgerReader) -> dict[str, Any]:
    """Return how many recipients were delivered in equal parts of the time.

    ``limits`` are the changes of the allowed rate, in messages a second.
    """
    delivered = _R.state == State.DELIVERED.value
    span = sa.select(
        sa.func.min(_R.since).label("first"), sa.func.max(_R.since).label("last")
    ).where(delivered)
    (times,) = reader.rows(span)
    if times["first"] is None:
        return {"start": None, "seconds": 0, "counts": [], "limits": []}
    first, last = int(times["first"]), int(times["last"])
    width = max(1_000_000, (last - first) // BARS + 1)
    offset = _R.since - first
    part = (offset - offset % width).label("part")
    query = _counted(sa.select(part).where(delivered))
    counts = [0] * ((last - first) // width + 1)
    for row in reader.rows(query):
        counts[int(row["part"]) // width] = int(row["count"])
    return {
        "start": _iso(first),
        "seconds": width / 1e6,
        "counts": counts,
        "limits": _limits(reader),
    }


def _limits(reader: LedgerReader) -> list[dict[str, Any]]:
    """Return the allowed rate of a run, all its routes together, at each change."""
    changes = sa.select(_D.at, _D.run, _D.evidence)
    changes = changes.where(_D.kind == DecisionKind.THROTTLE.value)
    found: list[tuple[int, str, dict[str, float]]] = []
    for row in reader.rows(changes.order_by(_D.id.desc()).limit(MOST)):
        facts = from_json(row["evidence"] or "{}")
        if "per_second" in facts:
            rates = {facts.get("route", ""): facts["per_second"]}
            found.append((row["at"], row["run"], rates))
    begun = sa.select(_RUN.started, _RUN.id, _RUN.facts).order_by(_RUN.started.desc())
    for row in reader.rows(begun.limit(MOST)):
        rates = from_json(row["facts"] or "{}").get("rates", {})
        if rates:
            found.append((row["started"], row["id"], rates))
    allowed: dict[str, dict[str, float]] = {}
    limits = []
    for at, run, rates in sorted(found, key=lambda each: each[0]):
        known = allowed.setdefault(run, {})
        known.update(rates)
        limits.append({"at": _iso(at), "per_second": sum(known.values())})
    return limits


def _latency(reader: LedgerReader) -> list[dict[str, Any]]:
    """Return how long the primary took to answer, by stage, in milliseconds."""
    query = sa.select(_A.stages).where(_A.ended.is_not(None))
    times: dict[str, list[int]] = {}
    for row in reader.rows(query.order_by(_A.id.desc()).limit(ATTEMPTS)):
        before = 0
        for stage, offset, _ in from_json(row["stages"] or "[]"):
            if stage in ("mail", "rcpt", "data", "dot"):
                times.setdefault(stage, []).append(offset - before)
            before = offset
    return [
        {"stage": stage, "replies": len(found), **_quantiles(sorted(found))}
        for stage in ("mail", "rcpt", "data", "dot")
        if (found := times.get(stage))
    ]


def _quantiles(found: list[int]) -> dict[str, float]:
    last = len(found) - 1
    return {
        name: round(found[int(last * share)] / 1000, 1)
        for name, share in (("median", 0.5), ("p95", 0.95), ("most", 1.0))
    }


def _ages(reader: LedgerReader) -> list[dict[str, Any]]:
    """Return how old mail was when it was delivered."""
    age = _R.since - _M.arrived
    steps = [(age < hours * 3_600_000_000, n) for n, (_, hours) in enumerate(AGES)]
    step = sa.case(*steps, else_=len(AGES)).label("step")
    query = _counted(
        sa.select(step)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state == State.DELIVERED.value)
    )
    found = {int(row["step"]): int(row["count"]) for row in reader.rows(query)}
    names = [f"under {words}" for words, _ in AGES] + [f"{AGES[-1][0]} or more"]
    return [
        {"age": name, "recipients": found.get(n, 0)} for n, name in enumerate(names)
    ]


def _counted(query: sa.Select[Any]) -> sa.Select[Any]:
    """Return how often each value of a query's one column comes, as ``count``.

    PostgreSQL takes no expression with parameters twice for the same.
    """
    found = query.subquery()
    (column,) = found.c
    return sa.select(column, sa.func.count().label("count")).group_by(column)


def _reasons(reader: LedgerReader, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Return what is not delivered, by state and rule, most first, with samples."""
    count = sa.func.count().label("count")
    query = (
        sa.select(
            _R.state, _R.rule, count,
            sa.func.min(_R.since).label("since"),
            sa.func.min(_R.due).label("due"),
            sa.func.max(_R.due).label("last_due"),
            sa.func.max(_R.reply).label("reply"),
        )
        .where(_R.state != State.DELIVERED.value)
        .group_by(_R.state, _R.rule)
        .order_by(count.desc(), _R.state, _R.rule)
        .limit(MOST)
    )  # fmt: skip
    return [
        {
            "state": row["state"],
            "rule": row["rule"],
            "meaning": meaning_of(row["rule"], rules),
            "recipients": int(row["count"]),
            "since": _iso(row["since"]),
            "due": _iso(row["due"] or None),
            "last_due": _iso(row["last_due"] or None),
            "advice": advice(row["rule"], row["reply"] or ""),
            "samples": _samples(reader, row),
        }
        for row in list(reader.rows(query))
    ]


def _samples(reader: LedgerReader, reason: Row) -> list[dict[str, Any]]:
    query = (
        sa.select(_M.id, _M.native_id, _M.reverse_path, _R.forward_path, _R.reply)
        .join(schema.recipients, _R.message == _M.seq)
        .where(_R.state == reason["state"], _R.rule == reason["rule"])
        .order_by(_M.seq, _R.n)
        .limit(SAMPLES)
    )
    return list(reader.rows(query))


def _breaker_history(reader: LedgerReader) -> list[dict[str, Any]]:
    query = (
        sa.select(_D.at, _D.rule, _D.reply, _D.evidence)
        .where(_D.kind == DecisionKind.BREAKER.value, _D.message.is_(None))
        .order_by(_D.id.desc())
        .limit(MOST)
    )
    found = []
    for row in list(reader.rows(query))[::-1]:
        facts = from_json(row["evidence"] or "{}")
        found.append(
            {
                "at": _iso(row["at"]),
                "change": row["rule"].removeprefix("breaker-"),
                "scope": facts.get("scope", ""),
                "reason": facts.get("reason", ""),
                "reply": row["reply"],
            }
        )
    return found


def _iso(micros: Any) -> str | None:  # noqa: ANN401 - a number of any database
    if micros is None:
        return None
    return from_micros(int(micros)).isoformat(timespec="seconds")
