"""Strangers cannot stop a drain: words of theirs in a primary's replies (promise P4).

Crafted messages lie among sixty honest ones in the spool. The primary is healthy: it
refuses or puts off the crafted ones alone. It quotes them, or says to them what it says
to a host that it refuses. One drain delivers every honest message, and its exit status
is not 4.
"""

import re
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.support.mta.roles import Primary
from tests.support.scenarios.backup import Backup
from tests.support.scenarios.primaries import (
    DOMAIN,
    EVERYBODY,
    OK,
    REMAIN,
    SIXTY,
    STOPPED,
    Mail,
    accepted_for,
    sender_of,
    users_only,
)
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Drop,
    Message,
    ReplyThenDrop,
    Script,
    Step,
    View,
)

StartPeer = Callable[..., PeerThread]
Echo = Callable[[View], str]

JUDGED: Final = frozenset(("held", "bounce-pending", "quarantined"))
PUT_OFF: Final = JUDGED | {"deferred", "unknown"}
"""What may become of a message that is only put off."""
FEW: Final = 20
"""Messages that it may take to see that nobody is let in; canaries included."""
PHRASES: Final = (
    "authentication required",
    "relay access denied",
    "client host blocked using spamhaus",
    "too many connections from your ip",
    "insufficient system storage",
    "cannot find your reverse hostname",
    "throttled",
    "rbl",
    "5.7.8 log in first",
)


@pytest.fixture
def backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backup:
    """Give an empty spool, in a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Backup(tmp_path)


def crafted(count: int) -> tuple[Mail, ...]:
    """Return messages whose every text is a refusal of us, from seven domains."""
    return tuple(_crafted(n, PHRASES[n % len(PHRASES)]) for n in range(count))


def _crafted(n: int, words: str) -> Mail:
    encoded = urllib.parse.quote(words).replace("%", "=")
    text = (
        f"Subject: {words}\nFrom: {words} <x@evil{n % 7}.example>\n"
        f"X-Note: =?utf-8?q?{encoded}?=\n\nx\n"
    )
    # As a queue file has them: Postfix quotes what needs it when it sends.
    sender, recipient = f"{words}@evil{n % 7}.example", f"{words} {n}@{DOMAIN}"
    return Mail(sender=sender, recipients=(recipient,), text=text.encode())


def plain(count: int) -> tuple[Mail, ...]:
    """Return messages from seven domains, of which no word is quoted."""
    return tuple(
        Mail(sender=f"x{n}@evil{n % 7}.example", recipients=(f"x{n}@{DOMAIN}",))
        for n in range(count)
    )


def amid_honest(strangers: Sequence[Mail]) -> tuple[Mail, ...]:
    """Return them amid honest mail: file systems list from either end, or mixed."""
    half = len(SIXTY) // 2
    return (*SIXTY[:half], *strangers, *SIXTY[half:])


def number(view: View) -> int | None:
    """Return the number of a crafted transaction; None for an honest one."""
    before = view.message.recipients if view.message else []
    paths = [each.forward_path for each in before]
    known = " ".join((view.path, sender_of(view), *paths))
    found = re.search(r'(?: |\bx)(\d+)"?@', known)
    return int(found[1]) if found else None


def bare(path: str) -> str:
    """Return a mailbox without its quotes, as many servers print it."""
    return path.replace('"', "")


def local(view: View) -> str:
    """Return the unquoted local part of the present mailbox."""
    return bare(view.path).rpartition("@")[0]


def drain(
    backup: Backup,
    primary: PeerThread | Primary,
    connections: int,
    give_up_after: str = "3s",
) -> int:
    """Drain once, knowing a recipient that exists; return the exit status.

    A pause of the drain would last for longer than it may wait.
    """
    backup.port = primary.port
    backup.configure(
        primary={"domains": [DOMAIN], "connections": connections},
        breaker={"give_up_after": give_up_after, "pauses": ["1m"]},
    )
    backup.know()
    return backup.empty().code


def assert_honest_delivered(backup: Backup, code: int) -> dict[str, str]:
    """Check that one drain has done its work; return the strangers' states."""
    states = backup.states()
    honest = [states.pop(path) for path in EVERYBODY]
    assert set(honest) == {"delivered"}, (code, states)
    assert code == REMAIN, states
    backup.assert_balanced()
    return states


# ---- a primary that quotes what it was sent

