"""Promise P4 where a canary cannot see: content, senders, single hosts, kinds of mail.

Each primary refuses something that it would accept if it were healthy. Nothing becomes
final because of that, and everything arrives once it is healthy, without an operator.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.support.scenarios.backup import Backup, Delivered, confirm_after
from tests.support.scenarios.primaries import (
    DOMAIN,
    REMAIN,
    SENDER,
    STOPPED,
    UNKNOWN,
    Mail,
    accepted_for,
    everybody,
    healthy,
    letters,
    refusing,
    sender_of,
    user,
    users_only,
)
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Answer,
    Delay,
    Drop,
    Script,
    Stall,
    Step,
    View,
)

StartPeer = Callable[..., PeerThread]
Numbers = Iterator[int]

TAKEN = "250 2.0.0 taken"
GROUP = "sender3.example"
RELAY = "554 5.7.1 <{}>: Relay access denied"


def delivered_to(primary: PeerThread) -> Delivered:
    """Return what counts the copies of its mail that each recipient got."""
    return lambda: Counter(
        path for mail in primary.accepted for path in mail.forward_paths
    )


def prepare(
    backup: Backup,
    primary: PeerThread,
    mail: tuple[Mail, ...],
    *,
    known_good: bool = True,
    give_up_after: str = "2s",
    **keys: object,
) -> Delivered:
    """Fill the spool for this primary; return what counts deliveries."""
    backup.port = primary.port
    domains = sorted({each.recipients[0].partition("@")[2] for each in mail})
    domains = domains or [DOMAIN]
    backup.configure(
        primary={"domains": domains, "connections": 2, **keys},
        breaker={"give_up_after": give_up_after},
        **confirm_after("200ms"),
    )
    if known_good:
        backup.know(*(f"known@{domain}" for domain in domains))
    backup.fill(mail)
    return delivered_to(primary)


def assert_nothing_is_final(backup: Backup) -> None:
    """No recipient was bounced or quarantined."""
    assert not {"bounced", "quarantined"} & set(backup.states().values())


def heal(backup: Backup, primary: PeerThread, delivered: Delivered) -> None:
    """Let the primary be healthy: drains alone deliver everything, once."""
    primary.script = healthy()
    deadline = time.monotonic() + 15
    while backup.empty().code != 0:
        assert time.monotonic() < deadline, backup.states()
    assert delivered() == Counter(backup.addressed)


def after(count: int, answer: str) -> Answer:
    """Accept so many, then answer like this; a canary is always accepted."""
    numbers: Numbers = itertools.count()

    def step(view: View) -> Step:
        if view.path == SENDER or next(numbers) < count:
            return TAKEN
        return answer

    return step


EVERYBODY = {
    "content-policy": lambda: Script(
        rcpt=users_only, dot=after(20, "550 5.7.1 Command rejected")
    ),
    "policy-in-words": lambda: Script(rcpt=users_only, dot="550 Rejected by policy"),
    "sender-dns-dead": lambda: Script(
        rcpt=users_only,
        mail=after(20, "550 5.1.8 Sender address rejected: Domain not found"),
    ),
    "over-quota": lambda: Script(
        rcpt=refusing("552 5.2.2 <{}>: Mailbox full", everybody)
    ),
    "over-quota-for-now": lambda: Script(
        rcpt=refusing("452 4.2.2 <{}>: Mailbox is over quota", everybody)
    ),
    "lost-at-data": lambda: Script(rcpt=users_only, data=Drop()),
    "sender-check": lambda: Script(
        rcpt=users_only, dot=after(20, "550 5.7.23 SPF validation failed")
    ),
    "bare-newlines": lambda: Script(
        rcpt=users_only, dot=after(20, "550 5.6.11 Bare line feed")
    ),
}


@pytest.mark.parametrize("kind", EVERYBODY)
def test_the_same_refusal_for_everybody_stops_delivery_whatever_its_class(
    backup: Backup, peer: StartPeer, kind: str
) -> None:
    """Exit 4, again at each run, nothing judged; all arrives once it is healthy."""
    primary = peer(EVERYBODY[kind]())
    delivered = prepare(backup, primary, letters(60))
    for _ in range(2):
        result = backup.empty()
        assert result.code == STOPPED, result
        assert not {"bounce-pending", "held"} & set(backup.states().values())
    assert_nothing_is_final(backup)
    heal(backup, primary, delivered)


NET = "example.net"


def refuse_net(stage: str, reply: str) -> Script:
    """Refuse all mail for one domain of two at a stage; the canary's too, at RCPT."""

    def step(view: View) -> Step:
        paths = [view.path] if stage == "rcpt" else accepted_for(view)
        if any(path.endswith(NET) for path in paths):
            return reply.format(view.path)
        return users_only(view) if stage == "rcpt" else TAKEN

    if stage == "rcpt":
        return Script(rcpt=step)
    return Script(rcpt=users_only, dot=step)


