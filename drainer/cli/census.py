"""`census`: which recipients of a spool exist."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from drainer.cli.census_callout import (
    RouteFindings,
    ask_primaries,
    callout_facts,
    contradiction_facts,
    decide_existence,
    words_of,
)
from drainer.cli.filters import with_selection
from drainer.cli.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    ToOption,
    load,
    source_argument,
)
from drainer.cli.output import clean, print_json, say, stdout, warn
from drainer.cli.section_options import Sections, merge, with_lists, with_primary
from drainer.cli.table import Table
from drainer.config import Config
from drainer.config.build.paths import ledger_url, lock_folder
from drainer.config.build.recipient_lists import make_directory_spec, open_directory
from drainer.config.build.spools import make_sources
from drainer.delivery.census.recipients import count_recorded, count_spooled
from drainer.delivery.holds import SpoolHolds
from drainer.ledger.reader import LedgerReader
from drainer.policy.admission.selection import Selection
from drainer.policy.census.existence import (
    REASONS,
    Existence,
    ExistenceAnswer,
)
from drainer.policy.census.tally import CensusTally, RecipientCount
from drainer.runtime.units import describe_duration
from drainer.sources.protocol import Source
from drainer.sources.recipients.recipient_list import ListSummary

MAX_ROWS = 100
_COLOURS = {Existence.UNKNOWN: "red", Existence.CANNOT_TELL: "yellow"}


@with_lists
@with_primary
@with_selection
def census(
    sources: Annotated[
        list[str] | None,
        source_argument(
            "As for `drain`. Without one: the mail in the ledger.", "[SOURCE]..."
        ),
    ] = None,
    path: ConfigOption = None,
    to: ToOption = "",
    ledger: LedgerOption = "",
    listed: Annotated[
        Existence | None,
        typer.Option("--list", help="Print these recipients, one a line."),
    ] = None,
    *,
    selection: Selection,
    primary: Sections,
    recipients: Sections,
    json_: JsonOption = False,
) -> None:
    """Print which recipients of a spool exist, by lists and by asking the primary.

    It groups distinct recipients: known, unknown, cannot tell; by domain and reason. It
    reads the spool and changes nothing. With lists it needs no primary. With --callout
    it also asks the primary, keeps the answers in the ledger, and names contradictions.

    Example: drainer census postfix:/var/spool/postfix --known /etc/drainer/users
    """
    config = load(path, to=to, ledger=ledger, sections=merge(primary, recipients))
    section = config.recipients
    if not section.lists and not section.callout:
        warn("no list of recipients is given: set [recipients] lists, or --known LIST")
    directory = open_directory(make_directory_spec(config))
    for words in directory.warnings():
        warn(words, as_it_is=True)
    opened = make_sources(config, sources or [], selection.queues)
    count = dict(_count(config, opened, selection).mailboxes())
    answers = directory.lookup(list(count))
    asked = ask_primaries(config, opened, answers) if section.callout else []
    said = {m: answer for each in asked for m, answer in each.result.answers.items()}
    tally = CensusTally()
    for mailbox, messages in count.items():
        answer = decide_existence(answers[mailbox], said.get(mailbox))
        tally.add(mailbox, messages, answer)
        if answer.existence is listed:
            _print_recipient(mailbox, messages, answer, as_json=json_)
    for words in (words for each in asked for words in words_of(each)):
        warn(words)
    if listed is None:
        _print(tally, directory.summaries(), asked, as_json=json_)


def _count(
    config: Config, sources: list[Source], selection: Selection
) -> RecipientCount:
    if not sources:
        with LedgerReader(ledger_url(config)) as report:
            return count_recorded(report, selection)
    SpoolHolds(sources, lock_folder(ledger_url(config))).peek()
    return count_spooled(sources, selection)


def _print_recipient(
    mailbox: str, messages: int, answer: ExistenceAnswer, *, as_json: bool
) -> None:
    if not as_json:
        stdout().print(clean(mailbox, 600))
        return
    print_json(
        {
            "recipient": mailbox,
            "messages": messages,
            "existence": answer.existence.value,
            "reason": answer.reason,
            "by": answer.by or None,
        }
    )


def _print(
    tally: CensusTally,
    lists: list[ListSummary],
    asked: list[RouteFindings],
    *,
    as_json: bool,
) -> None:
    numbers = {each.value.replace("-", "_"): tally.count(each) for each in Existence}
    total = sum(numbers.values())
    if as_json:
        print_json(
            {
                "recipients": total,
                **numbers,
                "groups": [asdict(group) for group in tally.groups],
                "lists": [_list_facts(each) for each in lists],
                "callouts": [callout_facts(each) for each in asked],
                "contradictions": [
                    fact for each in asked for fact in contradiction_facts(each)
                ],
            }
        )
        return
    for each in lists:
        say(f"list {each.name}: {_words(each)}")
    console = stdout()
    console.print(
        f"{total} recipients: {numbers['known']} known, {numbers['unknown']}"
        f" unknown, {numbers['cannot_tell']} cannot tell"
    )
    rows = Table(
        "", "domain", "recipients", "messages", "reason", "for example",
        spare=("for example", "messages"),
    )  # fmt: skip
    for group in tally.groups[:MAX_ROWS]:
        colour = _COLOURS.get(group.existence, "green")
        rows.add(
            f"[{colour}]{group.existence}[/]",
            clean(group.domain),
            str(group.recipients),
            str(group.messages),
            REASONS[group.reason],
            clean(", ".join(group.samples[:3])),
        )
    rows.end()
    if len(tally.groups) > MAX_ROWS:
        console.print(f"{len(tally.groups) - MAX_ROWS} more rows: see --json")


def _words(each: ListSummary) -> str:
    size = "asked one by one" if each.entries is None else f"{each.entries} entries"
    if each.age is None:
        return size
    return f"{size}, changed {describe_duration(each.age.total_seconds())} ago"


def _list_facts(each: ListSummary) -> dict[str, Any]:
    return {
        "name": each.name,
        "entries": each.entries,
        "age_seconds": None if each.age is None else round(each.age.total_seconds()),
        "too_old": each.is_too_old,
        "ignored": each.ignored,
    }
