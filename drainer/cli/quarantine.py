"""`quarantine`: keep, show, release and purge messages that may not be bounced."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from drainer.bounce.quarantine.cleanup import sweep
from drainer.bounce.quarantine.export import (
    EmlTarget,
    MaildirTarget,
    SkippedMessage,
    target_of,
)
from drainer.bounce.quarantine.store import Quarantine
from drainer.cli.action_options import IdsArgument, select_messages
from drainer.cli.content import MISSING, ContentFinder
from drainer.cli.filters import with_filters
from drainer.cli.messages import message_facts, print_message
from drainer.cli.operator_actions import verb_command
from drainer.cli.options import (
    ConfigOption,
    IdArgument,
    JsonOption,
    LedgerOption,
    load,
)
from drainer.cli.output import clean, print_json, say, stdout, warn
from drainer.cli.table import Table
from drainer.cli.times import format_time
from drainer.cli.why import decisions_of, print_decisions, show_message
from drainer.config import Config
from drainer.config.build.paths import ledger_url, quarantine_folder
from drainer.config.build.rules import make_rules
from drainer.errors import MessageUnreadable, UsageError
from drainer.ledger.columns import from_json
from drainer.ledger.filters import Filters
from drainer.ledger.operator_actions import PURGE, VERBS
from drainer.ledger.query.quarantine import find_quarantined
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row, from_micros
from drainer.policy.bounce.decision import RULES as BOUNCE_RULES
from drainer.policy.classify.describe import meaning_of
from drainer.policy.recipient.state import State
from drainer.sources.common.files import read_beginning

MAX_HEADER_BYTES = 64 * 1024
"""The most bytes of a header section that are printed."""

app = typer.Typer(no_args_is_help=True)


def _sweep(config: Config) -> None:
    url = ledger_url(config)
    with LedgerReader(url) as report:
        sweep(report, Quarantine(quarantine_folder(url)))


def _limit_to_quarantine(filters: Filters) -> Filters:
    """Return the filters for quarantined recipients, and those that a scanner holds."""
    if not set(filters.states) <= {State.QUARANTINED, State.HELD}:
        raise UsageError(
            "the quarantine has recipients of the states quarantined and held only",
            hint="`drainer list` shows the others",
        )
    return replace(filters, in_quarantine=True)


@app.command("list")
@with_filters
def list_(
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    filters: Filters,
    json_: JsonOption = False,
) -> None:
    """List quarantined recipients and the reasons, one recipient a line.

    It also lists recipients that a scanner of [scan] holds; their state is held.

    It marks recipients whose content is missing on this host: there is no copy, and
    the source has removed the message.

    Example: drainer quarantine list --domain example.com
    """
    config = load(path, ledger=ledger)
    pages = Table(
        "id", "arrived", "size", "sender", "recipient", "why", "bounce rules",
        spare=("size", "arrived", "bounce rules", "sender"),
        cut=("why", "bounce rules"),
    )  # fmt: skip
    missing = 0
    for fact in _list_facts(config, _limit_to_quarantine(filters)):
        missing += fact["content"] == MISSING
        if json_:
            print_json(fact)
        else:
            _add(pages, fact)
    if not json_:
        pages.end()
    if missing:
        folder = quarantine_folder(ledger_url(config))
        warn(
            f"the content of {missing} recipients is missing on this host: there is no"
            f" copy in {folder}, and the source does not have it"
        )


def _list_facts(config: Config, filters: Filters) -> Iterator[dict[str, Any]]:
    rules = make_rules(config)
    with LedgerReader(ledger_url(config)) as report:
        contents = ContentFinder(config, report)
        for row in find_quarantined(report, filters):
            reason = meaning_of(row["rule"], rules)
            yield _facts(row, contents.where(row["id"]), reason)


def _facts(row: Row, where: str, reason: str) -> dict[str, Any]:
    decision = row["decision"]
    return {
        "id": row["id"],
        "native_id": row["native_id"],
        "source": row["source"],
        "reverse_path": row["reverse_path"],
        "forward_path": row["forward_path"],
        "message_id": row["message_id"] or None,
        "arrived": from_micros(row["arrived"]).isoformat(),
        "since": from_micros(row["since"]).isoformat(),
        "size": row["size"],
        "state": row["state"],
        "rule": row["rule"],
        "reason": reason,
        "reply": row["reply"] or None,
        "decision": decision
        and {
            "rule": decision["rule"],
            "answer": decision["verdict"],
            "about": BOUNCE_RULES[decision["rule"]][0]
            if decision["rule"] in BOUNCE_RULES
            else "",
            "reason": from_json(decision["evidence"]).get("reason", ""),
        },
        "content": where,
    }


def _add(pages: Table, fact: dict[str, Any]) -> None:
    decision = fact["decision"]
    why = f"{fact['reason']} ({fact['reply']})" if fact["reply"] else fact["reason"]
    if fact["content"] == MISSING:
        why = f"CONTENT MISSING; {why}"
    pages.add(
        fact["id"][:12],
        format_time(fact["arrived"], seconds=False),
        str(fact["size"]),
        clean(fact["reverse_path"] or "<>", 1000),
        clean(fact["forward_path"], 1000),
        clean(why, 1000),
        clean(f"{decision['rule']}: {decision['about']}") if decision else "",
    )


@app.command("show")
def show(
    id_: IdArgument,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Show a quarantined message: envelope, decisions, and its header section.

    Example: drainer quarantine show 4bX1Yz3Qk2z
    """
    config = load(path, ledger=ledger)
    with LedgerReader(ledger_url(config)) as report:
        id_ = report.resolve(id_)
        rows = list(report.recipients(Filters(messages=[id_])))
        mine = list(report.recipients(Filters(messages=[id_], in_quarantine=True)))
        if not mine:
            words = f"no recipient of message {id_[:12]} is in the quarantine"
            raise UsageError(words, hint=f"see `drainer show {id_[:12]}`")
        contents = ContentFinder(config, report)
        facts, message = message_facts(report, id_), report.message(id_)
        more: dict[str, Any] = {
            "decisions": decisions_of(report, id_, {row["n"]: row for row in rows})[0],
            "content": contents.where(id_),
            "header": _header(contents, id_, mine),
        }
    if json_:
        print_json(facts | more)
        return
    print_message(facts)
    show_message(id_, message)
    print_decisions(more["decisions"])
    stdout().print(f"content: {more['content']}")
    for line in more["header"]:
        stdout().print(f"  {clean(line, 1000)}")


