"""`verify`: what proves a message's sender, and whether it may get a bounce."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from drainer.bounce.build import hostname_of, make_evidence, make_trust
from drainer.bounce.evidence.client import EvidenceWorker
from drainer.bounce.evidence.request import MAX_CONTENT_BYTES, SenderQuestion
from drainer.cli.filters import require_mailbox
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import clean, print_json, say, stdout
from drainer.cli.table import Table
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.config.build.spools import make_sources
from drainer.errors import MessageUnreadable, UsageError
from drainer.ledger.codec import message_of, recipient_of
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.mail.content import crlf
from drainer.mail.envelope import Recipient
from drainer.mail.header import fields_of, unfold
from drainer.mail.list_markers import marks_of
from drainer.mail.message import Message
from drainer.policy.bounce.decision import RULES as BOUNCE_RULES
from drainer.policy.bounce.decision import BounceCase, BounceDecision, decide
from drainer.policy.bounce.evidence import RULES, Evidence, judge
from drainer.policy.bounce.facts import SenderFacts, Strength, parse_address
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.sources.protocol import Source

_COLOURS = {
    Strength.PROVEN: "green",
    Strength.WEAK: "yellow",
    Strength.LATER: "yellow",
    Strength.NOT: "dim",
}
_REFUSED = Classification(
    verdict=Verdict.BOUNCE,
    scope=Scope.RECIPIENT,
    rule="assumed",
    reason="as if the primary had refused the recipient permanently",
)


_Asked = tuple[SenderQuestion, Sequence[Recipient]]
"""A message to verify, and its recipients."""


def verify(
    message: Annotated[
        str,
        typer.Argument(
            metavar="FILE|ID",
            help="A message file; or an id of the ledger: drainer id, queue id,"
            " Message-ID.",
            show_default=False,
        ),
    ],
    sender: Annotated[
        str, typer.Option(help="FILE: the envelope sender; else its Return-Path.")
    ] = "",
    client: Annotated[
        str, typer.Option(help="FILE: the client address that the backup saw.")
    ] = "",
    helo: Annotated[str, typer.Option(help="FILE: the client's HELO name.")] = "",
    login: Annotated[str, typer.Option(help="FILE: the client's login.")] = "",
    recipient: Annotated[
        str, typer.Option(help="FILE: the envelope recipient that failed.")
    ] = "",
    arrived: Annotated[
        str,
        typer.Option(help="FILE: arrival time, e.g. 2026-11-24T10:30:00Z; else now."),
    ] = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Print evidence rules, findings and verdict for the sender of a message.

    It asks DNS now; it sends nothing and writes nothing. For a message of the ledger,
    it decides for each recipient. Exit status: 0 whatever it finds.

    Example: drainer verify mail.eml --client 192.0.2.1 --recipient anna@example.org
    """
    config = load(path, ledger=ledger)
    given = {
        "sender": sender,
        "client": client,
        "helo": helo,
        "login": login,
        "recipient": recipient,
        "arrived": arrived,
    }
    if Path(message).is_file():
        question, recipients = _from_file(Path(message), given)
    elif any(given.values()):
        error = f"there is no file {message}"
        raise UsageError(
            error, hint="these options need a FILE; an ID has its own data"
        )
    else:
        question, recipients = _from_ledger(message, config)
    facts = asyncio.run(_facts(config, question))
    for each in recipients:
        case = _case(config, facts, each, question)
        evidence, decision = judge(facts, each, case.trust), decide(case)
        if json_:
            print_json(facts_of(facts, each, evidence, decision))
        else:
            _show(facts, each, evidence, decision)


async def _facts(config: Config, question: SenderQuestion) -> SenderFacts:
    async with EvidenceWorker(make_evidence(config)) as checks:
        return await checks.facts(question)


def _case(
    config: Config, facts: SenderFacts, recipient: Recipient, question: SenderQuestion
) -> BounceCase:
    head = question.content.partition(b"\r\n\r\n")[0] + b"\r\n"
    return BounceCase(
        facts=facts,
        recipient=recipient,
        marks=marks_of(head),
        trust=make_trust(config),
        hostname=hostname_of(config),
        classification=_REFUSED,
        confirmed=True,
    )


