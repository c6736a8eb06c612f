"""What is learned about a host from how its sessions end."""

import sys
import time

from drainer.smtp.host_trust import HostTrust


def trust_after(*messages: int) -> HostTrust:
    """Return what is known of a host that ended sessions after so many messages."""
    trust = HostTrust()
    for each in messages:
        trust.end_session(each, time.monotonic(), "421 bye")
    return trust


def test_a_limit_is_learned_when_no_message_is_the_cause() -> None:
    """Two sessions ended alike, and a message that ended one was taken alone."""
    trust = trust_after(2, 2)
    assert trust.max_messages == sys.maxsize
    trust.judge_alone(ended=False)
    assert trust.max_messages == 2
    assert [rule for rule, _ in trust.news] == ["session-limit"]


def test_different_ends_are_no_limit() -> None:
    """A primary that restarts ends sessions after any number."""
    trust = trust_after(2, 5)
    trust.judge_alone(ended=False)
    assert trust.max_messages == sys.maxsize


def test_sessions_that_were_open_together_show_one_end() -> None:
    """A restart ends all of them, after as many messages each."""
    trust = HostTrust()
    opened = time.monotonic()
    for _ in range(2):
        trust.end_session(2, opened, "421 bye")
    trust.judge_alone(ended=False)
    assert trust.max_messages == sys.maxsize


def test_a_limit_is_forgotten_when_a_message_is_the_cause() -> None:
    """It ends the session in which it is alone, too."""
    trust = trust_after(2, 2)
    trust.judge_alone(ended=False)
    trust.judge_alone(ended=True)
    assert trust.max_messages == sys.maxsize
    trust.end_session(2, time.monotonic(), "421 bye")
    trust.judge_alone(ended=False)
    assert trust.max_messages == sys.maxsize
