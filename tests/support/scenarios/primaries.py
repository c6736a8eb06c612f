"""Primaries that refuse, rightly or not, and what a drain owes to the mail for them.

A ``Scenario`` is data: the mail of a backup, the primary while it is broken and when it
is healthy again, and how a drain must end in between. They stand in
tests/support/scenarios/refusals.py; here is what they are made of.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.smtp_peer.script import Answer, Script, Step, View

DOMAIN: Final = "example.org"
SENDER: Final = "operator@backup.example"
"""Of the canary; mail in the spool comes from elsewhere."""
OK: Final = "250 2.1.5 ok"
UNKNOWN: Final = (
    "550 5.1.1 <{}>: Recipient address rejected: User unknown in virtual mailbox table"
)
RELAY: Final = "554 5.7.1 <{}>: Relay access denied"
BLOCKED: Final = (
    "554 5.7.1 Service unavailable; Client host [192.0.2.9] blocked using bl.example"
)
NAME_DISLIKED: Final = "550 5.7.1 Helo command rejected: Access denied"
GREY: Final = "Greylisted, please try again later"
STOPPED: Final = 4
REMAIN: Final = 5


def users_only(view: View) -> Step:
    """Answer RCPT as a server that knows its users, and takes no other address."""
    known = view.path.startswith(("user", "known@", "postmaster@"))
    return OK if known else UNKNOWN.format(view.path)


def healthy() -> Script:
    """Return a primary that takes all mail for its users."""
    return Script(rcpt=users_only)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One message of the spool."""

    sender: str
    recipients: tuple[str, ...]
    text: bytes = b"Subject: hello\n\nbody\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the drain ends while the primary is broken; whom it does not name arrives."""

    exits: tuple[int, ...]
    #: Those in ``bounce-pending``: exactly they.
    refused: frozenset[str] = frozenset()
    #: Those that are to be tried again; nobody has judged them.
    waiting: frozenset[str] = frozenset()
    #: The states of those that wait.
    waits_as: frozenset[str] = frozenset(("pending", "deferred"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A primary that is broken, and healthy again."""

    id: str
    #: What is wrong with it, for the table.
    words: str
    mail: tuple[Mail, ...]
    #: Makes its answers, with a memory of their own.
    broken: Callable[[], Script]
    well: Callable[[], Script] = healthy
    #: With known-good recipients configured; and without, None = not of interest.
    known: Outcome
    blind: Outcome | None
    #: Whom the primary refuses for good, and rightly.
    never: frozenset[str] = frozenset()
    #: Who may arrive twice: the reply to their final dot was lost.
    doubtful: frozenset[str] = frozenset()
    #: Where the outcome cannot be told before: only what must not happen is judged.
    fickle: bool = False
    connections: int = 2
    give_up_after: str = "2s"
    domains: tuple[str, ...] = (DOMAIN,)
    #: In ``[bounce]``: longer than a test, but where the confirming attempt is needed.
    confirm_after: str = "1h"

    @property
    def recipients(self) -> list[str]:
        """Every recipient of the mail, once."""
        return [path for mail in self.mail for path in mail.recipients]

    @property
    def known_good(self) -> list[str]:
        """Addresses that exist, and get no mail here."""
        return [f"known@{domain}" for domain in self.domains]


# ---- mail


def user(n: int, domain: str = DOMAIN) -> str:
    """Return the n-th recipient."""
    return f"user{n}@{domain}"


def letters(count: int, domains: Sequence[str] = (DOMAIN,)) -> tuple[Mail, ...]:
    """Return messages to one recipient each, from seven sender domains in turn."""
    return tuple(letter(n, user(n, domains[n % len(domains)])) for n in range(count))


def letter(n: int, *recipients: str, text: bytes = b"") -> Mail:
    """Return the n-th message."""
    content = f"Subject: message {n}\n\nbody of {n}\n".encode() + text
    sender = f"sender{n}@sender{n % 7}.example"
    return Mail(sender=sender, recipients=recipients, text=content)


def _sized(n: int) -> Mail:
    """Return the n-th message; every tenth is a large one."""
    line = b"x" * 70 + b"\n"
    return letter(n, user(n), text=line * (3000 if user(n) in EVERY_TENTH else 1))


SIXTY: Final = letters(60)
EVERYBODY: Final = frozenset(mail.recipients[0] for mail in SIXTY)
EVERY_TENTH: Final = frozenset(user(n) for n in range(3, 60, 10))
SIZES: Final = tuple(_sized(n) for n in range(60))


# ---- answers


def refusing(reply: str, whom: Callable[[View], bool]) -> Answer:
    """Answer RCPT (or MAIL) with the reply, which may name the mailbox, to some."""
    return lambda view: reply.format(view.path) if whom(view) else users_only(view)


def everybody(_view: View) -> bool:
    """Refuse whoever it is."""
    return True


def only(paths: frozenset[str]) -> Callable[[View], bool]:
    """Refuse these mailboxes."""
    return lambda view: view.path in paths


def accepted_for(view: View) -> list[str]:
    """Return the recipients of the message at its content or final dot."""
    return view.message.forward_paths if view.message else []


def sender_of(view: View) -> str:
    """Return the reverse path of the transaction."""
    return view.message.reverse_path if view.message else ""


def in_phase(seconds: float, up: Step, down: Step) -> Answer:
    """Answer one way and the other, for so many seconds each by the clock."""
    return lambda view: up if int(view.command.at / seconds) % 2 else down


def at_second_try(reply: str) -> Script:
    """Answer like this to sender and recipient until they come a second time."""
    seen: set[tuple[str, str]] = set()

    def rcpt(view: View) -> Step:
        triplet = (sender_of(view), view.path)
        if triplet in seen:
            return users_only(view)
        seen.add(triplet)
        return reply.format(view.path)

    return Script(rcpt=rcpt)


def by_turns(known: Callable[[int], bool]) -> Script:
    """Know everybody or nobody, by how many were asked for before."""
    numbers = itertools.count()

    def rcpt(view: View) -> Step:
        if known(next(numbers)):
            return users_only(view)
        return UNKNOWN.format(view.path)

    return Script(rcpt=rcpt)