def _from_file(path: Path, given: Mapping[str, str]) -> _Asked:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONTENT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if data.startswith(b"From "):  # the separator of an mbox, not part of the message
        data = data.partition(b"\n")[2]
    content = b"".join(crlf([data]))
    question = SenderQuestion(
        reverse_path=_mailbox(given["sender"] or _return_path(content, path)),
        client=_client(given["client"]),
        helo=given["helo"],
        login=given["login"],
        arrived=_time(given["arrived"]),
        content=content,
        cut=len(data) > MAX_CONTENT_BYTES,
    )
    forward_path = _mailbox(given["recipient"]) if given["recipient"] else ""
    if not forward_path:
        say("without --recipient, a signature counts as weak at most")
    return question, [Recipient(forward_path=forward_path)]


def _return_path(content: bytes, path: Path) -> str:
    for each in fields_of(content):
        if each.name == "return-path":
            return unfold(each.value)
    message = f"{path} does not name its sender"
    raise UsageError(message, hint="give --sender ADDRESS (<> for the null sender)")


def _mailbox(text: str) -> str:
    return "" if text.strip() == "<>" else require_mailbox(text)


def _client(text: str) -> str:
    if text and parse_address(text) is None:
        message = f"{text[:60]!r} is not a valid IP address"
        raise UsageError(message, hint="--client is the address that the backup saw")
    return text


def _time(text: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text[:60]!r} is not a valid time"
        raise UsageError(message, hint="write 2026-11-24T10:30:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _from_ledger(text: str, config: Config) -> _Asked:
    with LedgerReader(ledger_url(config)) as report:
        id_ = report.resolve(text)
        rows = list(report.recipients(Filters(messages=[id_])))
        recipients = [recipient_of(row) for row in rows]
        message = message_of(report.message(id_), tuple(recipients))
    content, cut = _content(message, config)
    question = SenderQuestion(
        reverse_path=message.envelope.reverse_path,
        client=message.client.address,
        helo=message.client.helo,
        login=message.login,
        arrived=message.arrived,
        content=content,
        cut=cut,
    )
    return question, recipients


def _content(message: Message, config: Config) -> tuple[bytes, bool]:
    """Return as much of a spooled content as is examined, and whether it is cut."""
    found = bytearray()
    try:
        for chunk in source_of(message.source, config).open(message).content.chunks():
            found += chunk
            if len(found) > MAX_CONTENT_BYTES:
                return bytes(found), True
    except MessageUnreadable as error:
        problem = f"cannot read {message.native_id} any more: {error}"
        raise UsageError(problem, hint="give `verify` a copy as a FILE") from None
    return bytes(found), False


def source_of(url: str, config: Config) -> Source:
    """Return the source of this URL, with the options of its table, if any."""
    for name in config.sources:
        with suppress(UsageError):  # another's fault is not this one's
            for source in make_sources(config, [name], []):
                if source.url == url:
                    return source
    return make_sources(config, [url], [])[0]


def facts_of(
    facts: SenderFacts,
    recipient: Recipient,
    evidence: Evidence,
    decision: BounceDecision,
) -> dict[str, Any]:
    """Return the findings as JSON for scripts."""
    return {
        "sender": facts.reverse_path,
        "domain": facts.domain or None,
        "client": facts.client or None,
        "recipient": recipient.forward_path or None,
        "verdict": evidence.strength.value,
        "by": evidence.by or None,
        "rules": [
            {
                "rule": row.rule,
                "about": RULES[row.rule][0],
                "strength": row.strength.value,
                "found": row.found,
                "late": row.late,
            }
            for row in evidence.rows
        ],
        "decision": {
            "answer": decision.answer.value,
            "rule": decision.rule,
            "reason": decision.reason,
        },
    }


def _show(
    facts: SenderFacts,
    recipient: Recipient,
    evidence: Evidence,
    decision: BounceDecision,
) -> None:
    console = stdout()
    to = f" to {clean(recipient.forward_path)}" if recipient.forward_path else ""
    console.print(f"[bold]{clean(facts.reverse_path or '<>', 1000)}{to}[/]")
    table = Table("rule", "", "found", fold="found")
    for row in evidence.rows:
        colour = _COLOURS[row.strength]
        table.add(row.rule, f"[{colour}]{row.strength}[/]", clean(row.found, 400))
    table.end()
    by = f" by {evidence.by}" if evidence.by else ""
    colour = _COLOURS[evidence.strength]
    console.print(f"verdict: [{colour}]{evidence.strength}[/]{by}")
    console.print(
        f"after a permanent refusal, the bounce decision would be {decision.answer}"
        f" by {decision.rule} ({BOUNCE_RULES[decision.rule][0]}):"
        f" {clean(decision.reason, 400)}"
    )