def _header(contents: ContentFinder, id_: str, rows: list[Row]) -> list[str]:
    """Return the lines of a header section, up to the limit."""
    try:
        content = contents.open(id_, rows).content
        head = read_beginning(content.chunks(), MAX_HEADER_BYTES)
    except MessageUnreadable as error:
        warn(f"cannot read the content: {error}")
        return []
    section = head.partition(b"\r\n\r\n")[0]
    return section.decode("utf-8", "backslashreplace").split("\r\n")


@app.command("export")
@with_filters
def export(
    ids: IdsArgument = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="maildir:DIR (adds the envelope on top as Return-Path and"
            " Delivered-To) or eml:DIR (writes it to ID.json next to ID.eml).",
        ),
    ] = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    filters: Filters,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only count the messages.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Write copies into a Maildir or a folder of .eml files; drainer can read both.

    It overwrites nothing and removes nothing from the quarantine: see `purge`.

    Exit status: 0 everything was written; 5 some messages were skipped.

    Example: drainer quarantine export --domain example.com --to maildir:/srv/kept
    """
    config = load(path, ledger=ledger)
    with LedgerReader(ledger_url(config)) as report:
        chosen = _limit_to_quarantine(
            select_messages(report, ids or (), filters, "export")
        )
        contents = ContentFinder(config, report)
        messages = itertools.groupby(report.recipients(chosen), lambda row: row["id"])
        if dry_run:
            count = Counter(would_be_exported=sum(1 for _ in messages))
        else:
            target = target_of(to, contents.quarantine.folder)
            opened = ((id_, list(rows)) for id_, rows in messages)
            count = _export(contents, opened, target)
    if json_:
        print_json({"to": to, **count})
    else:
        words = ", ".join(f"{n} {key.replace('_', ' ')}" for key, n in count.items())
        stdout().print(f"messages: {words}")
    if count["left_out"]:
        raise typer.Exit(5)


def _export(
    contents: ContentFinder,
    messages: Iterator[tuple[str, list[Row]]],
    target: MaildirTarget | EmlTarget,
) -> Counter[str]:
    count = Counter(exported=0, left_out=0)
    try:
        for id_, rows in messages:
            try:
                target.add(contents.open(id_, rows))
            except (SkippedMessage, MessageUnreadable) as error:
                say(f"skipping {rows[0]['native_id']} ({id_[:12]}): {error}")
                count["left_out"] += 1
            else:
                count["exported"] += 1
        target.finish()
    except OSError as error:
        done = count["exported"]
        message = f"cannot write: {error.strerror}; {done} messages were exported"
        hint = "make room and run the same command again: it keeps existing files"
        raise UsageError(message, hint=hint) from error
    return count


app.command(
    "release",
    help="Release recipients: the next drain sends them, from the copy if the"
    " source has removed the message.\n\nExample: drainer quarantine release"
    " --reply 5.1.1 --reason 'user table was empty'",
)(verb_command(VERBS["release"], in_quarantine=True))
app.command(
    "purge",
    help="Discard recipients permanently, and remove the copies that no recipient"
    " needs.\n\nExample: drainer quarantine purge --older-than 14d --reason old",
)(verb_command(PURGE, _sweep, in_quarantine=True))
