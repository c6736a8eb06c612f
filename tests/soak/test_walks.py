"""A short walk for each disturbance; ``make soak`` goes on for longer."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.soak.disturbances import DISTURBANCES
from tests.soak.faults import compile_faults, missing_reason
from tests.soak.spools import NAMES, Spools
from tests.soak.walk import walk

pytestmark = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "")

CELLS: Final = list(zip(DISTURBANCES, itertools.cycle(NAMES), strict=False))
"""Each disturbance once, and each spool."""


@pytest.fixture(scope="module")
def spools() -> Iterator[Spools]:
    """Give the maker of spools, which shares its servers among the cells."""
    with Spools() as made:
        yield made


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the library that makes errors."""
    return compile_faults(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(("disturbance", "name"), CELLS)
def test_a_disturbed_drain_loses_and_doubles_nothing(
    tmp_path: Path, spools: Spools, library: Path, disturbance: str, name: str
) -> None:
    """Disturbed once and run again: P1 and P2 hold, and no traceback is printed."""
    dice = random.Random(f"{disturbance} {name}")  # noqa: S311 - to repeat it
    with walk(spools, name, tmp_path / "walk", library, dice) as one:
        lasts = dice.choice((0.2, 1.0))
        one.disturb(DISTURBANCES[disturbance], one.least_steps, lasts)
        one.finish()
    assert one.outcome.tried == 1, "it met no drain"
    assert one.outcome.is_right, one.outcome.faults


def test_a_loss_and_a_double_are_seen(
    tmp_path: Path, spools: Spools, library: Path
) -> None:
    """The check can fail: one message less, and one more, than was sent."""
    dice = random.Random(1)  # noqa: S311 - to repeat it
    with walk(spools, "Maildir", tmp_path / "walk", library, dice) as one:
        one._settle()
        one.peer.messages[-1] = one.peer.messages[0]
        one._judge(frozenset())
    assert (one.outcome.lost, one.outcome.doubled) == (1, 1)