ECHOES: Final[Sequence[Echo]] = (
    lambda v: f"550 5.1.1 <{bare(v.path)}>: Recipient address rejected: User unknown",
    lambda v: f"550 5.7.1 <{bare(v.path)}>: Recipient address rejected",
    lambda v: f"550 5.7.1 {bare(v.path)} is refused",
    lambda v: f'550 5.7.1 "{bare(v.path)}" is refused',
    lambda v: f"550 5.7.1 '{bare(v.path).upper()}' is refused",
    lambda v: f"550 5.7.1 {local(v)} is refused",
    lambda v: f"550 {local(v)}",
    lambda v: f"550 {local(v)}... User unknown",
    lambda v: f"550 5.7.1 {local(v).replace(' ', '_')} is refused",
    lambda v: f"550 5.7.1 {re.sub('[^a-z]', '?', local(v))} is refused",
    lambda v: f"550 5.7.1 {urllib.parse.quote(local(v))} is refused",
    lambda v: "550 5.7.1 " + local(v).replace(" ", "\\ ") + " is refused",
    lambda v: f"550 5.7.1 {local(v)[:16]}... is refused",
    lambda v: f"550-5.7.1 No: {local(v)[:9]}\n550 5.7.1 {local(v)[9:]} no",
    lambda v: f"550 5.7.1 {bare(sender_of(v))} may not write to us",
    lambda v: f"550 5.1.1 {local(v)}: user unknown",
    lambda v: f"550 5.2.1 {local(v)} at backup.example is closed",
)


def echo_at_rcpt(view: View) -> Step:
    """Answer RCPT of each crafted message in another way."""
    n = number(view)
    return users_only(view) if n is None else ECHOES[n % len(ECHOES)](view)


@pytest.mark.parametrize(("count", "connections"), [(1, 1), (2, 5), (8, 1), (40, 20)])
def test_an_address_that_is_quoted_stops_nothing(
    backup: Backup, peer: StartPeer, count: int, connections: int
) -> None:
    """However it is quoted: it is refused as what it is, and waits for no breaker."""
    backup.fill((*crafted(count), *SIXTY))
    code = drain(backup, peer(Script(rcpt=echo_at_rcpt)), connections)
    states = assert_honest_delivered(backup, code)
    assert set(states.values()) == {"bounce-pending"}


def echo_at_dot(view: View) -> Step:
    """Quote a field of a crafted message as a content filter does."""
    n = number(view)
    if n is None or view.message is None:
        return "250 2.0.0 taken"
    words = PHRASES[n % len(PHRASES)]
    return (
        f"554 5.7.1 Subject '{words}' is refused",
        f"550 5.7.1 rejected: From: {words}",
        f"554 5.7.1 X-Note {words.replace(' ', '  ')} is refused",
        f"550 {words}",
    )[n % 4]


def test_a_header_that_is_quoted_stops_nothing(backup: Backup, peer: StartPeer) -> None:
    """Plain or as an encoded word, at the final dot, where no canary can ask."""
    backup.fill((*SIXTY[:5], *crafted(12), *SIXTY[5:]))
    script = Script(rcpt=accept_crafted, dot=echo_at_dot)
    code = drain(backup, peer(script), 5)
    states = assert_honest_delivered(backup, code)
    assert set(states.values()) == {"bounce-pending"}


# ---- a primary that says to strangers what it says to a host that it refuses


def accept_crafted(view: View) -> Step:
    """Answer RCPT of a crafted message as if its recipient existed."""
    return users_only(view) if number(view) is None else OK


def refusing_by_turns(steps: dict[str, Step]) -> Script:
    """Return a primary that refuses crafted messages, each at the next stage."""
    stages = list(steps)

    def at(stage: str, otherwise: Callable[[View], Step]) -> Callable[[View], Step]:
        def answer(view: View) -> Step:
            n = number(view)
            is_it = n is not None and stages[n % len(stages)] == stage
            return steps[stage] if is_it else otherwise(view)

        return answer

    return Script(
        mail=at("mail", lambda _: "250 2.1.0 ok"),
        rcpt=at("rcpt", accept_crafted),
        data=at("data", lambda _: "354 go ahead"),
        dot=at("dot", lambda _: "250 2.0.0 taken"),
    )


REFUSALS: Final[dict[str, Step]] = {
    "mail": "530 5.7.0 Must issue a STARTTLS command first",
    "rcpt": "554 5.7.1 Client host [192.0.2.9] blocked using bl.example",
    "data": "554 5.7.1 Client was not authenticated",
    "dot": "554 5.7.1 Mail from your network is not wanted",
}
BRIEF: Final[dict[str, Step]] = {
    "mail": ReplyThenDrop("421 4.7.0 Not now"),
    "rcpt": "450 4.7.1 Server busy",
    "data": ReplyThenDrop("421 4.7.0 Not now"),
    "dot": "451 4.7.1 Service unavailable - try again later",
}
DROPS: Final[dict[str, Step]] = {
    "mail": Drop(),
    "rcpt": ReplyThenDrop("421 4.7.0 Not now"),
    "data": Drop(),
    "dot": Drop(),
}


@pytest.mark.parametrize(("count", "connections"), [(8, 1), (40, 20)])
def test_a_refusal_of_us_that_strangers_alone_meet_stops_nothing(
    backup: Backup, peer: StartPeer, count: int, connections: int
) -> None:
    """Each is tried again, alone on other connections, and then it is held."""
    backup.fill(amid_honest(plain(count)))
    primary = peer(refusing_by_turns(REFUSALS))
    code = drain(backup, primary, connections, "40s")
    states = assert_honest_delivered(backup, code)
    assert set(states.values()) == {"held"}
    facts = backup.recipients()
    assert {facts[path]["rule"] for path in states} == {"contradicted-stop"}
    for n in range(count):
        assert_second_is_alone(primary.transactions, f"x{n}@")


