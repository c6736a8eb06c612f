"""What the controller makes of a primary that is well, slow, busy or away."""

import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.reply import EXTENSION, SESSION_END, Lost, Stage, parse_reply
from drainer.policy.classify.classifier import classify
from drainer.policy.pacing.aimd import (
    COHORT,
    FLOOR,
    Adjustment,
    AimdController,
    LatencySample,
    LoadReading,
    is_overload,
    share_at,
)
from tests.support.scenarios.simulation import Feedback, Fixed, Ours, Outcome, simulate

RAMP = timedelta(minutes=2)
TICK = 6.0
"""Seconds of a step of that ramp."""


def cohort(
    controller: AimdController,
    at: float,
    *,
    count: int = 32,
    dot: float = 0.1,
    put_off: int = 0,
) -> None:
    """Let so many attempts end, some of them put off."""
    for n in range(count):
        bad = n < put_off
        controller.observe(LatencySample(began=at, rcpt=0.01, dot=dot, put_off=bad))


def widened(at: float = 1000.0) -> tuple[AimdController, float]:
    """Return a controller that has come to the full rate, and knows the latency."""
    controller = AimdController(20, RAMP, full=False)
    for now in itertools.count(at):
        cohort(controller, now)
        controller.step(now)
        if controller.level >= 1:
            cohort(controller, now)
            assert controller.step(now) is None
            return controller, now
    raise AssertionError


# ---- the ramp


@pytest.mark.parametrize("connections", [1, 2, 5, 20, 500])
def test_a_healthy_primary_gets_everything_within_the_ramp(connections: int) -> None:
    """From one connection, by doubling and then by steps, never down."""
    controller = AimdController(connections, RAMP, full=False)
    assert controller.connections == 1
    levels = [controller.level]
    for now in range(121):
        cohort(controller, float(now), count=500)
        controller.step(float(now))
        levels.append(controller.level)
    assert levels == sorted(levels)
    assert levels[0] <= FLOOR
    assert levels[-1] == 1
    assert controller.connections == connections
    doubled = [b / a for a, b in itertools.pairwise(levels) if b > a and b <= 0.5]
    assert all(ratio <= 2 for ratio in doubled)


def test_an_explicit_rate_skips_the_ramp_and_narrows_all_the_same() -> None:
    """Full at once; a connection that fails halves it."""
    controller = AimdController(20, RAMP, full=True)
    assert (controller.level, controller.connections) == (1, 20)
    controller.observe(LatencySample(began=1.0, unreachable=True))
    move = controller.step(2.0)
    assert move == Adjustment(
        before=1, after=0.5, why="a connection to the primary failed"
    )
    assert controller.connections == 10


def test_nothing_widens_without_a_cohort() -> None:
    """A few good answers, or none, prove nothing."""
    controller = AimdController(5, RAMP, full=False)
    controller.step(0.0)
    cohort(controller, 1.0, count=COHORT - 1)
    assert controller.step(1000.0) is None
    cohort(controller, 1001.0, count=1)
    move = controller.step(1002.0)
    assert move is not None
    assert move.rule == "throttle-widen"


def test_a_step_is_a_twentieth_of_the_ramp_after_the_last() -> None:
    """However many good answers come."""
    controller = AimdController(5, RAMP, full=False)
    cohort(controller, 0.0)
    assert controller.step(0.0)
    cohort(controller, 0.0)
    assert controller.step(TICK - 0.1) is None
    assert controller.step(TICK)


# ---- what narrows it


NARROWING = [
    (0.1, 0, None),
    (0.12, 0, 1.0),
    (0.3, 0, None),
    (0.31, 0, 0.967),
    (0.45, 0, 0.666),
    (5.0, 0, 0.5),
    (0.1, 3, None),
    (0.1, 4, 0.5),
    (0.1, 32, 0.5),
]


