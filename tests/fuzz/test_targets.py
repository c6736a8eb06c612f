"""A few dozen spoilt inputs for every parser; ``make fuzz`` goes on for longer."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.target import Change, Target, spoil
from tests.fuzz.targets import TARGETS

EXAMPLES = 30
WORDS = st.integers(0, 2**16)
CHANGES = st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=5)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_input_breaks_a_parser(target: Target, tmp_path: Path) -> None:
    """It is read, or refused in the way that is documented; nothing else leaves."""
    run = target.prepare(tmp_path)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(target.seeds), CHANGES)
    def spoilt(seed: bytes, changes: list[Change]) -> None:
        run(spoil(seed, changes, target.tokens))

    spoilt()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_seeds_are_sound(target: Target, tmp_path: Path) -> None:
    """There are some, and the target takes them."""
    assert target.seeds
    run = target.prepare(tmp_path)
    for seed in target.seeds:
        run(seed)