def assert_second_is_alone(transactions: Sequence[Message], sender: str) -> None:
    """Check the attempts at a message: the later ones have a connection each.

    There drainer asks for a known-good recipient first, from the operator.
    """
    first, *later = [
        message.connection
        for message in transactions
        if message.reverse_path.startswith(sender)
    ] or [0]
    assert first not in later
    for connection in later:
        senders = [e.reverse_path for e in transactions if e.connection == connection]
        assert len([each for each in senders if not each.startswith("operator@")]) == 1


@pytest.mark.parametrize(
    ("steps", "count", "connections"),
    [(BRIEF, 8, 1), (BRIEF, 40, 20), (DROPS, 24, 5)],
    ids=["one by one", "many", "hanging up"],
)
def test_a_message_that_is_put_off_pauses_no_other(
    backup: Backup,
    peer: StartPeer,
    steps: dict[str, Step],
    count: int,
    connections: int,
) -> None:
    """By 421, by words of a rate, by a lost connection: it alone waits."""
    backup.configure(retry={"first": "300ms", "max": "600ms"})
    backup.fill(amid_honest(plain(count)))
    code = drain(backup, peer(refusing_by_turns(steps)), connections)
    states = assert_honest_delivered(backup, code)
    assert set(states.values()) <= PUT_OFF


def test_why_says_what_contradicted_a_stop_and_what_to_do(
    backup: Backup, peer: StartPeer
) -> None:
    """The rule, the primary's words, the explanation and the remedy."""
    backup.fill((*plain(1), *SIXTY[:3]))
    drain(backup, peer(refusing_by_turns({"rcpt": REFUSALS["rcpt"]})), 1)
    (name,) = (name for name, mail in backup.mail.items() if "evil" in mail.sender)
    told = " ".join(backup.run("why", name).stdout.split())
    for words in (
        "contradicted-stop",
        "others passed this stage meanwhile",
        "blocked using bl.example",
        "drainer release",
    ):
        assert words in told


# ---- what still stops a drain


@pytest.mark.parametrize(
    "reply", ["554 5.7.1 <{}>: Relay access denied", "530 5.7.0 Authentication needed"]
)
def test_a_refusal_that_everybody_meets_stops_the_drain(
    backup: Backup, peer: StartPeer, reply: str
) -> None:
    """Also with the address in it, and with the strangers' mail before the others'."""
    backup.fill((*crafted(2), *SIXTY))
    primary = peer(Script(rcpt=lambda view: reply.format(bare(view.path))))
    assert drain(backup, primary, 5) == STOPPED
    assert set(backup.states().values()) <= {"pending", "deferred"}
    assert len(primary.transactions) <= FEW


def test_a_primary_that_begins_to_refuse_us_stops_the_drain(
    backup: Backup, peer: StartPeer
) -> None:
    """Deliveries before it contradict nothing: nothing is held, all go later."""
    taken: set[str] = set()

    def rcpt(view: View) -> Step:
        if len(taken) >= 30 or not view.path.startswith("user"):
            return "554 5.7.1 Relay access denied" if len(taken) >= 30 else OK
        return OK

    def dot(view: View) -> Step:
        taken.update(accepted_for(view))
        return "250 2.0.0 taken"

    backup.fill(SIXTY)
    primary = peer(Script(rcpt=rcpt, dot=dot))
    assert drain(backup, primary, 2) == STOPPED
    states = backup.states()
    assert set(states.values()) <= {"pending", "deferred", "delivered"}
    assert sum(state == "delivered" for state in states.values()) == len(taken)
    primary.script = Script(rcpt=users_only)
    assert drain(backup, primary, 2) == 0


# ---- a real Postfix, as a backup that has no user table meets it


def test_a_real_postfix_that_quotes_addresses_stops_nothing(
    backup: Backup, primary_postfix: Callable[..., Primary]
) -> None:
    """Its honest 5.1.1 quotes the address, and without its quotes."""
    users = " ".join(f"{{{path}=x}}" for path in (*EVERYBODY, f"known@{DOMAIN}"))
    primary = primary_postfix(
        parameters={
            "virtual_mailbox_maps": f"inline:{{ {users} }}",
            "smtpd_error_sleep_time": "0",
            "smtpd_hard_error_limit": "1000",
        }
    )
    backup.fill((*crafted(9), *SIXTY))
    states = assert_honest_delivered(backup, drain(backup, primary, 5))
    assert set(states.values()) == {"bounce-pending"}
    facts = backup.recipients()
    assert {facts[path]["rule"] for path in states} == {"enhanced-5.1.1"}
