"""`status`: the state of the drain, and what expires first."""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from drainer.bounce.quarantine.delivery_copies import oldest_copy
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import clean, print_json, stdout
from drainer.cli.table import Table
from drainer.cli.times import format_time
from drainer.config import Config
from drainer.config.build.paths import kept_folder, ledger_url, lock_folder
from drainer.config.build.spools import make_sources
from drainer.delivery.holds import SpoolHolds
from drainer.errors import LedgerError, UsageError
from drainer.ledger.query.status import expiry, replayable, status_facts
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row, from_micros
from drainer.ledger.reserve import LeftReserve
from drainer.mail.message import Message
from drainer.policy.classify.describe import meaning_of
from drainer.runtime.units import describe_duration
from drainer.sources.protocol import PartialSource, Source

_STAGE = re.compile(r"^[a-z]+: ")


def status(
    source: Annotated[
        str, typer.Argument(help="Also count this spool again now.")
    ] = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    prometheus: Annotated[
        bool,
        typer.Option(
            "--prometheus", help="Print metrics of the whole ledger for Prometheus."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.prom",
            help="With --prometheus: write them to this file, for the node exporter.",
            dir_okay=False,
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Print the state of the drain, and whether every recipient is accounted for.

    Example: drainer status --json | jq .states
    """
    config = load(path, ledger=ledger)
    if prometheus or output:
        _export_metrics(config, output, alone=prometheus and not (source or json_))
        return
    opened = make_sources(config, [source], []) if source else []
    SpoolHolds(opened, lock_folder(ledger_url(config))).peek()
    urls = [o.url for o in opened]
    url = ledger_url(config)
    with LedgerReader(url) as report:
        facts = status_facts(report, config.retry.lifetime, urls)
        all_kept = not urls and not facts["messages"]["acknowledged"]
        found = replayable(report, all_kept=all_kept)
        facts["replay"] = _replay_facts(found, kept_folder(url))
        facts["reserve"] = _reserve_facts(report.reserves(lock_folder(url)))
        if opened:
            facts["source"] = _count_again(report, opened[0])
            if facts["source"]["unknown_to_ledger"]:
                facts["balanced"] = False
        if json_:
            print_json(facts)
        else:
            _show_status(facts, report.reasons(urls))


def _export_metrics(config: Config, output: Path | None, *, alone: bool) -> None:
    if not alone:
        message = "--output and --prometheus go together, without SOURCE and --json"
        raise UsageError(message, hint="drainer status --prometheus --output FILE.prom")
    from drainer.watch.textfile import (  # noqa: PLC0415 - few need it
        ledger_metrics,
        write_textfile,
    )

    url = ledger_url(config)
    if output is not None:
        write_textfile(config, url, output)
    else:
        sys.stdout.write(ledger_metrics(config, url).decode())


def _count_again(report: LedgerReader, source: Source) -> dict[str, Any]:
    seen = Counter[str]()
    moved = Counter[str](
        message.identity for message in report.unrecorded(_count_messages(source, seen))
    )
    unknown = 0
    for identity, count in moved.items():  # a renamed message is known too
        recorded = report.of_identity(identity)
        unknown += max(0, count - sum(not source.is_in_place(m) for m in recorded))
    return {
        "url": source.url,
        "messages": seen["messages"],
        "unknown_to_ledger": unknown,
        "not_taken": [
            part._asdict()
            for part in (source.untaken() if isinstance(source, PartialSource) else ())
        ],
    }


def _replay_facts(found: Row, kept: Path) -> dict[str, Any]:
    """Return how far back delivered mail can be sent again, and from what."""
    since = from_micros(int(found["since"])).isoformat() if found["since"] else None
    copies, oldest = oldest_copy(kept)
    copied = datetime.fromtimestamp(oldest, UTC).isoformat() if oldest else None
    return {
        "recipients": int(found["recipients"]),
        "since": since,
        "copies": copies,
        "copies_since": copied,
    }


def _reserve_facts(left: list[LeftReserve]) -> dict[str, Any]:
    """Return the content of the reserves of ended runs, and their files."""
    used = [each for each in left if each.records or each.damage]
    return {
        "recipients": sum(len(each.records) for each in used),
        "files": [str(each.path) for each in used],
    }


def first_to_expire(config: Config, sources: list[str]) -> dict[str, Any] | None:
    """Return what an existing ledger says about it; create nothing."""
    try:
        with LedgerReader(ledger_url(config)) as report:
            return expiry(report.expires_first(sources), config.retry.lifetime)
    except LedgerError:
        return None


def _count_messages(source: Source, seen: Counter[str]) -> Iterator[Message]:
    """Yield every message of a spool, and count them."""
    for spooled in source.scan():
        seen["messages"] += 1
        yield spooled.message


def _show_status(facts: dict[str, Any], reasons: list[Row]) -> None:
    said = {""}
    _show_breakers(facts, said)
    for row in reasons:
        sample = "for example: " if row["varies"] else ""
        words = _quote_once(_strip_stage(row["reply"]), said, sample)
        stdout().print(
            f"{row['count']} {row['state']}: {clean(meaning_of(row['rule']))}"
            f" since {format_time(row['since'])}{words}"
        )
    _show_routes(facts["routes"])
    show_expiry(facts["expires_first"])
    _show_replay(facts["replay"])
    _show_reserve(facts["reserve"])
    _show_sum(facts)
    if "source" in facts:
        _show_source(facts["source"])


def _strip_stage(reply: str | None) -> str:
    """Return a reply without the stage in front, with which a breaker has it."""
    return _STAGE.sub("", reply or "")


def _quote_once(reply: str, said: set[str], sample: str = "") -> str:
    """Return a reply in parentheses, or '' if the output has it already."""
    if reply in said:
        return ""
    said.add(reply)
    return f" ({sample}{clean(reply, 100)})"


def _show_breakers(facts: dict[str, Any], said: set[str]) -> None:
    """Print the breakers, and what to do about those that are not closed."""
    console = stdout()
    for breaker in facts["breakers"]:
        is_domain = breaker["scope"] != "route"
        of = f"{clean(breaker['scope'])} at " if is_domain else "the route "
        words = _quote_once(_strip_stage(breaker["reply"]), said)
        console.print(
            f"[red]breaker of {of}{clean(breaker['route'])} {breaker['state']}[/]:"
            f" {clean(breaker['reason'])}{words}"
        )
        if breaker["remedy"] not in said:
            console.print(f"  [yellow]{clean(breaker['remedy'], 500)}[/]")
            said.add(breaker["remedy"])


def _show_routes(routes: list[dict[str, Any]]) -> None:
    for each in routes if len(routes) > 1 else ():
        counts = (f"{count} {state}" for state, count in each["states"].items())
        stdout().print(f"{clean(each['route'] or 'no route')}: {', '.join(counts)}")


def _show_source(found: dict[str, Any]) -> None:
    console = stdout()
    console.print(
        f"the spool holds {found['messages']} messages,"
        f" {found['unknown_to_ledger']} of them not in the ledger"
    )
    for part in found["not_taken"]:
        console.print(
            f"  {part['messages']} messages are in {clean(part['name'])}:"
            f" take them with {clean(part['option'])}"
        )
    if found["unknown_to_ledger"]:
        console.print("run `drainer drain` to record and send them")


def _show_replay(replay: dict[str, Any]) -> None:
    if replay["since"]:
        stdout().print(
            "replay: the sources still have the mail of"
            f" {replay['recipients']} delivered recipients, back to"
            f" {format_time(replay['since'])}; if the primary loses it, see `drainer"
            " requeue --help`"
        )
    if replay["copies"]:
        stdout().print(
            f"replay: copies of {replay['copies']} delivered messages, back to"
            f" {format_time(replay['copies_since'])}"
        )


def _show_reserve(reserve: dict[str, Any]) -> None:
    """Name the reserves that the next run will read."""
    if reserve["files"]:
        stdout().print(
            f"[yellow]a run lost the ledger: its reserve has the outcome of"
            f" {reserve['recipients']} recipients[/], the next drain records them:"
            f" {clean(', '.join(reserve['files']), 500)}"
        )


def _show_sum(facts: dict[str, Any]) -> None:
    """Print the sum of promise P1, and whether it is right."""
    console = stdout()
    table = Table("state", "recipients")
    for state, count in facts["states"].items():
        if count:
            table.add(state, str(count))
    table.end()
    total = sum(facts["states"].values())
    if facts["spooled"] == total:
        console.print(f"{facts['spooled']} recipients recorded, all accounted for")
    else:
        console.print(
            f"[red]{facts['spooled']} recipients were recorded, but the states add up"
            f" to {total}: please report this[/]"
        )


def show_expiry(first: dict[str, Any] | None) -> None:
    """Print which recipient expires first, if one will."""
    if first is not None:
        stdout().print(
            f"first to expire: {clean(first['native_id'])} to"
            f" {clean(first['forward_path'])}, after {describe_duration(first['left'])}"
            " more of waiting for a primary that answers"
        )