ONE_DOMAIN = {
    "over-quota": ("rcpt", "552 5.2.2 <{}>: Mailbox full"),
    "over-quota-for-now": ("rcpt", "452 4.2.2 <{}>: Mailbox is over quota"),
    "unknown": ("rcpt", UNKNOWN),
    "our-address": ("rcpt", "554 5.7.1 Client host [192.0.2.9] blocked using bl.test"),
    "our-rate": ("rcpt", "450 4.7.1 Too many connections from your host"),
    "filter-down": ("dot", "451 4.3.0 Temporary content filter failure"),
    "policy-at-dot": ("dot", "550 5.7.1 Command rejected"),
}


@pytest.mark.parametrize("kind", ONE_DOMAIN)
def test_a_domain_that_answers_the_same_for_everybody_stops_alone(
    backup: Backup, peer: StartPeer, kind: str
) -> None:
    """The other domain's mail arrives; few messages of this one are tried."""
    primary = peer(refuse_net(*ONE_DOMAIN[kind]))
    delivered = prepare(backup, primary, letters(60, (DOMAIN, NET)), connections=4)
    for _ in range(2):
        result = backup.empty()
        assert result.code == STOPPED, result
        states = backup.states()
        found = {path for path, state in states.items() if state == "delivered"}
        assert found == {path for path in states if path.endswith(DOMAIN)}
        waiting = {states[path] for path in states.keys() - found}
        assert waiting <= {"pending", "deferred"}, states
    tried = Counter(
        each.forward_path
        for message in primary.messages
        for each in message.recipients
        if each.forward_path.startswith("user") and each.forward_path.endswith(NET)
    )
    assert tried.total() <= 90, tried  # 30 messages in two drains
    heal(backup, primary, delivered)


@pytest.mark.parametrize("bad", [{1}, {0}, {0, 2}])
def test_a_host_without_users_behind_one_address_refuses_nobody_for_good(
    backup: Backup, peer: StartPeer, bad: set[int]
) -> None:
    """Two of three, or one of three connections reach it: all arrive in one drain."""

    def rcpt(view: View) -> Step:
        lost = view.connection % 3 in bad
        return UNKNOWN.format(view.path) if lost else users_only(view)

    primary = peer(Script(rcpt=rcpt))
    delivered = prepare(backup, primary, letters(60), connections=4)
    backup.empty()
    states = Counter(backup.states().values())
    assert states["bounce-pending"] <= 2, states  # a session's only refusals
    assert_nothing_is_final(backup)
    time.sleep(0.3)  # the confirmation delay
    result = backup.empty()
    assert result.code == 0, (result, backup.states())
    assert delivered() == Counter(backup.addressed)


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("mail", "550 5.7.1 Delivery not authorized"),
        ("dot", "550 5.7.1 Delivery not authorized"),
        ("dot", "554 5.7.1 Client host [192.0.2.9] blocked using bl.test"),
    ],
)
def test_a_host_without_its_filter_refuses_nothing_for_good(
    backup: Backup, peer: StartPeer, stage: str, reply: str
) -> None:
    """One of three connections reaches it; the canary passes there, too.

    Its refusals may name this host: others are asked before a message is held.
    """

    def step(view: View) -> Step:
        is_bad = view.connection % 3 == 2 and view.path != SENDER
        return reply if is_bad else TAKEN

    at_mail = stage == "mail"
    script = Script(rcpt=users_only, mail=step) if at_mail else Script(dot=step)
    primary = peer(script)
    delivered = prepare(backup, primary, letters(60), connections=4)
    backup.empty()
    states = Counter(backup.states().values())
    assert states["bounce-pending"] <= 4, states  # each a session's only refusal
    deadline = time.monotonic() + 15
    while backup.empty().code != 0:
        assert_nothing_is_final(backup)
        assert time.monotonic() < deadline, backup.states()
    assert delivered() == Counter(backup.addressed)


