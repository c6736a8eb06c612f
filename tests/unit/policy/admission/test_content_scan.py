"""What a scanner's answer means, and how long a scanner that fails is left alone."""

from datetime import UTC, datetime, timedelta

import pytest

from drainer.policy.admission.content_scan import (
    FAILURES,
    HIT_AGE,
    HoldRule,
    ScanAnswer,
    ScannerPause,
    hit_by,
    is_known,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("verdict", "score", "rule", "is_hit"),
    [
        ("", None, HoldRule(), False),
        ("Eicar", None, HoldRule(), True),
        ("reject", 15.0, HoldRule(hold=("reject",)), True),
        ("add header", 14.0, HoldRule(hold=("reject",)), False),
        ("add header", 14.0, HoldRule(hold=("reject",), score=14), True),
        ("add header", 13.9, HoldRule(hold=("reject",), score=14), False),
        ("", 99.0, HoldRule(hold=()), False),
        ("", -1.0, HoldRule(hold=(), score=-1), True),
        ("", None, HoldRule(score=0), False),
        ("Win.Test-1", None, HoldRule(hold=("win.*",)), True),
        ("PUA.Win.Tool", None, HoldRule(hold=("win.*",)), False),
        ("PUA.Win.Tool", None, HoldRule(hold=()), False),
    ],
)
def test_what_holds(
    verdict: str, score: float | None, rule: HoldRule, *, is_hit: bool
) -> None:
    """A pattern of the verdict, or the score; a clean content has no verdict."""
    assert rule.is_hit(ScanAnswer(verdict=verdict, score=score)) is is_hit


def test_a_hit_names_everything_that_was_found() -> None:
    """Scanner, verdict, score and symbols; what a scanner does not have is left out."""
    answer = ScanAnswer(verdict="reject", score=15.5, symbols=("GTUBE", "NO_DATE"))
    hit = hit_by("rspamd", answer)
    assert hit.code == "scan-rspamd"
    assert str(hit) == "rspamd: reject, score 15.5: GTUBE, NO_DATE"
    assert dict(hit.evidence) == {
        "scanner": "rspamd",
        "found": "reject",
        "score": 15.5,
        "symbols": ("GTUBE", "NO_DATE"),
    }
    by_score = hit_by("sa", ScanAnswer(score=0))
    assert (str(by_score), dict(by_score.evidence)["score"]) == ("sa: score 0", 0)
    assert str(ScanAnswer()) == "clean"
    virus = hit_by("av", ScanAnswer(verdict="Eicar"))
    assert dict(virus.evidence) == {"scanner": "av", "found": "Eicar"}


@pytest.mark.parametrize(
    ("ago", "hit", "counts"),
    [
        (timedelta(hours=23), False, True),
        (timedelta(hours=24), False, False),
        (HIT_AGE - MINUTE, True, True),
        (HIT_AGE, True, False),
    ],
)
def test_how_long_an_answer_counts(ago: timedelta, *, hit: bool, counts: bool) -> None:
    """A hit counts for a short time, so that a fixed scanner is asked again."""
    known = is_known(NOW - ago, NOW, age=timedelta(days=1), hit=hit)
    assert known is counts


def assert_paused(pause: ScannerPause) -> None:
    """Let it fail at enough messages."""
    for n in range(FAILURES):
        assert pause.may_ask(NOW)
        assert pause.record_failure(str(n), NOW) is (n == FAILURES - 1)


def test_one_message_never_causes_a_pause() -> None:
    """The message may be the cause; others are still scanned."""
    pause = ScannerPause((MINUTE,))
    for _ in range(5 * FAILURES):
        assert not pause.record_failure("poison", NOW)
    assert pause.may_ask(NOW)


def test_an_answer_ends_the_count() -> None:
    """Failures between answers are those of messages."""
    pause = ScannerPause((MINUTE,))
    for n in range(5 * FAILURES):
        assert not pause.record_failure(str(n), NOW)
        assert not pause.record_answer()


def test_after_a_pause_one_message_asks() -> None:
    """While it fails the pauses follow one another, and the last one repeats."""
    pause = ScannerPause((MINUTE, 3 * MINUTE))
    assert_paused(pause)
    at = NOW
    for wait in (MINUTE, 3 * MINUTE, 3 * MINUTE):
        assert pause.wait(at) == wait
        assert not pause.may_ask(at + wait - timedelta(seconds=1))
        at += wait
        assert pause.may_ask(at)
        assert not pause.may_ask(at)
        assert not pause.record_failure("x", at)


def test_an_answer_ends_the_pause() -> None:
    """Then every message is scanned again."""
    pause = ScannerPause((MINUTE,))
    assert_paused(pause)
    assert pause.may_ask(NOW + MINUTE)
    assert pause.record_answer()
    assert pause.may_ask(NOW + MINUTE)
    assert pause.wait(NOW + MINUTE) == timedelta(0)
