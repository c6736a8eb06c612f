"""Promise P4, a whole drain at a time: what a broken primary says judges no message.

Each scenario of tests/support/scenarios/refusals.py is drained while the primary is
broken, then until everything has arrived that can, with known-good recipients
configured and without.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.command.runner import end
from tests.support.scenarios.backup import Backup, Delivered
from tests.support.scenarios.primaries import (
    DOMAIN,
    EVERY_TENTH,
    REMAIN,
    SIXTY,
    STOPPED,
    UNKNOWN,
    Outcome,
    Scenario,
    accepted_for,
    healthy,
    letters,
    only,
    refusing,
    sender_of,
    user,
    users_only,
)
from tests.support.scenarios.refusals import DOMAINS, SCENARIOS, few_unknown
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Message, ReplyThenDrop, Script, Step, View

StartPeer = Callable[..., PeerThread]

FEW = 20
"""Messages that it may take to see that nobody is let in; canaries included."""

POISON = user(7)
THRICE = 3
"""Content that so often ended the connection is poison."""


def delivered_to(primary: PeerThread) -> Delivered:
    """Return what tells how many copies of its mail each recipient got."""
    return lambda: Counter(
        path for mail in primary.accepted for path in mail.forward_paths
    )


CASES = [
    pytest.param(scenario, known_good, id=f"{scenario.id}-{word}")
    for scenario in SCENARIOS
    for known_good, word in ((True, "known-good"), (False, "blind"))
    if known_good or scenario.blind is not None
]


@pytest.mark.parametrize(("scenario", "known_good"), CASES)
def test_a_sick_primary_judges_no_message(
    backup: Backup, peer: StartPeer, scenario: Scenario, *, known_good: bool
) -> None:
    """No false bounce, every other message delivered, the exit status tells which."""
    expected = scenario.known if known_good else scenario.blind
    assert expected is not None
    primary = peer(scenario.broken())
    backup.port, delivered = primary.port, delivered_to(primary)
    backup.prepare(scenario, known_good=known_good)
    result = backup.empty()
    assert result.code in expected.exits, result
    backup.assert_nothing_lost(delivered)
    if not scenario.fickle:
        backup.assert_outcome(expected)
    if expected.waiting == set(scenario.recipients):
        assert len(primary.transactions) <= FEW
    primary.script = scenario.well()
    backup.deliver_the_rest(delivered)
    twice = {path for path, copies in delivered().items() if copies > 1}
    assert twice <= scenario.doubtful


def test_few_unknown_recipients_among_a_thousand_stop_nothing(
    backup: Backup, peer: StartPeer
) -> None:
    """970 of 1,000 delivered by one drain, exactly the other 30 in bounce-pending."""
    scenario = few_unknown(1000)
    primary = peer(scenario.broken())
    backup.port, delivered = primary.port, delivered_to(primary)
    backup.prepare(scenario, known_good=True)
    result = backup.empty()
    assert result.code == REMAIN, result
    backup.assert_outcome(scenario.known)
    backup.assert_nothing_lost(delivered)
    assert set(delivered().values()) == {1}
    assert len(delivered()) == 970


# ---- what takes several drains


_UNJUDGED = Outcome(
    exits=(REMAIN,), waits_as=frozenset(("deferred", "unknown", "held"))
)


def _scenario(id_: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.id == id_)


def _messages(primary: PeerThread) -> list[Message]:
    """Return its transactions but for those of canaries."""
    return [
        message
        for message in primary.transactions
        if any(each.forward_path.startswith("user") for each in message.recipients)
    ]


def test_a_user_table_that_comes_back_later(backup: Backup, peer: StartPeer) -> None:
    """Each drain before asks a few and says 4; the first one after delivers all."""
    scenario = _scenario("empty-user-table")
    primary = peer(scenario.broken())
    backup.port, delivered = primary.port, delivered_to(primary)
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == STOPPED
    before = len(_messages(primary))
    assert backup.empty().code == STOPPED
    assert len(_messages(primary)) - before <= 1, "one is enough behind the canary"
    backup.assert_outcome(scenario.known)
    primary.script = healthy()
    result = backup.empty()
    assert result.code == 0, result
    assert delivered() == Counter(scenario.recipients)
    assert backup.left == set()


def test_one_healed_domain_does_not_wait_for_another(
    backup: Backup, peer: StartPeer
) -> None:
    """Two of three domains are dead; each gets its mail as soon as it is back."""
    scenario = replace(_scenario("dead-domain"), mail=letters(30, DOMAINS))
    by_domain = {
        domain: {path for path in scenario.recipients if path.endswith(f"@{domain}")}
        for domain in DOMAINS
    }
    primary = peer(Script(rcpt=refusing(UNKNOWN, lambda v: DOMAIN not in v.path)))
    backup.port, delivered = primary.port, delivered_to(primary)
    backup.prepare(scenario, known_good=True)
    expected = [by_domain[DOMAIN]]
    assert backup.empty().code == STOPPED
    assert set(delivered()) == set().union(*expected)
    expected.append(by_domain["example.net"])
    primary.script = Script(
        rcpt=refusing(UNKNOWN, lambda view: view.path.endswith("@example.com"))
    )
    assert backup.empty().code == STOPPED
    assert set(delivered()) == set().union(*expected)
    backup.assert_nothing_lost(delivered)
    primary.script = healthy()
    assert backup.empty().code == 0
    assert delivered() == Counter(scenario.recipients)


def test_a_refusal_that_was_a_mistake_is_delivered_by_the_confirming_attempt(
    backup: Backup, peer: StartPeer
) -> None:
    """Six in bounce-pending; after the confirmation delay the primary takes them."""
    scenario = replace(
        _scenario("six-unknown"), never=frozenset(), well=healthy, confirm_after="2s"
    )
    primary = peer(scenario.broken())
    backup.port, delivered = primary.port, delivered_to(primary)
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == REMAIN
    backup.assert_outcome(scenario.known)
    primary.script = healthy()
    assert backup.deliver_the_rest(delivered).code == 0
    assert delivered() == Counter(scenario.recipients)


def test_a_poison_message_is_set_aside_and_does_not_slow_the_rest(
    backup: Backup, peer: StartPeer
) -> None:
    """Its content makes the primary hang up: the third time it is held, not bounced."""

    def dot(view: View) -> Step:
        if POISON in accepted_for(view):
            return ReplyThenDrop("421 4.3.0 Internal error")
        return "250 2.0.0 taken"

    poison = frozenset((POISON,))
    scenario = replace(
        _scenario("greylisting"), never=poison, known=_UNJUDGED, give_up_after="1s"
    )
    primary = peer(Script(rcpt=users_only, dot=dot))
    backup.port, delivered = primary.port, delivered_to(primary)
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == REMAIN
    backup.assert_outcome(replace(_UNJUDGED, waiting=poison))
    for _ in range(THRICE):
        if backup.states()[POISON] != "held":
            assert backup.empty().code == REMAIN
    assert backup.states()[POISON] == "held"
    met = [mail for mail in primary.messages if POISON in mail.forward_paths]
    assert len(met) == THRICE
    assert len(primary.accepted) == len(SIXTY) - 1
    backup.assert_nothing_lost(delivered)


def test_a_delay_that_the_reply_states_is_honoured(
    backup: Backup, peer: StartPeer
) -> None:
    """Greylisted for two seconds: each message comes back once, and not before."""
    first: dict[tuple[str, str], float] = {}

    def rcpt(view: View) -> Step:
        begun = first.setdefault((sender_of(view), view.path), view.command.at)
        early = view.command.at - begun < 2
        reply = "450 4.2.0 <{}>: Recipient address rejected: Greylisted for 2 seconds"
        return reply.format(view.path) if early else users_only(view)

    primary = peer(Script(rcpt=rcpt))
    backup.port = primary.port
    backup.prepare(replace(_scenario("greylisting"), give_up_after="5s"),
                   known_good=True)  # fmt: skip
    result = backup.empty()
    assert result.code == 0, result
    assert len(primary.transactions) == 2 * len(SIXTY)


def test_the_reply_at_the_dot_is_that_of_the_accepted_ones_alone(
    backup: Backup, peer: StartPeer
) -> None:
    """Whom RCPT refused keeps that reply; the others share the one at the dot."""
    scenario = _scenario("refused-at-dot")
    primary = peer(scenario.broken())
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == REMAIN
    replies = {path: fact["reply"] for path, fact in backup.recipients().items()}
    for path in scenario.never:
        assert replies[path].startswith("550 5.1.1")
    for path in scenario.known.refused - scenario.never:
        assert replies[path] == "554 5.6.0 Content refused"


def test_what_stopped_a_drain_is_reported_with_the_fix(
    backup: Backup, peer: StartPeer
) -> None:
    """A person at the console reads the cause, the reply, and what to do where."""
    scenario = _scenario("relay-denied")
    primary = peer(scenario.broken())
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    drain = ("drain", f"postfix:{backup.spool}", "--no-check")
    result = end(backup.start(*drain))
    assert result.code == STOPPED
    told = " ".join((result.stdout + result.stderr).split())
    for word in ("554 5.7.1", "relay", "Postfix", "mynetworks", "Exchange"):
        assert word in told
    assert "Relay access denied" in backup.run("status").stdout


def test_the_canary_has_a_real_sender_and_no_content(
    backup: Backup, peer: StartPeer
) -> None:
    """It asks for the known-good recipient: servers exempt `<>` and postmaster."""
    scenario = _scenario("twelve-unknown")
    primary = peer(scenario.broken())
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == REMAIN
    asked = [
        message
        for message in primary.transactions
        if any(each.forward_path in scenario.known_good for each in message.recipients)
    ]
    assert any(message.reverse_path for message in asked)
    assert primary.messages == []


def test_without_known_good_recipients_a_drain_says_so_at_the_start(
    backup: Backup, peer: StartPeer
) -> None:
    """A person decides then, once everybody is refused: loudly, before that happens."""
    primary = peer(Script(rcpt=refusing(UNKNOWN, only(EVERY_TENTH))))
    backup.port = primary.port
    backup.prepare(_scenario("six-unknown"), known_good=False)
    result = backup.run("drain", f"postfix:{backup.spool}", "--no-check")
    assert "[health] accept" in result.stderr
