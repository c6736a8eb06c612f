"""What holds of the controls that were given."""

from datetime import UTC, datetime, timedelta

import pytest

from drainer.policy.pacing.overrides import Override, OverrideKind, active

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def given(ask: OverrideKind, **facts: object) -> Override:
    """Return a control that was given a minute ago."""
    return Override(at=NOW - MINUTE, ask=ask, **facts)  # type: ignore[arg-type]


PAUSE, RESUME = given(OverrideKind.PAUSE), given(OverrideKind.RESUME)
FIFTY = given(OverrideKind.THROTTLE, per_second=50.0)
BRIEF = given(OverrideKind.THROTTLE, per_second=5.0, until=NOW + MINUTE)
OVER = given(OverrideKind.THROTTLE, per_second=5.0, until=NOW)
BACK = given(OverrideKind.THROTTLE)


@pytest.mark.parametrize(
    ("controls", "paused", "per_second"),
    [
        ((), False, None),
        ((PAUSE,), True, None),
        ((PAUSE, RESUME), False, None),
        ((RESUME, PAUSE), True, None),
        ((given(OverrideKind.PAUSE, until=NOW + MINUTE),), True, None),
        ((given(OverrideKind.PAUSE, until=NOW),), False, None),
        ((FIFTY,), False, 50.0),
        ((FIFTY, BRIEF), False, 5.0),
        ((FIFTY, OVER), False, None),
        ((FIFTY, BACK), False, None),
        ((PAUSE, FIFTY), True, 50.0),
        ((given(OverrideKind.DOWN), FIFTY, given(OverrideKind.UP)), False, 50.0),
    ],
)
def test_the_last_of_a_kind_holds_until_it_ends(
    controls: tuple[Override, ...], *, paused: bool, per_second: float | None
) -> None:
    """The last counts; one that has ended gives back what was configured."""
    found = active(controls, NOW)
    assert (found.pause is not None) is paused
    assert found.per_second == per_second
