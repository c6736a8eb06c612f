"""The brake weighs what waits now, not what waited when the drain started."""

import itertools
from collections.abc import Sequence

import pytest

from drainer.policy.breaker.brake import USUAL_BRAKE, PendingRefusals

GONE = "enhanced-5.1.1"


def waiting(older: int, handled: int) -> PendingRefusals:
    """Return what a drain starts with."""
    found = PendingRefusals()
    found.start(USUAL_BRAKE, older, handled)
    return found


def end(found: PendingRefusals, keys: Sequence[int], before: str, after: str) -> None:
    """Let attempts end: of recipients that were refused before, or are new."""
    for n in keys:
        found.count((n, 0), first=not before, before=before, after=after)


@pytest.mark.parametrize(("refused", "braked"), [(3, False), (4, True)])
def test_refusals_of_this_drain_count(refused: int, *, braked: bool) -> None:
    """Two of four waited; with these, half of all recipients are refused."""
    found = waiting(2, 4)
    assert not found.is_braked
    end(found, range(refused), "", GONE)
    end(found, range(10, 10 + refused), "", "")
    assert (found.is_braked, found.began_braked) == (braked, False)


def test_a_recipient_counts_once() -> None:
    """Whatever its attempts say: the last one counts."""
    found = waiting(0, 0)
    end(found, [1], "", "refused-by-node")
    for before in ("", "", GONE, GONE, GONE, GONE):
        found.count((1, 0), first=False, before=before, after=GONE)
    assert not found.is_braked
    end(found, range(2, 7), "", GONE)
    assert found.is_braked
    end(found, [3], GONE, "")
    assert not found.is_braked


def test_what_is_delivered_or_final_waits_no_more() -> None:
    """Also if an earlier drain had left it."""
    found = waiting(4, 6)
    end(found, range(10, 13), "", GONE)
    assert found.is_braked
    end(found, range(2), GONE, "")
    assert not found.is_braked


def test_spam_and_refusals_of_us_do_not_count() -> None:
    """Strangers could pull the brake with them."""
    found = waiting(0, 0)
    for n, rule in zip(range(40), itertools.cycle(["text-content", "stop", ""])):
        end(found, [n], "", rule)
    assert not found.is_braked


def test_a_brake_that_was_on_stays_on_for_the_drain() -> None:
    """Others that became healthy meanwhile say nothing about the rest."""
    found = waiting(6, 12)
    end(found, range(6), GONE, "")
    assert found.is_braked