def test_hosts_that_deny_relay_hold_nothing_while_another_accepts(
    backup: Backup, peer: StartPeer
) -> None:
    """Two of three connections reach one: it is asked before it refuses mail again."""

    def mail(view: View) -> Step:
        return TAKEN if view.connection % 3 == 2 else "554 5.7.1 Relay access denied"

    primary = peer(Script(rcpt=users_only, mail=mail))
    delivered = prepare(
        backup, primary, letters(12), connections=3, give_up_after="20s"
    )
    deadline = time.monotonic() + 30
    while backup.empty().code != 0:
        assert set(backup.states().values()) <= {"pending", "deferred", "delivered"}
        assert time.monotonic() < deadline, backup.states()
    assert delivered() == Counter(backup.addressed)


def test_a_refused_mailbox_is_judged_by_the_host_that_refused_it(
    backup: Backup, peer: StartPeer
) -> None:
    """The confirming attempt meets a host without users: that confirms nothing."""
    lost = {user(3)}
    primary = peer(
        Script(rcpt=refusing(UNKNOWN, lambda view: view.path in lost)),
    )
    delivered = prepare(backup, primary, letters(12))
    assert backup.empty().code == REMAIN
    assert backup.states()[user(3)] == "bounce-pending"

    def rcpt(view: View) -> Step:
        is_bad = view.connection % 2 == 0
        return UNKNOWN.format(view.path) if is_bad else users_only(view)

    primary.script = Script(rcpt=rcpt)
    deadline = time.monotonic() + 15
    while backup.states()[user(3)] != "delivered":
        assert time.monotonic() < deadline
        backup.empty()
        assert_nothing_is_final(backup)
    assert delivered() == Counter(backup.addressed)


@pytest.mark.parametrize("stage", ["rcpt", "dot"])
def test_a_refused_kind_of_mail_is_held_together_and_asked_for_again(
    backup: Backup, peer: StartPeer, stage: str
) -> None:
    """All mail of one sender domain: held, one message tried at the next drain."""
    reply = "550 5.7.1 Delivery not authorized"

    def step(view: View) -> Step:
        if sender_of(view).endswith(GROUP):
            return reply
        return users_only(view) if stage == "rcpt" else TAKEN

    script = Script(rcpt=step) if stage == "rcpt" else Script(rcpt=users_only, dot=step)
    primary = peer(script)
    delivered = prepare(backup, primary, letters(56))
    group = {path for n in range(3, 56, 7) for path in [user(n)]}
    for _ in range(2):
        assert backup.empty().code == REMAIN
        states = backup.states()
        assert {path for path, state in states.items() if state == "held"} == group
        assert set(states.values()) == {"held", "delivered"}
    fact = backup.recipients()[user(3)]
    assert fact["rule"] == "group-sender"
    assert GROUP in backup.run("why", fact["id"]).stdout
    heal(backup, primary, delivered)


def test_relay_denied_for_all_domains_ends_the_drain_within_seconds(
    backup: Backup, peer: StartPeer
) -> None:
    """Without known-good recipients, and although it may wait for 15 minutes."""
    primary = peer(Script(rcpt=refusing(RELAY, everybody)))
    mail = letters(60, (DOMAIN, "example.net"))
    prepare(backup, primary, mail, known_good=False, give_up_after="15m")
    began = time.monotonic()
    assert backup.empty().code == STOPPED
    assert time.monotonic() - began < 20


def test_final_dots_without_replies_leave_few_in_doubt(
    backup: Backup, peer: StartPeer
) -> None:
    """The thresholds follow the configured time-out."""
    primary = peer(Script(rcpt=users_only, dot=Stall(1.0)), lenient=True)
    prepare(backup, primary, letters(60), dot_timeout="500ms", connections=4)
    backup.empty()
    states = Counter(backup.states().values())
    assert 0 < states["unknown"] <= 20, states


@pytest.mark.parametrize("reply", [RELAY, "554 5.7.1 Client host [192.0.2.9] blocked"])
def test_a_few_refusals_like_ours_stop_no_healthy_primary(
    backup: Backup, peer: StartPeer, reply: str
) -> None:
    """One of ten is refused like us, one unknown; no recipient is known to exist."""
    mail = letters(60)
    stops, strangers = ({user(n) for n in range(m, 60, 10)} for m in (3, 7))

    def rcpt(view: View) -> Step:
        if view.path in stops:
            return reply.format(view.path)
        return UNKNOWN.format(view.path) if view.path in strangers else users_only(view)

    primary = peer(Script(rcpt=rcpt))
    delivered = prepare(
        backup, primary, mail, known_good=False, connections=4, give_up_after="20s"
    )
    result = backup.empty()
    assert result.code == REMAIN, result
    states = backup.states()
    assert {path for path, state in states.items() if state == "held"} == stops
    others = {path for path in states if path not in stops | strangers}
    assert delivered() == Counter(others)
    assert {states[path] for path in strangers} == {"bounce-pending"}


