"""`list`: recipients of the ledger, or how many there are of each kind."""

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from drainer.cli.filters import with_filters
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import clean, print_json
from drainer.cli.table import Table
from drainer.cli.times import format_time, require_time
from drainer.config.build.paths import ledger_url
from drainer.config.build.rules import make_rules
from drainer.errors import UsageError
from drainer.ledger.filters import SORT_COLUMNS, Filters
from drainer.ledger.reader import SHORT, LedgerReader
from drainer.ledger.records import Row, from_micros, time_of_attempt
from drainer.mail.envelope import domain_of
from drainer.mail.queue_id import queue_id_of
from drainer.mail.reply import printable
from drainer.policy.classify.describe import meaning_of
from drainer.policy.classify.rules import Rule
from drainer.policy.recipient.state import State
from drainer.runtime.units import format_size

_COLUMNS = (
    "id", "native_id", "sender", "recipient", "state", "attempts", "arrived",
    "last_attempt", "rule", "reply",
)  # fmt: skip
_SPARE = (
    "attempts", "arrived", "rule", "last_attempt", "native_id", "sender", "reply",
)  # fmt: skip
"""What a narrow terminal can do without, the least important first."""
_TIMES = frozenset({"arrived", "since", "last_attempt", "due"})
_PLACE = re.compile(r"\{(\w*)\}")
MAX_TEXT = 1000


class CountKey(StrEnum):
    """What recipients are counted by."""

    REASON = "reason"
    DOMAIN = "domain"
    SENDER = "sender"
    STATE = "state"


