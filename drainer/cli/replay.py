"""`requeue` of delivered mail: the primary was restored, and has lost what it took."""

import itertools
from datetime import datetime
from typing import Annotated

import typer
from msgspec import Struct
from msgspec.structs import replace

from drainer.cli.action_options import OperatorRequest, show_touched
from drainer.cli.content import MISSING, ContentFinder
from drainer.cli.filters import read_lines
from drainer.cli.output import print_json, say, stdout
from drainer.cli.times import require_time
from drainer.config.build.paths import ledger_url
from drainer.errors import UsageError
from drainer.ledger.filters import Filters
from drainer.ledger.operator_actions import REPLAY, apply_verb
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import MANY, Row
from drainer.policy.admission.selection import MessageIds
from drainer.policy.recipient.state import State


class ReplayWindow(Struct, frozen=True, kw_only=True):
    """Which delivered mail an operator wants to send again."""

    since: datetime | None
    until: datetime | None
    #: A file of Message-IDs; '' for none.
    receipts: str

    def __bool__(self) -> bool:
        """Whether anything is named."""
        return bool(self.since or self.until or self.receipts)


def window_of(
    delivered_since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Also delivered mail, from this time on: the primary has lost it. A"
            " duration ago (6h), or a time in UTC (2026-11-30T14:00).",
        ),
    ] = "",
    delivered_until: Annotated[
        str, typer.Option(metavar="TIME", help="Likewise, up to this time.")
    ] = "",
    receipt_of: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Only delivered mail whose Message-IDs a file lists, one a line; -"
            " reads standard input.",
        ),
    ] = "",
) -> ReplayWindow:
    """Return the window; UsageError for a bad time, or an end before its start."""
    since, until = require_time(delivered_since), require_time(delivered_until)
    if since and until and since > until:
        message = "--delivered-since is later than --delivered-until"
        raise UsageError(message, hint="the window starts at --delivered-since")
    return ReplayWindow(since=since, until=until, receipts=receipt_of)


def replay(asked: OperatorRequest, window: ReplayWindow) -> None:
    """Make delivered recipients pending again, where their content is still there."""
    url = ledger_url(asked.config)
    with LedgerReader(url) as report:
        chosen = _select(report, asked, window)
        rows, missing = _split_by_content(
            report, ContentFinder(asked.config, report), chosen
        )
        maildirs = _maildirs(report, missing)
    for row in missing[:MANY]:
        say(f"skipping {row['native_id']} to {row['forward_path']}: its mail is gone")
    for place in maildirs:
        say(f"drains moved mail to {place}.drained: move it back, and repeat this")
    if asked.dry_run:
        if not asked.as_json:
            show_touched(rows)
        _print(len(rows), len(missing), "would be requeued", as_json=asked.as_json)
        return
    asked.insist("requeue", len(rows))
    ids = list(dict.fromkeys(row["id"] for row in rows))
    count = 0
    for start in range(0, len(ids), MANY):
        some = replace(chosen, messages=ids[start : start + MANY])
        count += apply_verb(url, REPLAY, some, asked.reason)
    _print(count, len(missing), "requeued", as_json=asked.as_json)
    if count:
        say("the next `drainer drain` of their sources sends them again")


def _select(
    report: LedgerReader, asked: OperatorRequest, window: ReplayWindow
) -> Filters:
    """Return the filters; UsageError where they contradict a window of deliveries."""
    if asked.filters.states:
        message = "--state and a window of deliveries contradict each other"
        raise UsageError(message, hint="a window means delivered recipients")
    selection = asked.filters.selection
    if window.receipts:
        if selection.ids is not None:
            message = "give --ids or --receipt-of, not both"
            raise UsageError(message, hint="--receipt-of takes Message-IDs")
        selection = replace(selection, ids=MessageIds(read_lines(window.receipts)))
    return replace(
        asked.filters,
        states=[State.DELIVERED.value],
        messages=[report.resolve(each) for each in asked.ids],
        since=window.since,
        until=window.until,
        selection=selection,
    )


def _split_by_content(
    report: LedgerReader, finder: ContentFinder, chosen: Filters
) -> tuple[list[Row], list[Row]]:
    there: list[Row] = []
    missing: list[Row] = []
    rows_of_all = report.recipients(chosen)
    for id_, rows in itertools.groupby(rows_of_all, key=lambda row: str(row["id"])):
        (missing if finder.where(id_) == MISSING else there).extend(rows)
    return there, missing


def _maildirs(report: LedgerReader, missing: list[Row]) -> list[str]:
    """Return the Maildirs among their sources: the mail may be beside them."""
    ids = {str(row["id"]) for row in missing[:MANY]}
    urls = {str(report.message(each)["source"]) for each in ids}
    return sorted(url for url in urls if url.startswith("maildir:"))


def _print(count: int, missing: int, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"recipients": count, "missing": missing, "done": done})
        return
    stdout().print(f"{count} recipients {done}")
    if missing:
        stdout().print(
            f"{missing} recipients: neither a source nor a copy has the mail"
        )
