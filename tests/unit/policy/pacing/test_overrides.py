"""What holds of the controls that were given."""

from datetime import UTC, datetime, timedelta

import pytest

from drainer.policy.pacing.overrides import Ask, Control, in_force

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def given(ask: Ask, **facts: object) -> Control:
    """Return a control that was given a minute ago."""
    return Control(at=NOW - MINUTE, ask=ask, **facts)  # type: ignore[arg-type]


PAUSE, RESUME = given(Ask.PAUSE), given(Ask.RESUME)
FIFTY = given(Ask.THROTTLE, per_second=50.0)
BRIEF = given(Ask.THROTTLE, per_second=5.0, until=NOW + MINUTE)
OVER = given(Ask.THROTTLE, per_second=5.0, until=NOW)
BACK = given(Ask.THROTTLE)


@pytest.mark.parametrize(
    ("controls", "paused", "per_second"),
    [
        ((), False, None),
        ((PAUSE,), True, None),
        ((PAUSE, RESUME), False, None),
        ((RESUME, PAUSE), True, None),
        ((given(Ask.PAUSE, until=NOW + MINUTE),), True, None),
        ((given(Ask.PAUSE, until=NOW),), False, None),
        ((FIFTY,), False, 50.0),
        ((FIFTY, BRIEF), False, 5.0),
        ((FIFTY, OVER), False, None),
        ((FIFTY, BACK), False, None),
        ((PAUSE, FIFTY), True, 50.0),
        ((given(Ask.DOWN), FIFTY, given(Ask.UP)), False, 50.0),
    ],
)
def test_the_last_of_a_kind_holds_until_it_ends(
    controls: tuple[Control, ...], *, paused: bool, per_second: float | None
) -> None:
    """The last counts; one that has ended gives back what was configured."""
    found = in_force(controls, NOW)
    assert (found.pause is not None) is paused
    assert found.per_second == per_second