@pytest.mark.parametrize(("dot", "put_off", "level"), NARROWING)
def test_latency_and_the_share_put_off_narrow(
    dot: float, put_off: int, level: float | None
) -> None:
    """Twice the usual (0.1 s and what nobody notices), or an eighth put off."""
    controller, now = widened()
    controller.jump(1.0, now)
    cohort(controller, now, dot=dot, put_off=put_off)
    move = controller.step(now + 1)
    if level in (None, 1.0):
        assert move is None
    else:
        assert move is not None
        assert move.rule == "throttle-narrow"
        assert move.after == pytest.approx(level, abs=0.001)
        words = "slows down: the end of data takes" if not put_off else "messages off"
        assert words in move.why


def test_one_bad_moment_counts_once() -> None:
    """What began before the change tells nothing about it."""
    controller, now = widened()
    cohort(controller, now, dot=9.0)
    assert controller.step(now + 1)
    cohort(controller, now + 0.5, dot=9.0)
    controller.observe(LatencySample(began=now + 0.5, unreachable=True))
    assert controller.step(now + 2) is None
    cohort(controller, now + 2.5, dot=9.0)
    assert controller.step(now + 3)


def test_between_well_and_ill_nothing_changes() -> None:
    """Neither up nor down, however long: 1.7 times the usual latency."""
    controller, now = widened()
    controller.jump(0.5, now)
    for n in range(60):
        cohort(controller, now + n, dot=0.25)
        assert controller.step(now + n) is None


def test_after_narrowing_it_goes_up_by_steps() -> None:
    """Additive increase: it does not double again."""
    controller, now = widened()
    cohort(controller, now, dot=9.0)
    controller.step(now)
    assert controller.level == 0.5
    cohort(controller, now + TICK, dot=0.1)
    controller.step(now + TICK)
    assert controller.level == pytest.approx(0.5 + FLOOR)


def test_a_slower_primary_becomes_the_usual_one_after_ten_minutes() -> None:
    """The best latency counts for a window, not for ever."""
    controller, now = widened()
    moves = []
    for n in range(1400):
        cohort(controller, now + n, dot=0.4)
        if move := controller.step(now + n):
            moves.append((n, move))
    assert moves[0][1].rule == "throttle-narrow"
    assert [move.rule for n, move in moves if n > 800] == ["throttle-widen"] * (
        len([n for n, _ in moves if n > 800])
    )
    assert controller.level == 1


LOADS = [(0.5, 1.0), (0.7, 0.5), (0.8, 0.25), (3.0, 0.25)]


@pytest.mark.parametrize(("value", "level"), LOADS)
def test_a_load_narrows_holds_or_lets_widen(value: float, level: float) -> None:
    """From load_high on it halves with each answer; above 80 % of that it waits."""
    controller, now = widened()
    controller.jump(0.5, now)
    for n in range(60):
        cohort(controller, now + n)
        at = now + 1 if n < 30 else now
        controller.step(now + n, LoadReading(at=at, value=value, high=0.8))
        if controller.level < 0.5:
            break
    assert controller.level == level


def test_the_same_answer_about_the_load_counts_once() -> None:
    """It is asked every few seconds, and looked at every second."""
    controller, now = widened()
    load = LoadReading(at=now + 1, value=0.93, high=0.8)
    move = controller.step(now + 2, load)
    assert move is not None
    assert move.why == "the primary is busy: its load is 0.93, the limit 0.8"
    assert controller.step(now + 3, load) is None
    assert controller.step(now + 7, LoadReading(at=now + 6, value=0.9, high=0.8))


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0, 20), st.integers(0, 32), st.booleans()),
        max_size=60,
    ),
    st.integers(1, 500),
    st.booleans(),
)
def test_it_stays_within_what_is_allowed(
    events: list[tuple[float, float, int, bool]],
    connections: int,
    full: bool,  # noqa: FBT001 - hypothesis gives it so
) -> None:
    """Never above everything, never below one connection; every change says why."""
    controller = AimdController(connections, RAMP, full=full)
    now = 0.0
    for pause, dot, put_off, away in events:
        cohort(controller, now, dot=dot, put_off=put_off)
        if away:
            controller.observe(LatencySample(began=now, unreachable=True))
        now += pause
        before = controller.level
        move = controller.step(now)
        assert 0 < controller.level <= 1
        assert 1 <= controller.connections <= connections
        assert (move is None) == (controller.level == before)
        assert move is None or move.why


