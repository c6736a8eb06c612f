"""Promise P4, a whole drain at a time: what a sick primary says judges no message.

Each scenario of tests/primaries.py is drained while the primary is sick, then until
everything has arrived that can, with known-good recipients configured and without.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from drainer.config import Config
from drainer.policy.settle import MAX_DOUBTS
from tests.peer import PeerThread
from tests.primaries import (
    DOMAIN,
    DOMAINS,
    EVERY_TENTH,
    OK,
    POISON,
    REMAIN,
    SCENARIOS,
    SENDER,
    SIXTY,
    STOPPED,
    THOUSAND,
    UNKNOWN,
    Mail,
    Outcome,
    Scenario,
    accepted_for,
    letters,
    only,
    refusing,
    sender_of,
)
from tests.running import Bench, Result
from tests.script import ReplyThenDrop, Script, Step, View

StartPeer = Callable[..., PeerThread]

PATIENCE = 15
"""Seconds until a primary that is well must have everything; most is the escrow's."""
FEW = 20
"""Messages that it may take to see that nobody is let in; canaries included."""
REFUSED = {"bounce-pending", "quarantined", "bounced"}
"""What may become of a recipient whom the primary refuses rightly."""


@dataclass(slots=True)
class Backup(Bench):
    """A spool of mail for a sick primary; what is final leaves it."""

    #: By queue id.
    files: dict[str, Mail] = field(default_factory=dict)

    def fill(self, mail: Iterable[Mail]) -> None:
        """Lay the mail into the spool."""
        self.files = {
            self.add(*each.recipients, sender=each.sender, text=each.text): each
            for each in mail
        }

    def prepare(self, scenario: Scenario, *, known_good: bool) -> None:
        """Configure it as the scenario wants it, and fill it."""
        accept = scenario.known_good if known_good else []
        self.configure(
            primary={
                "domains": scenario.domains,
                "connections": scenario.connections,
            },
            health={"accept": accept, "sender": SENDER if known_good else ""},
            gate={"give_up_after": scenario.give_up_after},
            **escrow(scenario.escrow),
        )
        self.fill(scenario.mail)

    def empty(self) -> Result:
        """Drain it, without a check beforehand; what is final leaves the spool."""
        source = f"postfix:{self.spool}?ack=remove"
        return self.run("drain", source, "--json", "--no-check")

    def left(self) -> set[str]:
        """Return the queue ids that still have their file."""
        return {path.name for path in self.spool.rglob("*") if path.is_file()}


def escrow(duration: str) -> dict[str, dict[str, object]]:
    """Return the section that says how long a refusal rests."""
    known = "bounce" in Config.model_fields
    return {"bounce": {"escrow": duration}} if known else {}


