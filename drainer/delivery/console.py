"""What a person is told while a run goes on, on a terminal or in a journal."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from drainer.sources.protocol import HeldCount, ReleasedCount

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


def tell_claims(
    voice: Voice,
    elsewhere: Sequence[tuple[str, str]],
    replaced: Sequence[tuple[str, str]],
) -> None:
    """Warn of sources that other drains may not see as ours, or that were theirs."""
    for url, place in elsewhere:
        voice.warn(
            f"{url} cannot be written, so the marker of this ledger is {place}: drains"
            " on other hosts, or of other users, do not see it"
        )
    for url, former in replaced:
        voice.warn(
            f"{url} is taken over from {former}: what that ledger delivered may be"
            " delivered again"
        )


def tell_taken(voice: Voice, taken: HeldCount) -> None:
    """Say what was taken from running servers, and what that puts at stake."""
    if taken.messages:
        voice.say(
            f"{taken.messages} messages taken on hold; what is left is given back"
        )
    if taken.left:
        voice.warn(
            f"{taken.left} messages cannot be replayed and are left to Postfix:"
            " `drainer inspect` says why"
        )
    if taken.expiring:
        voice.warn(
            f"{taken.expiring} of them have outlived maximal_queue_lifetime: what this"
            " drain does not deliver, Postfix bounces when it has it back and its next"
            " attempt fails; raise that limit (postconf -e, postfix reload)"
        )


def tell_returned(voice: Voice, source: str, returned: ReleasedCount) -> None:
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