@pytest.mark.parametrize(
    ("level", "per_second", "share"),
    [
        (FLOOR, 100, FLOOR),
        (FLOOR, 10, 0.1),
        (FLOOR, 1, 1),
        (0.5, 0.1, 1),
        (0.5, 10, 0.5),
    ],
)
def test_a_rate_never_goes_below_one_message_a_second(
    level: float, per_second: float, share: float
) -> None:
    """Unless that is what is configured: then only connections are narrowed."""
    assert share_at(level, per_second) == share


# ---- whose fault it is


REPLIES = [
    ("421 4.3.2 shutting down", Stage.MAIL, True),
    ("421 4.7.0 too many connections", Stage.MAIL, True),
    ("451 4.3.0 queue file write error", Stage.DOT, True),
    ("452 4.3.1 insufficient system storage", Stage.MAIL, True),
    ("450 4.2.0 greylisted, come back later", Stage.RCPT, False),
    ("451 4.7.1 Greylisting in action, please try again", Stage.RCPT, False),
    ("452 4.2.2 mailbox full", Stage.RCPT, False),
    ("421 4.7.0 go away", Stage.RCPT, False),
    ("450 4.7.1 too many messages from your host", Stage.RCPT, False),
    ("451 4.7.1 try again later", Stage.RCPT, False),
    ("450 4.2.1 mailbox busy", Stage.RCPT, False),
    ("550 5.1.1 unknown user", Stage.RCPT, False),
    ("250 2.0.0 ok", Stage.DOT, False),
]


@pytest.mark.parametrize(("reply", "stage", "overload"), REPLIES)
def test_only_the_primary_itself_is_overloaded(
    reply: str, stage: Stage, *, overload: bool
) -> None:
    """What one mailbox or a greylist says tells nothing about the primary."""
    answer = parse_reply(reply.encode() + b"\r\n")
    assert is_overload(classify(answer, stage), answer, stage) is overload


def test_a_lost_connection_counts_as_overload() -> None:
    """A primary that hangs up, or does not answer in time."""
    lost = Lost(reason="timeout")
    assert is_overload(classify(lost, Stage.DOT), lost, Stage.DOT)


@pytest.mark.parametrize("reason", [EXTENSION, SESSION_END])
def test_what_is_sent_again_at_once_is_no_overload(reason: str) -> None:
    """A primary that ends each session after ten messages is not slow."""
    lost = Lost(reason=reason)
    assert not is_overload(classify(lost, Stage.MAIL), lost, Stage.MAIL)


# ---- against a modelled primary (tests/support/scenarios/simulation.py)


@pytest.fixture(scope="module")
def quiet() -> Outcome:
    """Live mail with no drain at all."""
    return simulate(None, messages=0, limit=600)


@pytest.mark.parametrize("seed", [1, 2])
def test_it_drains_as_fast_as_a_good_guess_and_live_mail_does_not_notice(
    quiet: Outcome, seed: int
) -> None:
    """Within a tenth of the best fixed rate's time, and a third of the quiet p99."""
    best = simulate(Fixed(8, 20), messages=4000, limit=3000, seed=seed)
    ours = simulate(Ours(40, 20), messages=4000, limit=3000, seed=seed)
    assert len(ours.delivered) == len(best.delivered) == 4000
    assert ours.took <= 1.1 * best.took
    assert ours.quantile(0.99) <= quiet.quantile(0.99) * 1.33
    assert ours.live_put_off == 0


@pytest.mark.parametrize(
    "client",
    [Fixed(12, 20), Feedback(), Fixed(None, 50)],
    ids=["bold", "postfix", "no"],
)
def test_without_it_live_mail_waits_for_seconds(
    quiet: Outcome, client: Fixed | Feedback
) -> None:
    """With a rate that is too high, with Postfix's feedback, and without a throttle."""
    outcome = simulate(client, messages=4000, limit=1500)
    assert outcome.quantile(0.99) > 10 * quiet.quantile(0.99)
    assert outcome.live_put_off > 0
