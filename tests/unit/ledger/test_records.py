"""The ids of attempts: they grow, differ between processes, and say when."""

from datetime import UTC, datetime, timedelta

import pytest

from drainer.ledger.records import AttemptIds

COUNT = 5000


def test_they_grow_and_fit_into_63_bits() -> None:
    """Also when many are made in one unit of time."""
    ids = AttemptIds()
    made = [ids.make() for _ in range(COUNT)]
    assert made == sorted(set(made))
    assert made[-1] < 2**63


def test_processes_that_share_a_ledger_make_different_ones() -> None:
    """At the same time, for as long as they like."""
    one, other = AttemptIds(), AttemptIds()
    made = [ids.make() for _ in range(COUNT) for ids in (one, other)]
    assert len(set(made)) == len(made)


def test_they_grow_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour, as at the end of a summer."""
    ids = AttemptIds()
    before = ids.make()
    now = datetime.now(UTC) - timedelta(hours=1)
    monkeypatch.setattr("time.time_ns", lambda: int(now.timestamp() * 1e9))
    assert ids.make() > before


def test_they_say_when_the_attempt_began() -> None:
    """Up to 64 microseconds early."""
    before = datetime.now(UTC)
    found = AttemptIds.time_of(AttemptIds().make())
    assert timedelta(microseconds=-64) <= found - before < timedelta(seconds=5)
