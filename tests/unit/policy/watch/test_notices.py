"""Notifications: once for each change, and not too often."""

from datetime import timedelta

import pytest

from drainer.policy.watch.notices import Notice, NoticeRecord, changes

MINUTE = timedelta(minutes=1)
SECOND = 1_000_000


def told_by(steps: list[tuple[int, dict[str, str]]]) -> list[tuple[int, str]]:
    """Return when (in seconds) which event was told, as conditions come and go."""
    told: dict[str, NoticeRecord] = {}
    found = []
    for at, keys in steps:
        conditions = {
            kind: Notice(event=kind, key=key, subject=f"{kind} {key}")
            for kind, key in keys.items()
        }
        notices, told = changes(conditions, told, at * SECOND, MINUTE)
        found += [(at, each.event) for each in notices]
    return found


STOPPED = {"stopped": "refused"}


def test_a_condition_is_reported_once_while_it_holds() -> None:
    """However often it is looked at."""
    assert told_by([(n, STOPPED) for n in range(1, 500, 10)]) == [(1, "stopped")]


def test_that_delivery_resumes_is_reported_and_that_a_disk_is_free_is_not() -> None:
    """What is over needs nobody, but for mail that flows again."""
    steps = [(1, {**STOPPED, "disk": "disk"}), (100, {})]
    assert told_by(steps) == [(1, "stopped"), (1, "disk"), (100, "resumed")]


def test_another_cause_is_another_change() -> None:
    """Also without a pause between them."""
    steps = [(1, STOPPED), (100, {"stopped": "tls"})]
    assert told_by(steps) == [(1, "stopped"), (100, "stopped")]


def test_what_flaps_is_reported_once_in_an_interval() -> None:
    """The last state is told in the end, whatever it is."""
    steps = [(n, STOPPED if n % 2 else {}) for n in range(1, 60)]
    assert told_by(steps) == [(1, "stopped")]
    assert told_by([*steps, (62, {})]) == [(1, "stopped"), (62, "resumed")]
    assert told_by([*steps, (62, STOPPED)]) == [(1, "stopped")]


def test_it_comes_again_after_it_was_over() -> None:
    """A disk that fills up for a second time."""
    disk = {"disk": "disk"}
    assert told_by([(1, disk), (100, {}), (200, disk)]) == [(1, "disk"), (200, "disk")]


@pytest.mark.parametrize("kind", ["done", "defect", "ended"])
def test_what_is_over_at_once_is_not_told_again(kind: str) -> None:
    """A drain that is repeated every minute, and changes nothing."""
    steps = [(1, {kind: "5 3 1"}), (100, {}), (200, {kind: "5 3 1"})]
    assert told_by(steps) == [(1, kind)]
    assert told_by([*steps, (300, {kind: "0 4 0"})]) == [(1, kind), (300, kind)]
