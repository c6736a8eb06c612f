"""The ledger's tables: what drainer remembers, and nothing it can look up.

Times are integers, microseconds since 1970 UTC, so that every database keeps
them exactly. A ledger of another version is refused: there are no migrations
before the first release.
"""

import sqlalchemy as sa

from drainer.policy.recipient.state import State
from drainer.runtime.databases import LONG_TEXT

VERSION = "5"
DIGEST = "c255b5c1aadbff09e05ac0d636e8099f722ca85ab67cbe08e6ae2e2b9ba9ee26"
"""Of this version's tables: a change of them changes both lines, and a test says so."""

metadata = sa.MetaData()

_Time = sa.BigInteger
_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_ID = sa.String(32)
#: As much as MariaDB can index: 3072 bytes, four to a character.
_Key = sa.String(768)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", LONG_TEXT, nullable=False),
)

_Route = sa.String(300)
"""A route's name, as in smtp.route.Route."""

#: The sources that were drained, and by which routes.
sources = sa.Table(
    "sources",
    metadata,
    sa.Column("url", _Key, primary_key=True),
    #: The digest of the route table that its recipients were last assigned by.
    sa.Column("routing", sa.String(64), nullable=False),
    #: The names of these routes, as a JSON list.
    sa.Column("routes", LONG_TEXT, nullable=False),
    sa.Column("bound", _Time, nullable=False),
)

