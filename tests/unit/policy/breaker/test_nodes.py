"""One host of several behind an address has lost its users: which sessions show it."""

import pytest

from drainer.mail.reply import Stage
from drainer.policy.breaker.detector import RecipientKey, Refusal
from drainer.policy.breaker.nodes import (
    ACCEPTED_ELSEWHERE,
    MAX_RETRIES,
    MOST_RETRIED,
    REFUSED_ALONE,
    REFUSED_LATER,
    SESSIONS,
    NodeDetector,
)
from tests.support.scenarios.settlements import seen

ORG = "example.org"
GOOD, BAD, OTHER = 1, 2, 3
UNKNOWN = "550 5.1.1 User unknown"


def told(n: int, text: str, domain: str = ORG) -> tuple[RecipientKey, Refusal]:
    """Return what the primary said to the n-th recipient."""
    stage = Stage.DOT if text.startswith("2") else Stage.RCPT
    return (n, 0), seen(text, f"u{n}@{domain}", sender_domain="s.example", stage=stage)


def accept(nodes: NodeDetector, session: int, count: int) -> None:
    """Let a session accept some recipients."""
    for n in range(count):
        assert nodes.observe(session, [told(100 + n, "250 ok")]) == []


def test_a_session_that_refuses_everybody_is_suspect_while_others_accept() -> None:
    """Its refusals are tried again; those of other sessions are not."""
    nodes = NodeDetector()
    accept(nodes, GOOD, ACCEPTED_ELSEWHERE)
    assert nodes.observe(GOOD, [told(50, UNKNOWN)]) == []
    for n in range(REFUSED_ALONE - 1):
        assert nodes.observe(BAD, [told(n, UNKNOWN)]) == []
    found = nodes.observe(BAD, [told(REFUSED_ALONE - 1, UNKNOWN)])
    assert found == [(n, 0) for n in range(REFUSED_ALONE)]
    assert nodes.is_suspect(BAD)
    assert not nodes.is_suspect(GOOD)
    assert nodes.mixed == {ORG}


def test_all_sessions_that_accepted_nobody_are_taken_back_at_once() -> None:
    """Once hosts disagree, one refusal is enough."""
    nodes = NodeDetector()
    accept(nodes, GOOD, ACCEPTED_ELSEWHERE)
    nodes.observe(OTHER, [told(90, UNKNOWN)])
    for n in range(REFUSED_ALONE - 1):
        nodes.observe(BAD, [told(n, UNKNOWN)])
    found = nodes.observe(BAD, [told(REFUSED_ALONE - 1, UNKNOWN)])
    assert (90, 0) in found
    assert nodes.observe(4, [told(91, UNKNOWN)]) == [(91, 0)]


def test_a_canary_that_is_accepted_elsewhere_shows_it_too() -> None:
    """Also while the bad session is the only one that sends."""
    nodes = NodeDetector()
    for n in range(REFUSED_ALONE):
        assert nodes.compare(ORG) == []
        nodes.observe(BAD, [told(n, UNKNOWN)])
    assert nodes.compare("example.net") == []
    assert nodes.compare(ORG) == [(n, 0) for n in range(REFUSED_ALONE)]
    assert nodes.is_suspect(BAD)


def test_a_session_that_accepted_a_known_good_recipient_is_never_suspect() -> None:
    """Its host knows its users, so the refused ones do not exist."""
    nodes = NodeDetector()
    accept(nodes, GOOD, ACCEPTED_ELSEWHERE)
    nodes.vouch(BAD, ORG)
    for n in range(2 * REFUSED_LATER):
        assert nodes.observe(BAD, [told(n, UNKNOWN)]) == []
    assert nodes.mixed == set()


def test_a_host_may_lose_its_users_in_the_middle() -> None:
    """What a session refused since it accepted somebody is tried elsewhere."""
    nodes = NodeDetector()
    accept(nodes, GOOD, REFUSED_LATER)
    accept(nodes, BAD, 1)
    nodes.observe(BAD, [told(90, UNKNOWN)])
    accept(nodes, BAD, 1)
    found = []
    for n in range(REFUSED_LATER):
        found += nodes.observe(BAD, [told(n, UNKNOWN)])
    assert found == [(n, 0) for n in range(REFUSED_LATER)]
    assert nodes.is_suspect(BAD)