@with_filters
def list_(
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    filters: Filters,
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="In their state since this time or later. A duration ago (6h), or a"
            " time, in UTC if it names no zone (2026-11-30T14:00).",
        ),
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="TIME", help="Likewise, up to this time.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Print at most this many lines.")
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            help=f"Sort by {', '.join(SORT_COLUMNS)}; -KEY reverses the order.",
        ),
    ] = "arrived",
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Columns (id,recipient,reply), or a template for each line ('{id}"
            " {reply}'). Names: those of --json, sender, recipient, domain, reason.",
        ),
    ] = "",
    count_by: Annotated[
        CountKey | None,
        typer.Option(help="Print how many recipients there are of each kind instead."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List recipients, one a line, or count them.

    Example: drainer list --state deferred --count-by domain
    """
    _refuse_contradictions(sort, form, count_by, as_json=json_)
    config = load(path, ledger=ledger)
    rules = make_rules(config)
    chosen = replace(filters, since=require_time(since), until=require_time(until))
    with LedgerReader(ledger_url(config)) as report:
        if count_by is not None:
            everything = report.recipients(chosen, sort)
            counts = itertools.islice(_counts(everything, count_by, rules), limit)
            _print_counts(counts, count_by, as_json=json_)
            return
        rows = report.recipients(chosen, sort, limit)
        if json_:
            for row in rows:
                print_json(recipient_facts(row))
        elif "{" in form:
            _print_lines(rows, form, rules)
        else:
            _print_table(rows, form, rules)


def _refuse_contradictions(
    sort: str, form: str, count_by: CountKey | None, *, as_json: bool
) -> None:
    """Raise UsageError for options that exclude each other, and unknown names."""
    if sort.removeprefix("-") not in SORT_COLUMNS:
        message = f"drainer cannot sort by {printable(sort, 100)!r}"
        raise UsageError(message, hint=f"legal: {', '.join(SORT_COLUMNS)}")
    if form and (as_json or count_by):
        other = "--json" if as_json else "--count-by"
        message = f"--format and {other} contradict each other"
        raise UsageError(message, hint="leave one of them out")
    names = _PLACE.findall(form) if "{" in form else form.split(",") if form else ()
    for name in names:
        if name.strip() not in _FIELDS:
            message = f"--format: recipients have no {printable(name, 100)!r}"
            raise UsageError(message, hint=f"legal: {', '.join(_FIELDS)}")


def recipient_facts(row: Row) -> dict[str, Any]:
    """Return one recipient as JSON for scripts."""
    return {
        "id": row["id"],
        "native_id": row["native_id"],
        "reverse_path": row["reverse_path"],
        "forward_path": row["forward_path"],
        "route": row["route"],
        "state": row["state"],
        "since": _iso(row["since"]),
        "due": _iso(row["due"]),
        "arrived": _iso(row["arrived"]),
        "last_attempt": _iso(row["attempt"], time_of_attempt),
        "attempts": row["attempts"],
        "reply": row["reply"] or None,
        "rule": row["rule"] or None,
        "size": row["size"],
        "message_id": row["message_id"] or None,
        "sha256": row["sha256"] or None,
        "remote_id": _remote_id(row),
    }


def _iso(
    value: int | None, as_time: Callable[[int], datetime] = from_micros
) -> str | None:
    return as_time(value).isoformat() if value else None


def _remote_id(row: Row) -> str | None:
    """Return the queue id with which the primary accepted it, if the reply has one."""
    if row["state"] != State.DELIVERED.value:
        return None
    return queue_id_of(row["reply"] or "") or None


_FIELDS = (
    "id", "native_id", "reverse_path", "forward_path", "route", "state", "since", "due",
    "arrived", "last_attempt", "attempts", "reply", "rule", "size", "message_id",
    "sha256", "remote_id", "sender", "recipient", "domain", "reason",
)  # fmt: skip
"""What a recipient can be printed as: the names of its JSON, and four more."""


def _words(row: Row, rules: Sequence[Rule]) -> dict[str, str]:
    """Return a recipient for people, by the names of _FIELDS."""
    facts = recipient_facts(row)
    facts |= {
        "id": row["id"][:SHORT],
        "sender": row["reverse_path"] or "<>",
        "recipient": row["forward_path"],
        "domain": domain_of(row["forward_path"]),
        "reason": meaning_of(row["rule"], rules),
    }
    return {
        name: format_time(value) if name in _TIMES else _text(value)
        for name, value in facts.items()
    }


def _text(value: object) -> str:
    return "" if value is None else printable(str(value), MAX_TEXT)


def _print_lines(rows: Iterable[Row], form: str, rules: Sequence[Rule]) -> None:
    r"""Print a line for each recipient by a template; it may contain \t and \n."""
    template = form.replace(r"\t", "\t").replace(r"\n", "\n")
    for row in rows:
        words = _words(row, rules)
        parts = _PLACE.split(template)
        parts[1::2] = [words[name] for name in parts[1::2]]
        sys.stdout.write("".join(parts) + "\n")


def _print_table(rows: Iterable[Row], form: str, rules: Sequence[Rule]) -> None:
    columns = [name.strip() for name in form.split(",")] if form else _COLUMNS
    titles = {name: name.replace("_", " ") for name in columns}
    table = Table(
        *titles.values(),
        spare=() if form else [titles[name] for name in _SPARE],
        cut=() if form else ["reply"],
    )
    for row in rows:
        words = _words(row, rules)
        table.add(*(clean(words[name], MAX_TEXT) for name in columns))
    table.end()


class _Count(Struct):
    recipients: int = 0
    size: int = 0
    oldest: int = sys.maxsize
    newest: int = 0


def _counts(
    rows: Iterable[Row], key: CountKey, rules: Sequence[Rule]
) -> Iterator[dict[str, Any]]:
    """Yield the kinds with their counts, most recipients first."""
    found: dict[str, _Count] = {}
    for row in rows:
        count = found.setdefault(_kind(row, key), _Count())
        count.recipients += 1
        count.size += row["size"]
        count.oldest = min(count.oldest, row["arrived"])
        count.newest = max(count.newest, row["arrived"])
    for kind, count in sorted(found.items(), key=lambda each: -each[1].recipients):
        more = {"meaning": meaning_of(kind, rules)} if key is CountKey.REASON else {}
        yield {
            key.value: kind,
            **more,
            "recipients": count.recipients,
            "size": count.size,
            "oldest": _iso(count.oldest),
            "newest": _iso(count.newest),
        }


def _kind(row: Row, key: CountKey) -> str:
    kinds = {
        CountKey.REASON: row["rule"],
        CountKey.DOMAIN: domain_of(row["forward_path"]),
        CountKey.SENDER: row["reverse_path"],
        CountKey.STATE: row["state"],
    }
    return str(kinds[key])


def _print_counts(
    counts: Iterable[dict[str, Any]], key: CountKey, *, as_json: bool
) -> None:
    if as_json:
        for fact in counts:
            print_json(fact)
        return
    table = Table(
        "recipients", "size", "oldest", "newest", key.value,
        spare=("newest", "size"),
    )  # fmt: skip
    for fact in counts:
        kind = fact[key.value] or ("<>" if key is CountKey.SENDER else "")
        words = f"{kind}: {fact['meaning']}" if "meaning" in fact else kind
        table.add(
            str(fact["recipients"]),
            format_size(fact["size"]),
            format_time(fact["oldest"], seconds=False),
            format_time(fact["newest"], seconds=False),
            clean(words, MAX_TEXT),
        )
    table.end()
