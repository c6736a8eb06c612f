"""Messages that the ledger knows already, when a scan lists them again.

Each function runs inside a transaction of the writer.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.codec import message_of
from drainer.ledger.decisions import record_decisions
from drainer.ledger.records import (
    MANY,
    Decision,
    DecisionKind,
    Row,
    WriteStamp,
    from_micros,
)
from drainer.ledger.transitions import Transition, transition
from drainer.ledger.writer.prepared_statement import PreparedStatement, build_insert
from drainer.mail.message import PROBLEMS, Message
from drainer.policy.admission.admit import FOREIGN
from drainer.policy.admission.identity import (
    Fingerprint,
    ListedMessage,
    RecordedMessage,
)
from drainer.policy.recipient.state import FINAL, Event, State

_R, _M = schema.recipients.c, schema.messages.c
_RECIPIENT = PreparedStatement(build_insert(schema.recipients))
_FINAL = [state.value for state in FINAL]
_UNTOUCHED = (State.PENDING.value, State.HELD.value)
PASSING = [  # what may be different at the next scan of the spool
    f"local-{code}"
    for code in (
        "vanished",
        "incomplete",
        "locked",
        "marked-corrupt",
        "unreadable",
        "taken-elsewhere",
        "in-doubt",
    )
]
_PLACE = ("source", "locator", "queue", "sha256", "size", "reverse_path")
"""Columns of what may change while it is the same message."""
_AMBIGUOUS = "local-ambiguous"
_BY_ADDRESS = [f"local-{code}" for code in (*FOREIGN, "bad-address")]


def listed_of(row: Mapping[str, object]) -> ListedMessage:
    """Return what distinguishes a message from others of its identity."""
    fingerprint = Fingerprint(
        str(row["sha256"]), int(str(row["size"])), str(row["reverse_path"])
    )
    return ListedMessage(str(row["source"]), str(row["locator"]), fingerprint)


def find_known(
    connection: sa.Connection, identities: Iterable[str]
) -> dict[str, list[Row]]:
    """Return the recorded messages with these identities, by identity."""
    wanted = list(dict.fromkeys(identities))
    query = sa.select(schema.messages).where(_M.identity.in_(wanted))
    known: dict[str, list[Row]] = {}
    for row in connection.execute(query.order_by(_M.number)).mappings():
        known.setdefault(row["identity"], []).append(dict(row))
    return known


def recorded_of(
    connection: sa.Connection, rows: Mapping[int, Row]
) -> dict[int, RecordedMessage]:
    """Return what is known of recorded messages, for ``policy.admission.identity``."""
    if not rows:
        return {}
    states: dict[int, list[tuple[str, int]]] = {seq: [] for seq in rows}
    ambiguous = set()
    query = sa.select(_R.message, _R.state, _R.attempts, _R.rule)
    for row in connection.execute(query.where(_R.message.in_(list(rows)))):
        states[row.message].append((row.state, row.attempts))
        if row.state == State.HELD.value and row.rule == _AMBIGUOUS:
            ambiguous.add(row.message)
    return {
        seq: RecordedMessage(
            seq=seq,
            number=row["number"],
            listed=listed_of(row),
            is_finished=all(state in _FINAL for state, _ in states[seq]),
            is_untouched=all(
                state in _UNTOUCHED and not attempts for state, attempts in states[seq]
            ),
            acknowledged=row["acknowledged"],
            is_ambiguous=seq in ambiguous,
        )
        for seq, row in rows.items()
    }


def mark_twins(connection: sa.Connection, identities: Collection[str]) -> None:
    """Note which messages of these identities have the same content."""
    for known in find_known(connection, identities).values():
        prints = [listed_of(row).fingerprint for row in known]
        twins = [
            row["seq"]
            for row, each in zip(known, prints, strict=True)
            if prints.count(each) > 1 and not row["has_twin"]
        ]
        if twins:
            connection.execute(
                sa.update(schema.messages).where(_M.seq.in_(twins)).values(has_twin=1)
            )


def hold_ambiguous(
    connection: sa.Connection, stamp: WriteStamp, seqs: Collection[int]
) -> None:
    """Hold what was not sent yet of messages that cannot be distinguished.

    What an operator has released stays released.
    """
    passing = (_R.state == State.HELD.value) & _R.rule.in_(PASSING)
    waiting = (
        _R.message.in_(list(seqs)),
        _R.state.in_([State.PENDING.value, State.DEFERRED.value]) | passing,
        _R.released == 0,
    )
    query = sa.select(_R.message, _R.n, _R.state).where(*waiting)
    change = Transition(
        event=Event.SCAN_HELD,
        kind=DecisionKind.SCANNED,
        rule=_AMBIGUOUS,
        run=stamp.run,
        verdict="hold",
        values={"due": None, "rule": _AMBIGUOUS, "reply": ""},
        evidence={"reason": PROBLEMS["ambiguous"][0]},
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    transition(connection, rows, change, stamp.now)


def note_held(
    connection: sa.Connection,
    stamp: WriteStamp,
    held: Sequence[tuple[int, int, str, str]],
) -> None:
    """Record why recipients are held: message, number, rule, detail."""
    decisions = [
        Decision(
            at=from_micros(stamp.now),
            kind=DecisionKind.SCANNED,
            rule=rule,
            verdict="hold",
            reply=detail,
            evidence={"reason": PROBLEMS[rule.removeprefix("local-")][0]},
            message=message,
            n=n,
        )
        for message, n, rule, detail in held
    ]
    record_decisions(connection, stamp.run, decisions)


def revisit(
    connection: sa.Connection,
    stamp: WriteStamp,
    same: Mapping[int, tuple[Row, list[Row]]],
    known: Mapping[int, Row],
) -> list[Message]:
    """Bring known messages up to date with what the scan lists, by their seqs.

    It follows renamed files, makes mail pending that had vanished and is back, and adds
    recipients that were not listed before. Returns the finished messages: every listed
    recipient was recorded and is final, and the whole content is the recorded one.
    """
    if not same:
        return []
    paths = _recorded_paths(connection, list(same))
    finished = []
    for seq, (listing, recipients) in same.items():
        row = known[seq]
        sendable = [r for r in recipients if r["state"] == State.PENDING.value]
        if not listing["problem"]:
            _lift_passing_problems(
                connection, stamp, seq, [r["forward_path"] for r in sendable]
            )
        recorded = paths.get(seq, {})
        added = [r for r in recipients if r["forward_path"] not in {*recorded, ""}]
        if added:
            _add_recipients(connection, row, added, stamp.now)
        elif all(recorded.values()) and listing["sha256"]:
            finished.append(message_of(row))
    return finished


def follow(connection: sa.Connection, row: Row, listing: Row) -> bool:
    """Remember where a message is now; return False when it has not moved."""
    place = {name: listing[name] for name in _PLACE}
    if all(row[key] == value for key, value in place.items()):
        return False
    connection.execute(
        sa.update(schema.messages).where(_M.seq == row["seq"]).values(**place)
    )
    row.update(place)
    return True


def _recorded_paths(
    connection: sa.Connection, seqs: Sequence[int]
) -> dict[int, dict[str, bool]]:
    """Return the recorded recipients of messages, and whether each is final."""
    found: dict[int, dict[str, bool]] = {}
    query = sa.select(_R.message, _R.forward_path, _R.state)
    for row in connection.execute(query.where(_R.message.in_(seqs))):
        final = found.setdefault(row.message, {})
        is_final = row.state in _FINAL
        final[row.forward_path] = final.get(row.forward_path, True) and is_final
    return found


def _add_recipients(
    connection: sa.Connection, row: Row, added: Sequence[Row], now: int
) -> None:
    """Record recipients that the spool did not list before."""
    last = connection.scalar(
        sa.select(sa.func.max(_R.n)).where(_R.message == row["seq"])
    )
    first = 0 if last is None else last + 1
    for n, each in enumerate(added, first):
        each.update(message=row["seq"], n=n, since=now)
    _RECIPIENT(connection, added)
    connection.execute(
        sa.update(schema.messages)
        .where(_M.seq == row["seq"])
        .values(recipients=_M.recipients + len(added), acknowledged=None)
    )


def _lift_passing_problems(
    connection: sa.Connection, stamp: WriteStamp, seq: int, sendable: Sequence[str]
) -> None:
    """Make pending what was absent, unfinished or unreadable, and is sound now.

    The same applies to ``sendable`` addresses that were another primary's, or fitted no
    command, when the domains have been named or mapped since.
    """
    for start in range(0, max(1, len(sendable)), MANY):
        paths = sendable[start : start + MANY]
        passed = sa.or_(
            _R.rule.in_(PASSING), _R.rule.in_(_BY_ADDRESS) & _R.forward_path.in_(paths)
        )
        query = sa.select(_R.message, _R.n, _R.state, _R.rule).where(
            _R.message == seq,
            _R.state == State.HELD.value,
            _R.forward_path != "",
            passed,
        )
        rows = [dict(row) for row in connection.execute(query).mappings()]
        for rule in sorted({row["rule"] for row in rows}):
            problem = PROBLEMS[rule.removeprefix("local-")][0]
            change = Transition(
                event=Event.PROBLEM_GONE,
                kind=DecisionKind.SCANNED,
                rule="reappeared",
                run=stamp.run,
                values={"due": 0, "rule": "reappeared"},
                evidence={"reason": f"no longer so: {problem}"},
            )
            same = [row for row in rows if row["rule"] == rule]
            transition(connection, same, change, stamp.now)


def has_news(connection: sa.Connection, listings: Sequence[tuple[Row, bool]]) -> bool:
    """Whether a drain would find anything to do in a part of a scan.

    Each listed message comes with whether it may be sent.
    """
    known = find_known(connection, [message["identity"] for message, _ in listings])
    sendable = []
    for message, may_be_sent in listings:
        seq = _recorded_at(known.get(message["identity"], []), message)
        if seq is None:
            return True
        if may_be_sent:
            sendable.append(seq)
    passed = sa.select(_R.message).where(
        _R.message.in_(sendable),
        _R.state == State.HELD.value,
        _R.rule.in_(PASSING),
    )
    return connection.scalar(passed.limit(1)) is not None


def _recorded_at(rows: Sequence[Row], message: Row) -> int | None:
    """Return the seq of the recorded message in this place, or of its original."""
    source, locator, fingerprint = listed_of(message)
    for row in rows:
        known = listed_of(row)
        is_here = known.locator == locator or known.source != source
        if known.fingerprint == fingerprint and is_here:
            return int(row["seq"])
    return None
