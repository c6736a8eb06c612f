"""How long a drain takes at least."""

from datetime import timedelta

import pytest

from drainer.policy.pacing.forecast import least_seconds

RAMP = timedelta(minutes=2)


def test_without_a_ramp_it_is_the_number_by_the_rate() -> None:
    """An unlimited rate takes no time, and nothing to send neither."""
    assert least_seconds(600, 10.0, timedelta(0)) == 60.0
    assert least_seconds(600, None, RAMP) == 0.0
    assert least_seconds(0, 10.0, RAMP) == 0.0


def test_a_ramp_costs_the_same_whatever_comes_after_it() -> None:
    """Ten thousand messages at ten a second: the slow start adds half a minute."""
    late = least_seconds(10_000, 10.0, RAMP) - 1000
    assert 20 < late < 120
    assert least_seconds(20_000, 10.0, RAMP) - 2000 == pytest.approx(late)


def test_few_messages_all_go_at_the_first_rate() -> None:
    """The rate starts at one message a second."""
    assert least_seconds(5, 10.0, RAMP) == pytest.approx(5.0)
    assert least_seconds(5, 0.5, RAMP) == pytest.approx(10.0)
