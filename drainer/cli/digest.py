"""`digest`: a summary for the postmaster, printed or mailed."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from drainer.bounce.build import hostname_of
from drainer.cli.filters import require_mailbox, time_ago
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import print_json, say
from drainer.config import Config
from drainer.errors import PrimaryNotReady
from drainer.watch.digest import digest_facts, mail_digest, text_of


def digest(
    since: Annotated[
        str, typer.Option(help="Length of the period until now, e.g. 24h, 7d.")
    ] = "24h",
    mail: Annotated[
        str,
        typer.Option(
            "--mail",
            metavar="ADDRESS",
            help="Send it to this address through [bounce] via; print it only if"
            " that fails.",
        ),
    ] = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Summarise for the postmaster what happened to the mail, and why.

    It has counts by state and reason, sender domains, the most frequent refusals, open
    circuit breakers and bounces. It has no bodies, and only the domain of an address.

    Exit status: 3 the mail could not be sent.

    Example: drainer digest --since 7d --mail postmaster@example.com
    """
    now = datetime.now(UTC)
    start = time_ago(since)
    address = require_mailbox(mail) if mail else ""
    config = load(path, ledger=ledger)
    facts = digest_facts(config, start, now)
    text = text_of(facts, hostname_of(config))
    if json_:
        print_json(facts)
    elif not address:
        sys.stdout.write(text)
    if address:
        _mail(config, text, address, now)


def _mail(config: Config, text: str, address: str, now: datetime) -> None:
    try:
        answer = asyncio.run(mail_digest(config, text, address, now))
    except PrimaryNotReady:
        sys.stdout.write(text)
        raise
    words = f"mailed to {address} by {config.bounce.via}: {answer}"
    say(words, as_it_is=True)