@pytest.mark.parametrize(
    "reply", ["550 5.7.1 Command rejected", "554 5.7.1 Client host [192.0.2.9] blocked"]
)
def test_refused_mail_that_is_left_over_stops_no_healthy_primary(
    backup: Backup, peer: StartPeer, reply: str
) -> None:
    """All else is delivered; no rerun counts the same refusals again."""
    strangers = {user(n) for n in range(14, 22)}

    def dot(view: View) -> Step:
        return reply if strangers & set(accepted_for(view)) else TAKEN

    primary = peer(Script(rcpt=users_only, dot=dot))
    prepare(backup, primary, letters(22), connections=4, give_up_after="20s")
    for _ in range(2):
        assert backup.empty().code != STOPPED
        states = backup.states()
        found = {path for path, state in states.items() if state != "delivered"}
        assert found == strangers


@pytest.mark.parametrize(
    ("count", "every", "before"), [(24, 2, 0), (12, 2, 0), (40, 8, 20)]
)
def test_a_part_of_a_user_table_makes_nothing_final(
    backup: Backup, peer: StartPeer, count: int, every: int, before: int
) -> None:
    """The brake is on, or it accepted some before. All arrives once it is whole."""

    def rcpt(view: View) -> Step:
        is_lost = view.path in lost
        return UNKNOWN.format(view.path) if is_lost else users_only(view)

    lost = {user(n) for n in range(1, count, every)}
    primary = peer(healthy())
    delivered = prepare(backup, primary, letters(before))
    assert backup.empty().code == 0
    known = [path for mail in letters(before) for path in mail.recipients]
    backup.fill(letters(count))
    primary.script = Script(rcpt=rcpt)
    for _ in range(3):
        backup.empty()
        left = [
            row
            for row in backup.run("list", "--json").lines
            if row["state"] != "delivered"
        ]
        assert {row["forward_path"] for row in left} == lost
        assert {row["state"] for row in left} == {"bounce-pending"}
        time.sleep(0.25)  # the confirmation delay
    primary.script = healthy()
    deadline = time.monotonic() + 15
    while backup.empty().code != 0:
        assert time.monotonic() < deadline, backup.run("list", "--json").lines
    assert delivered() == Counter([*backup.addressed, *known])


def test_refusals_of_new_mail_keep_older_ones_from_becoming_final(
    backup: Backup, peer: StartPeer
) -> None:
    """Few were refused when the drain started; half are when it confirms them."""
    lost = {user(n) for n in range(0, 16, 2)}
    primary = peer(Script(rcpt=refusing(UNKNOWN, lambda view: view.path in lost)))
    delivered = prepare(backup, primary, letters(4), connections=1)
    assert backup.empty().code == REMAIN
    backup.fill(letters(16)[4:])
    time.sleep(0.25)  # the confirmation delay
    assert backup.empty().code == REMAIN
    assert Counter(backup.states().values()) == {"bounce-pending": 8, "delivered": 8}
    heal(backup, primary, delivered)


def test_a_primary_that_answers_many_final_dots_late_gets_each_message(
    backup: Backup, peer: StartPeer
) -> None:
    """Two of three replies come too late; the next attempt waits longer."""
    numbers: Numbers = itertools.count()

    def dot(_: View) -> Step:
        return TAKEN if next(numbers) % 3 == 0 else Delay(0.9, TAKEN)

    primary = peer(Script(rcpt=users_only, dot=dot), lenient=True)
    prepare(
        backup,
        primary,
        letters(12),
        dot_timeout="600ms",
        connections=2,
        give_up_after="30s",
    )
    result = backup.empty()
    assert result.code == 0, (result, backup.states())


def test_a_refused_session_is_tried_once(backup: Backup, peer: StartPeer) -> None:
    """Not by five at once: servers lock accounts after a few wrong passwords."""
    tried: list[str] = []

    def refuse(view: View) -> Step:
        tried.append(view.path)
        return "550 5.7.1 Your host is not welcome"

    primary = peer(Script(ehlo=refuse, helo="502 no"))
    prepare(backup, primary, letters(30), connections=5)
    assert backup.empty().code == STOPPED
    assert len(tried) == 1