@pytest.fixture
def backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backup:
    """Give an empty spool, in a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Backup(tmp_path)


def _delivered(primary: PeerThread) -> Counter[str]:
    return Counter(path for mail in primary.accepted for path in mail.forward_paths)


def _assert_outcome(backup: Backup, scenario: Scenario, expected: Outcome) -> None:
    """Check the state of each recipient."""
    states = backup.states()
    assert set(states) == set(scenario.recipients)
    refused = {path for path, state in states.items() if state == "bounce-pending"}
    delivered = {path for path, state in states.items() if state == "delivered"}
    waiting = set(states) - refused - delivered
    assert refused == expected.refused
    assert waiting == expected.waiting
    assert {states[path] for path in waiting} <= expected.waits_as


def _assert_nothing_lost(
    backup: Backup, scenario: Scenario, primary: PeerThread
) -> None:
    """Check that nobody is judged wrongly and no file went but with its delivery."""
    states = backup.states()
    wrongly = {path: state for path, state in states.items() if state in REFUSED}
    final = {path for path, state in wrongly.items() if state != "bounce-pending"}
    assert final <= scenario.never
    delivered = _delivered(primary)
    assert {p for p, state in states.items() if state == "delivered"} <= set(delivered)
    for name in set(backup.files) - backup.left():
        assert set(backup.files[name].recipients) <= set(delivered) | final
    backup.assert_balanced()


def _deliver_the_rest(
    backup: Backup, scenario: Scenario, primary: PeerThread
) -> Result:
    """Drain until everybody has mail who is to have it; held ones are released."""
    wanted = set(scenario.recipients) - scenario.never
    deadline = time.monotonic() + PATIENCE
    while True:
        if "held" in backup.states().values():
            verb = ("release", "--state", "held", "--reason", "the primary is well")
            assert backup.run(*verb).code == 0
        result = backup.empty()
        _assert_nothing_lost(backup, scenario, primary)
        if set(_delivered(primary)) >= wanted:
            return result
        assert time.monotonic() < deadline, (result, backup.states())


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
    primary = peer(scenario.sick())
    backup.port = primary.port
    backup.prepare(scenario, known_good=known_good)
    result = backup.empty()
    assert result.code in expected.exits, result
    _assert_nothing_lost(backup, scenario, primary)
    if not scenario.fickle:
        _assert_outcome(backup, scenario, expected)
    if expected.waiting == set(scenario.recipients):
        assert len(primary.transactions) <= FEW
    primary.script = scenario.well()
    _deliver_the_rest(backup, scenario, primary)
    delivered = _delivered(primary)
    assert set(delivered) == set(scenario.recipients) - scenario.never
    twice = {path for path, copies in delivered.items() if copies > 1}
    assert twice <= scenario.doubtful


def test_few_unknown_recipients_among_a_thousand_stop_nothing(
    backup: Backup, peer: StartPeer
) -> None:
    """970 of 1,000 delivered by one drain, exactly the other 30 in bounce-pending."""
    primary = peer(THOUSAND.sick())
    backup.port = primary.port
    backup.prepare(THOUSAND, known_good=True)
    result = backup.empty()
    assert result.code == REMAIN, result
    _assert_outcome(backup, THOUSAND, THOUSAND.known)
    _assert_nothing_lost(backup, THOUSAND, primary)
    assert set(_delivered(primary).values()) == {1}


# ---- what takes several drains


_UNJUDGED = Outcome(
    exits=(REMAIN,), waits_as=frozenset(("deferred", "unknown", "held"))
)


def _scenario(id_: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.id == id_)


def test_a_user_table_that_comes_back_later(backup: Backup, peer: StartPeer) -> None:
    """Each drain before asks a few and says 4; the first one after delivers all."""
    scenario = _scenario("empty-user-table")
    primary = peer(scenario.sick())
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == STOPPED
    before = len(primary.transactions)
    assert backup.empty().code == STOPPED
    # The canary, and one message at most behind it.
    assert len(primary.transactions) - before <= 2
    _assert_outcome(backup, scenario, scenario.known)
    primary.script = Script()
    result = backup.empty()
    assert result.code == 0, result
    assert _delivered(primary) == Counter(scenario.recipients)
    assert backup.left() == set()


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
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    expected = [by_domain[DOMAIN]]
    assert backup.empty().code == STOPPED
    assert set(_delivered(primary)) == set().union(*expected)
    expected.append(by_domain["example.net"])
    primary.script = Script(
        rcpt=refusing(UNKNOWN, lambda view: view.path.endswith("@example.com"))
    )
    assert backup.empty().code == STOPPED
    assert set(_delivered(primary)) == set().union(*expected)
    _assert_nothing_lost(backup, scenario, primary)
    primary.script = Script()
    assert backup.empty().code == 0
    assert _delivered(primary) == Counter(scenario.recipients)


def test_a_refusal_that_was_a_mistake_is_delivered_by_the_confirming_attempt(
    backup: Backup, peer: StartPeer
) -> None:
    """Six in bounce-pending; after the escrow the primary is asked again, and takes."""
    scenario = replace(
        _scenario("six-unknown"), never=frozenset(), well=Script, escrow="2s"
    )
    primary = peer(scenario.sick())
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == REMAIN
    _assert_outcome(backup, scenario, scenario.known)
    primary.script = Script()
    assert _deliver_the_rest(backup, scenario, primary).code == 0
    assert _delivered(primary) == Counter(scenario.recipients)


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
    primary = peer(Script(dot=dot))
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == REMAIN
    _assert_outcome(backup, scenario, replace(_UNJUDGED, waiting=poison))
    for _ in range(MAX_DOUBTS):
        if backup.states()[POISON] != "held":
            assert backup.empty().code == REMAIN
    assert backup.states()[POISON] == "held"
    met = [mail for mail in primary.messages if POISON in mail.forward_paths]
    assert len(met) == MAX_DOUBTS
    assert len(primary.accepted) == len(SIXTY) - 1
    _assert_nothing_lost(backup, scenario, primary)


def test_a_delay_that_the_reply_states_is_honoured(
    backup: Backup, peer: StartPeer
) -> None:
    """Greylisted for two seconds: each message comes back once, and not before."""
    first: dict[tuple[str, str], float] = {}

    def rcpt(view: View) -> Step:
        begun = first.setdefault((sender_of(view), view.path), view.command.at)
        early = view.command.at - begun < 2
        reply = "450 4.2.0 <{}>: Recipient address rejected: Greylisted for 2 seconds"
        return reply.format(view.path) if early else OK

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
    primary = peer(scenario.sick())
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    assert backup.empty().code == REMAIN
    replies = {path: fact["reply"] for path, fact in backup.recipients().items()}
    for path in scenario.never:
        assert replies[path].startswith("550 5.1.1")
    for path in scenario.known.refused - scenario.never:
        assert replies[path] == "554 5.6.0 Content refused"


def test_what_stopped_a_drain_is_told_with_the_fix(
    backup: Backup, peer: StartPeer
) -> None:
    """A person at the console reads the cause, the reply, and what to do on Postfix."""
    scenario = _scenario("relay-denied")
    primary = peer(scenario.sick())
    backup.port = primary.port
    backup.prepare(scenario, known_good=True)
    source = f"postfix:{backup.spool}?ack=remove"
    result = backup.run("drain", source, "--no-check")
    assert result.code == STOPPED
    told = " ".join((result.stdout + result.stderr).split())
    assert "554 5.7.1" in told
    assert "relay" in told
    assert "Postfix" in told
    assert "mynetworks" in told
    status = backup.run("status").stdout
    assert "60 deferred" in status or "pending" in status
    assert "Relay access denied" in status


def test_without_known_good_recipients_a_drain_says_so_at_the_start(
    backup: Backup, peer: StartPeer
) -> None:
    """A person decides then, once everybody is refused: loudly, before that happens."""
    primary = peer(Script(rcpt=refusing(UNKNOWN, only(EVERY_TENTH))))
    backup.port = primary.port
    backup.prepare(_scenario("six-unknown"), known_good=False)
    result = backup.run("drain", f"postfix:{backup.spool}", "--no-check")
    assert "[health] accept" in result.stderr
