"""One attempt's endings become states: one per recipient, never more certain than true."""  # noqa: E501

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.message import Problem
from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.admission.content_scan import ScanAnswer, hit_by, put_off
from drainer.policy.classify.classifier import Answer
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.judge import classify_attempt
from drainer.policy.recipient.settle import MAX_DOUBTS, Settlement, settle_delivered
from drainer.policy.recipient.state import CLAIMABLE, FINAL, State
from tests.support.scenarios.settlements import BOB, NOW, SCHEDULE, result, settled


def ended(
    answer: Answer | str,
    stage: Stage = Stage.RCPT,
    *,
    accepted: int = 0,
    claimed: ClaimedRecipient | None = None,
) -> Settlement:
    """Settle one recipient."""
    (settlement,) = settled([result(answer, stage, accepted=accepted, claimed=claimed)])
    return settlement


LOST = Lost(reason="closed")
ENDINGS: dict[str, tuple[Settlement, State, int, timedelta | None]] = {
    "accepted": (ended("250 ok", Stage.DOT), State.DELIVERED, 1, None),
    "busy": (ended("450 x"), State.DEFERRED, 1, timedelta(minutes=1)),
    "full": (ended("452 4.2.2 x"), State.DEFERRED, 1, timedelta(hours=1)),
    "refused": (
        ended("550 5.1.1 x"),
        State.BOUNCE_PENDING,
        1,
        timedelta(hours=1),
    ),
    "unclear": (ended("550 5.4.6 loop"), State.HELD, 1, None),
    "stopped": (ended("530 x"), State.DEFERRED, 0, timedelta(seconds=10)),
    "closing": (ended("421 x"), State.DEFERRED, 1, timedelta(minutes=1)),
    "lost": (ended(LOST, Stage.BODY), State.DEFERRED, 1, timedelta(minutes=1)),
    "in doubt": (ended(LOST, Stage.DOT), State.UNKNOWN, 1, timedelta(minutes=5)),
    "too many": (ended("452 x", accepted=2), State.DEFERRED, 0, timedelta(0)),
    "our own refusal": (
        ended(Problem(code="too-large", detail="x")),
        State.HELD,
        1,
        None,
    ),
}


@pytest.mark.parametrize(
    ("settlement", "state", "attempts", "wait"), ENDINGS.values(), ids=list(ENDINGS)
)
def test_an_ending_settles_a_recipient(
    settlement: Settlement, state: State, attempts: int, wait: timedelta | None
) -> None:
    """State, attempts, and when it is due; nothing is due that waits for a person."""
    assert settlement.state is state
    assert settlement.attempts == attempts
    assert settlement.due == (None if wait is None else NOW + wait)


@pytest.mark.parametrize(
    ("doubts", "state"), [(0, State.UNKNOWN), (1, State.UNKNOWN), (2, State.HELD)]
)
def test_the_third_doubt_holds(doubts: int, state: State) -> None:
    """A message on whose dot the connection always breaks may be a poison."""
    claimed = ClaimedRecipient(n=0, recipient=BOB, state=State.UNKNOWN, doubts=doubts)
    settlement = ended(LOST, Stage.DOT, claimed=claimed)
    assert settlement.state is state
    assert settlement.doubts == doubts + 1
    assert MAX_DOUBTS == 3


@pytest.mark.parametrize("text", ["550 5.1.1 x", "554 5.6.0 duplicate", "550 x"])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DOT])
@pytest.mark.parametrize("doubts", [1, 2])
def test_who_was_ever_in_doubt_is_never_bounced(
    text: str, stage: Stage, doubts: int
) -> None:
    """The refusal may mean that it is there already: a person looks."""
    claimed = ClaimedRecipient(n=0, recipient=BOB, state=State.DEFERRED, doubts=doubts)
    settlement = ended(text, stage, claimed=claimed)
    assert settlement.state is State.HELD
    assert settlement.classification.verdict is Verdict.HOLD
    assert text in settlement.reply


