"""What a person is told while a run goes on, on a terminal or in a journal."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from drainer.errors import DrainerError, OwnedElsewhere
from drainer.ledger.report import Report
from drainer.sources import Returned, Taken
from drainer.taking import Takings
from drainer.wiring import LedgerURL
from drainer.worker import Drain

SHOWN_DOMAINS = 10


class Voice(NamedTuple):
    """How a person is told; what is said may be anybody's words."""

    say: Callable[[str], None]
    warn: Callable[[str], None]


def tell_domains(voice: Voice, domains: Sequence[str]) -> None:
    """Say whose mail is sent when a running server has been asked for it."""
    named = [domain for domain in domains if not domain.startswith(".")]
    names = ", ".join(named[:SHOWN_DOMAINS])
    more = f" and {len(named) - SHOWN_DOMAINS} more" if named[SHOWN_DOMAINS:] else ""
    voice.say(f"mail for its relay_domains is sent: {names}{more}")


async def take(takings: Takings, drain: Drain, voice: Voice) -> None:
    """Take from servers that run what this drain is going to send."""
    total = Taken()
    rules, tally = drain.orders.admission, drain.tally
    async for _, taken in takings.take(rules, lambda: tally.interrupted):
        total = Taken(*map(sum, zip(total, taken, strict=True)))
    if total.messages:
        voice.say(
            f"{total.messages} messages taken on hold; what is left is given back"
        )
    if total.left:
        voice.warn(
            f"{total.left} messages cannot be replayed and are left to Postfix:"
            " `drainer inspect` says why"
        )
    if total.expiring:
        voice.warn(
            f"{total.expiring} of them have outlived maximal_queue_lifetime: what this"
            " drain does not deliver, Postfix bounces when it has it back and its next"
            " attempt fails; raise that limit (postconf -e, postfix reload)"
        )


async def give_back(
    takings: Takings, url: LedgerURL, voice: Voice
) -> DrainerError | None:
    """Give back what is not finished; return why that is not possible."""
    if not takings:
        return None
    try:
        with Report(url) as report:
            returned = await takings.give_back(report)
    except OwnedElsewhere:  # then it is not ours
        return None
    except DrainerError as error:
        voice.warn("what was taken on hold could not be given back; the next run will")
        return error
    for source, each in returned.items():
        if any(each):
            tell_returned(voice, source, each)
    return None


def tell_returned(voice: Voice, source: str, returned: Returned) -> None:
    """Say what a running server got back, and what it did not."""
    voice.say(f"{returned.released} messages given back to {source}")
    if returned.expiring:
        voice.warn(
            f"{returned.expiring} of them have outlived maximal_queue_lifetime: Postfix"
            " bounces them if its next attempt fails; raise it, or `postsuper -h` them"
        )
    if returned.waiting:
        voice.warn(
            f"{returned.waiting} stay on hold: refused for good, or held (`drainer list"
            f" --state bounce-pending`); `drainer spool give-back --all {source}`"
            " gives them back, and Postfix may bounce them"
        )