def test_nobody_is_suspect_while_no_session_accepts() -> None:
    """Then the primary as a whole has lost its users: the breakers find out."""
    nodes = NodeDetector()
    for n in range(2 * REFUSED_ALONE):
        assert nodes.observe(n % 2, [told(n, UNKNOWN)]) == []


def test_only_a_refused_mailbox_counts() -> None:
    """Content and policy are not about the host that was reached."""
    nodes = NodeDetector()
    accept(nodes, GOOD, ACCEPTED_ELSEWHERE)
    for n in range(2 * REFUSED_ALONE):
        key, one = told(n, "450 4.2.0 later")
        assert nodes.observe(BAD, [(key, one)]) == []
    assert nodes.mixed == set()


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Stage.MAIL, "550 5.7.1 Sender rejected"),
        (Stage.DATA, "554 5.7.1 Delivery not authorized"),
        (Stage.DOT, "550 5.7.1 Message rejected due to local policy"),
    ],
)
def test_a_host_may_refuse_at_any_stage(stage: Stage, text: str) -> None:
    """An accepted canary says nothing about that: it has no content."""
    nodes = NodeDetector()
    accept(nodes, GOOD, ACCEPTED_ELSEWHERE)
    nodes.vouch(BAD, ORG)
    found = []
    for n in range(REFUSED_ALONE):
        one = seen(text, f"u{n}@{ORG}", sender_domain="s.example", stage=stage)
        found += nodes.observe(BAD, [((n, 0), one)])
    assert found == [(n, 0) for n in range(REFUSED_ALONE)]


def test_sessions_that_refuse_one_message_each_count_together() -> None:
    """A message that probes has a session of its own."""
    nodes = NodeDetector()
    accept(nodes, GOOD, ACCEPTED_ELSEWHERE)
    found = []
    for n in range(REFUSED_ALONE):
        one = seen("550 5.7.1 Sender rejected", f"u{n}@{ORG}", stage=Stage.MAIL)
        found += nodes.observe(10 + n, [((n, 0), one)])
    assert found == [(n, 0) for n in range(REFUSED_ALONE)]


def test_what_others_accept_later_shows_it_too() -> None:
    """The bad host may have been the first to answer."""
    nodes = NodeDetector()
    for n in range(REFUSED_ALONE):
        assert nodes.observe(BAD, [told(n, UNKNOWN)]) == []
    accept(nodes, GOOD, ACCEPTED_ELSEWHERE - 1)
    found = nodes.observe(GOOD, [told(200, "250 ok")])
    assert found == [(n, 0) for n in range(REFUSED_ALONE)]


def test_a_recipient_is_not_tried_elsewhere_without_end() -> None:
    """No canary answers, and each session refuses it: then it does not exist."""
    nodes = NodeDetector()
    accept(nodes, GOOD, ACCEPTED_ELSEWHERE)
    nodes.mixed.add(ORG)
    found = [nodes.observe(10 + n, [told(7, UNKNOWN)]) for n in range(MAX_RETRIES + 3)]
    assert found == [[(7, 0)]] * MAX_RETRIES + [[]] * 3


def test_what_may_be_tried_again_has_a_limit() -> None:
    """A queue may hold millions."""
    nodes = NodeDetector()
    nodes.mixed.add(ORG)
    for n in range(MOST_RETRIED + 1):
        nodes.observe(n, [told(n, UNKNOWN)])
    again = [nodes.observe(MOST_RETRIED + n, [told(0, UNKNOWN)]) for n in (2, 3, 4)]
    assert again == [[(0, 0)]] * MAX_RETRIES


def test_old_sessions_are_forgotten() -> None:
    """A long drain opens thousands."""
    nodes = NodeDetector()
    for session in range(2 * SESSIONS):
        nodes.observe(session, [told(session, UNKNOWN)])
    nodes.mixed.add(ORG)
    assert len(list(nodes.retract(ORG))) == SESSIONS