def test_a_doubt_that_ends_well_is_delivered() -> None:
    """The second attempt got its reply."""
    claimed = ClaimedRecipient(n=0, recipient=BOB, state=State.UNKNOWN, doubts=1)
    assert ended("250 ok", Stage.DOT, claimed=claimed).state is State.DELIVERED


def test_only_an_attempt_that_delivered_to_all_is_settled_without_weighing() -> None:
    """And then as it is with all circumstances."""
    delivered = [
        result("250 2.0.0 Ok", Stage.DOT, claimed=ClaimedRecipient(n=n, recipient=BOB))
        for n in range(2)
    ]
    refused = result("550 5.1.1 unknown")
    assert settle_delivered(classify_attempt(delivered, ())) == settled(delivered)
    assert settle_delivered(classify_attempt([*delivered, refused], ())) is None


def test_recipients_of_one_message_stay_together() -> None:
    """They share the jitter, so that one transaction serves them again."""
    claims = [ClaimedRecipient(n=n, recipient=BOB) for n in range(5)]
    those = settled([result("450 x", claimed=c) for c in claims], draw=0.123)
    assert [s.claimed.n for s in those] == list(range(5))
    assert len({s.due for s in those}) == 1


ANSWERS = st.one_of(
    st.builds(Lost, reason=st.sampled_from(["closed", "reset", "timeout", "protocol"])),
    st.builds(
        Problem, code=st.sampled_from(["too-large", "defect"]), detail=st.just("")
    ),
    st.integers(200, 599).map(lambda code: parse_reply(b"%d x" % code)),
)
AFTER_MAIL = [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY, Stage.DOT]


@given(
    ANSWERS,
    st.sampled_from(AFTER_MAIL),
    st.integers(0, 3),
    st.integers(0, 50),
    st.sampled_from(CLAIMABLE),
)
def test_whatever_happens_a_recipient_has_one_sound_state(
    answer: Answer, stage: Stage, doubts: int, attempts: int, state: State
) -> None:
    """Due when it may be claimed or confirmed; final only when delivered."""
    claimed = ClaimedRecipient(
        n=0, recipient=BOB, state=state, doubts=doubts, attempts=attempts
    )
    settlement = ended(answer, stage, claimed=claimed)
    assert settlement.state is not State.IN_FLIGHT
    waits = (*CLAIMABLE, State.BOUNCE_PENDING)
    assert (settlement.due is not None) is (settlement.state in waits)
    assert attempts <= settlement.attempts <= attempts + 1
    assert doubts <= settlement.doubts <= doubts + 1
    if settlement.state in FINAL:
        assert settlement.state is State.DELIVERED
        assert settlement.classification.verdict is Verdict.DELIVER


@pytest.mark.parametrize(
    ("wait", "due"),
    [(timedelta(0), SCHEDULE.first), (timedelta(hours=1), timedelta(hours=1))],
)
def test_a_message_that_no_scanner_sees_waits_and_spends_nothing(
    wait: timedelta, due: timedelta
) -> None:
    """Until the scanner's pause ends; not even a lifetime of that bounces it."""
    long = ClaimedRecipient(n=0, recipient=BOB, attempts=3, spent=timedelta(days=99))
    problem = put_off("av", "connection refused", wait)
    (each,) = settled([result(problem, Stage.MAIL, claimed=long)])
    assert (each.state, each.classification.rule) == (State.DEFERRED, "unscanned")
    assert (each.attempts, each.spent) == (long.attempts, long.spent)
    assert each.due == NOW + due


def test_what_a_scanner_objects_to_is_held() -> None:
    """Also when a refusal of it was about to be confirmed: it never bounces."""
    pending = ClaimedRecipient(n=0, recipient=BOB, attempts=1, refusal="enhanced-5.1.1")
    problem = hit_by("av", ScanAnswer(verdict="Eicar"))
    for claimed in (ClaimedRecipient(n=0, recipient=BOB), pending):
        (each,) = settled([result(problem, Stage.MAIL, claimed=claimed)])
        assert (each.state, each.due) == (State.HELD, None)
        assert each.classification.rule == "scan-av"
        assert dict(each.classification.evidence)["found"] == "Eicar"