#: Who works on this ledger: alive while its lock is held or its lease runs.
owners = sa.Table(
    "owners",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("lock", LONG_TEXT, nullable=False),
    sa.Column("lease", _Time, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("owner", _ID, nullable=False),
    sa.Column("started", _Time, nullable=False),
    sa.Column("ended", _Time),
    sa.Column("exit", sa.Integer),
    sa.Column("commits", sa.Integer),
    sa.Column("facts", LONG_TEXT, nullable=False, default="{}"),
)

#: The routes of each run, in the order of its configuration.
run_routes = sa.Table(
    "run_routes",
    metadata,
    sa.Column("route", _Route, primary_key=True),
    sa.Column("run", _ID, primary_key=True),
    sa.Column("place", sa.Integer, nullable=False),
    #: Part of the route's rate, in millionths; all living runs together have one whole.
    sa.Column("share", sa.Integer, nullable=False),
)

messages = sa.Table(
    "messages",
    metadata,
    #: In the order of the scan, so that rows of mail sent together are close together.
    sa.Column("seq", _Serial, primary_key=True, autoincrement=True),
    sa.Column("id", _ID, nullable=False, unique=True),
    #: What the source computes from its start; several messages may share it.
    sa.Column("identity", _ID, nullable=False),
    #: Distinguishes those; the id is made of both (mail.message.make_id).
    sa.Column("number", sa.Integer, nullable=False),
    #: Of the whole content as transmitted, in hex; '' when it could not be read.
    sa.Column("sha256", sa.String(64), nullable=False),
    #: Another message has the same identity and content: only the locator differs.
    sa.Column("has_twin", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("source", _Key, nullable=False),
    sa.Column("native_id", _Key, nullable=False, index=True),
    sa.Column("queue", sa.String(1024), nullable=False),
    sa.Column("locator", LONG_TEXT, nullable=False),
    sa.Column("arrived", _Time, nullable=False),
    sa.Column("scanned", _Time, nullable=False),
    sa.Column("reverse_path", sa.String(512), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("message_id", sa.String(1000), nullable=False),
    #: Everything else of the message that a later attempt needs, as JSON.
    sa.Column("details", LONG_TEXT, nullable=False),
    sa.Column("problem", sa.String(32), nullable=False),
    #: How many recipients were recorded at the scan: the left side of P1's sum.
    sa.Column("recipients", sa.Integer, nullable=False),
    sa.Column("owner", _ID, index=True),
    sa.Column("acknowledged", _Time),
    sa.UniqueConstraint("identity", "number"),
)

#: SQLite makes a table of the values of IN for every row that is written.
_LEGAL_STATE = " OR ".join(f"state = '{state.value}'" for state in State)

recipients = sa.Table(
    "recipients",
    metadata,
    #: The message's seq.
    sa.Column("message", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("forward_path", sa.String(512), nullable=False),
    #: Where its mail goes; '' = by no route. It stays once the recipient is final.
    sa.Column("route", _Route, nullable=False),
    sa.Column("orcpt", LONG_TEXT, nullable=False),
    sa.Column("notify", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("since", _Time, nullable=False),
    sa.Column("due", _Time),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("doubts", sa.Integer, nullable=False),
    sa.Column("released", sa.Integer, nullable=False),
    #: What a later attempt must know of the earlier ones; see
    #: policy.recipient.delivery.ClaimedRecipient.
    sa.Column("drops", sa.Integer, nullable=False, server_default="0"),
    sa.Column("solo", sa.Integer, nullable=False, server_default="0"),
    sa.Column("spent", _Time, nullable=False, server_default="0"),
    sa.Column("refusal", sa.String(64), nullable=False, server_default=""),
    sa.Column("refused", _Time),
    #: The breaker it waits for: a recipient domain, '*' for the route, '' for none.
    sa.Column("waits", sa.String(255), nullable=False, server_default=""),
    #: The attempt that has it in flight, or had it last: its outcome counts.
    sa.Column("attempt", sa.BigInteger),
    sa.Column("rule", sa.String(64), nullable=False),
    sa.Column("reply", LONG_TEXT, nullable=False),
    sa.CheckConstraint(_LEGAL_STATE, name="recipients_state"),
    sa.Index("recipients_state_route_due", "state", "route", "due"),
    sqlite_with_rowid=False,
)

#: The breakers that are not as at the start, and how they came to it.
breakers = sa.Table(
    "breakers",
    metadata,
    sa.Column("route", _Route, primary_key=True),
    #: A recipient domain; '' is the route itself.
    sa.Column("scope", sa.String(255), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("until", _Time),
    sa.Column("since", _Time, nullable=False),
    #: The rest of policy.breaker.breaker.CircuitBreaker, as JSON.
    sa.Column("facts", LONG_TEXT, nullable=False),
)

#: What was found about the sender of a message that was refused permanently.
evidence = sa.Table(
    "evidence",
    metadata,
    #: The message's seq.
    sa.Column("message", sa.BigInteger, primary_key=True, autoincrement=False),
    #: When DNS was asked first, and last.
    sa.Column("asked", _Time, nullable=False),
    sa.Column("looked", _Time, nullable=False),
    #: DNS did not answer everything: drainer asks again.
    sa.Column("later", sa.Integer, nullable=False),
    #: policy.bounce.facts.SenderFacts and mail.list_markers.ListMarkers, as JSON.
    sa.Column("facts", LONG_TEXT, nullable=False),
    sa.Column("marks", LONG_TEXT, nullable=False),
)

#: Reports to senders, a row for each recipient of a report; kept for the limits.
reports = sa.Table(
    "reports",
    metadata,
    sa.Column("message", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", _Time, nullable=False, index=True),
    #: The run that queued it, or asks about it; of a command, the command's own.
    sa.Column("run", _ID, nullable=False, index=True),
    #: mail.dsn.model.DsnAction: failed, relayed.
    sa.Column("action", sa.String(16), primary_key=True),
    #: policy.bounce.limits.dedupe_key.
    sa.Column("key", sa.String(64), nullable=False, index=True),
    #: The address that gets the report: with VERP the expanded one.
    sa.Column("sender", sa.String(512), nullable=False),
    #: The organisation of its domain, for the limits.
    sa.Column("organisation", sa.String(255), nullable=False),
    #: The proof of the sender is strong enough to return the whole original.
    sa.Column("may_return", sa.Integer, nullable=False),
    #: What the primary said, by which rule, and when.
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reply", LONG_TEXT, nullable=False),
    sa.Column("rule", sa.String(64), nullable=False),
    sa.Column("refused", _Time, nullable=False),
    #: Message-ID of the report that contains it; '' before the first attempt to send
    #: it, after which nothing is added to that report.
    sa.Column("report", sa.String(400), nullable=False, server_default=""),
    #: asked (no bounce decision yet), refused (by it), queued, sent, failed (never
    #: bounced in turn). A failure is queued at once: its decision was made before.
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("due", _Time),
    sa.Column("attempts", sa.Integer, nullable=False),
    #: What the next hop said last.
    sa.Column("answer", LONG_TEXT, nullable=False),
    sa.Index("reports_state_due", "state", "due"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    #: Grows with time (ledger.records.new_attempt_id), and is the id of its span.
    sa.Column("id", _Serial, primary_key=True, autoincrement=False),
    sa.Column("message", sa.BigInteger, nullable=False, index=True),
    sa.Column("run", _ID, nullable=False),
    sa.Column("owner", _ID, nullable=False),
    sa.Column("started", _Time, nullable=False),
    sa.Column("ended", _Time),
    #: The numbers of its recipients, and afterwards the timed stages; JSON.
    sa.Column("recipients", LONG_TEXT, nullable=False),
    sa.Column("connection", LONG_TEXT, nullable=False),
    sa.Column("stages", LONG_TEXT, nullable=False),
)

#: Append-only: every decision, in order; `why` and the traces are made of it.
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", _Serial, primary_key=True, autoincrement=True),
    sa.Column("at", _Time, nullable=False),
    sa.Column("run", _ID, nullable=False),
    sa.Column("message", sa.BigInteger, index=True),
    sa.Column("n", sa.Integer),
    sa.Column("attempt", sa.BigInteger),
    sa.Column("kind", sa.String(24), nullable=False),
    sa.Column("rule", sa.String(64), nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("reply", LONG_TEXT, nullable=False),
    sa.Column("evidence", LONG_TEXT, nullable=False),
)

#: Overrides that commands and hooks set for the drains and the watch of a route;
#: append-only.
controls = sa.Table(
    "controls",
    metadata,
    sa.Column("id", _Serial, primary_key=True, autoincrement=True),
    sa.Column("at", _Time, nullable=False),
    sa.Column("route", _Route, nullable=False, index=True),
    #: The kind of override: policy.pacing.overrides.OverrideKind.
    sa.Column("ask", sa.String(16), nullable=False),
    sa.Column("per_second", sa.Double),
    sa.Column("until", _Time),
    sa.Column("reason", LONG_TEXT, nullable=False),
    sa.Column("by", LONG_TEXT, nullable=False),
)

#: What the primary of a route said about recipients in a callout (ledger.callouts).
callouts = sa.Table(
    "callouts",
    metadata,
    #: A digest of the route and the mailbox.
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("at", _Time, nullable=False, index=True),
    #: policy.census.existence: known or unknown, and why.
    sa.Column("existence", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("reply", LONG_TEXT, nullable=False),
)

#: What scanners of [scan] said about contents.
scan_answers = sa.Table(
    "scan_answers",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("scanner", sa.String(32), primary_key=True),
    sa.Column("at", _Time, nullable=False),
    sa.Column("verdict", LONG_TEXT, nullable=False),
    sa.Column("score", sa.Double),
    #: A JSON list.
    sa.Column("symbols", LONG_TEXT, nullable=False),
)

#: How far each reader of the decisions has come.
cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("name", _Key, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)

ABOUT_MESSAGES = (recipients, evidence, reports, attempts, decisions)
"""Tables whose rows are about a message, and go with it."""
