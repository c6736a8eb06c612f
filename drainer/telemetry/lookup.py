"""From a trace back to the ledger: a message's spans, and what a hash stands for."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.ledger.reader import LedgerReader
from drainer.mail.envelope import domain_of
from drainer.telemetry.facts import decisions_of, facts_of_message
from drainer.telemetry.ids import TraceIds
from drainer.telemetry.privacy import AddressView
from drainer.telemetry.projection import SpanProjection
from drainer.telemetry.spans import TraceSpan

MOST = 20
"""Messages that are named."""
_HASH = re.compile(r"[0-9a-f]{16}")
_TRACE = re.compile(r"[0-9a-f]{32}")
_M, _R = schema.messages.c, schema.recipients.c


class HashMatch(NamedTuple):
    """What a hash or a trace id stands for."""

    #: The address, a part of it, or the Message-ID; '' for the id of a trace.
    text: str
    #: The drainer ids of the messages with it, at most MOST.
    messages: list[str]


def find(reader: LedgerReader, text: str) -> HashMatch | None:
    """Return what a hash or the id of a trace stands for; None if it is neither.

    drainer computes the hash of everything in the ledger, for there is no other way.
    """
    wanted, salt = text.strip().lower(), reader.salt()
    if _TRACE.fullmatch(wanted):
        ids = TraceIds(salt)
        rows = reader.rows(sa.select(_M.id))
        found = [r["id"] for r in rows if f"{ids.trace(r['id']):032x}" == wanted]
        return HashMatch("", found) if found else None
    if not _HASH.fullmatch(wanted):
        return None
    view = AddressView(salt, plain=False)
    meaning, messages = "", dict[str, None]()
    for id_, each in _texts(reader):
        if each and view.value(each) == wanted:
            meaning = each
            if len(messages) < MOST:
                messages[id_] = None
    return HashMatch(meaning, list(messages)) if meaning else None


def _texts(reader: LedgerReader) -> Iterator[tuple[str, str]]:
    """Yield every text that a trace shows as a hash, with the id of its message."""
    for row in reader.rows(sa.select(_M.id, _M.reverse_path, _M.message_id)):
        yield row["id"], row["reverse_path"]
        yield row["id"], row["message_id"]
    query = sa.select(_M.id, _R.forward_path)
    for row in reader.rows(query.join(schema.recipients, _R.message == _M.seq)):
        yield row["id"], row["forward_path"]
        yield row["id"], row["forward_path"].rpartition("@")[0]
        yield row["id"], domain_of(row["forward_path"])


def spans_of(url: URL, message: str, after: int) -> tuple[list[TraceSpan], int]:
    """Return the spans of a message's decisions behind a number; and the last number.

    They show addresses. Raises LedgerError.
    """
    with LedgerReader(url) as reader:
        salt = reader.salt()
        seq = reader.message(message)["seq"]
    with engine.open_reader(url) as connection:
        decisions = decisions_of(connection, seq)
        facts = facts_of_message(connection, seq)
    fresh = [row for row in decisions if row["id"] > after]
    spans = list(SpanProjection(salt, plain=True).spans(fresh, facts))
    return spans, fresh[-1]["id"] if fresh else after
