"""Which of a domain's servers a backup may deliver to."""

import pytest

from drainer.policy.admission.mx import MxChoice, MxRecord, choose_mx

OURS = ("Backup.Example.", "mx9.example")


@pytest.mark.parametrize(
    ("records", "tiers"),
    [
        ([(10, "a.example")], (("a.example",),)),
        ([(20, "b.example"), (10, "A.example.")], (("a.example",), ("b.example",))),
        ([(10, "b.example"), (10, "a.example")], (("a.example", "b.example"),)),
        ([(10, "a.example"), (20, "backup.example")], (("a.example",),)),
        ([(5, "a.example"), (10, "mx9.example"), (10, "b.example")], (("a.example",),)),
        ([(5, "a.example"), (5, "a.example.")], (("a.example",),)),
        ([], (("own.example",),)),
    ],
)
def test_only_what_is_preferred_to_every_name_of_ours(
    records: list[tuple[int, str]], tiers: tuple[tuple[str, ...], ...]
) -> None:
    """Equal servers are together; without records the domain is its own server."""
    found = choose_mx("own.example", [MxRecord(*each) for each in records], OURS)
    assert found == MxChoice(tiers)


@pytest.mark.parametrize(
    "records",
    [
        [(0, ".")],
        [(0, "")],
        [(10, "."), (10, "a.example")],
        [(10, "backup.example")],
        [(10, "backup.example"), (10, "a.example"), (20, "b.example")],
    ],
)
def test_there_may_be_none(records: list[tuple[int, str]]) -> None:
    """A null MX, and ours as the best."""
    found = choose_mx("own.example", [MxRecord(*each) for each in records], OURS)
    assert found.tiers == ()
    assert "own.example" in found.reason
