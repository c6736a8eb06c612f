"""Which of a domain's servers a backup may deliver to."""

import pytest

from drainer.policy.admission.mx import MxChoice, MxRecord, choose_mx, divide_servers

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


A, B, C = "a.example", "b.example", "c.example"


@pytest.mark.parametrize(
    ("found", "groups"),
    [
        pytest.param(
            {A: [["1"], ["2"]], B: [["1"], ["2"]]},
            [([["1"], ["2"]], [A, B])],
            id="the same servers",
        ),
        pytest.param(
            {A: [["1"], ["2"]], B: [["2"], ["1"]]},
            [([["1"]], [A]), ([["2"]], [B])],
            id="each is the other's backup",
        ),
        pytest.param(
            {A: [["1"], ["9"]], B: [["2"], ["9"]]},
            [([["1"], ["9"]], [A]), ([["2"]], [B])],
            id="one backup for both",
        ),
        pytest.param(
            {A: [["1", "2"], ["9"]], B: [["2"], ["8"]], C: [["1", "3"]]},
            [([["2"]], [A, B]), ([["1", "3"]], [C])],
            id="a part of the servers",
        ),
        pytest.param(
            {A: [["1"], ["3", "4"], ["5"]], B: [["1"], ["5", "4"]]},
            [([["1"], ["4"], ["5"]], [A, B])],
            id="worse servers that both have",
        ),
    ],
)
def test_each_server_has_one_group_of_domains(
    found: dict[str, list[list[str]]], groups: list[tuple[list[list[str]], list[str]]]
) -> None:
    """It is theirs who prefer it; no domain goes to a server that is not its own."""
    tiers = {name: tuple(map(tuple, each)) for name, each in found.items()}
    divided, conflicts = divide_servers(tiers)
    shown = [([list(t) for t in g.tiers], list(g.domains)) for g in divided]
    assert shown == groups
    assert conflicts == {}


def test_the_servers_of_other_routes_are_not_shared() -> None:
    """A domain that has no other best server is named with it."""
    found = {A: (("1",), ("2",)), B: (("3",), ("1",))}
    groups, conflicts = divide_servers(found, ["1"])
    assert [(each.tiers, each.domains) for each in groups] == [((("3",),), (B,))]
    assert conflicts == {A: "1"}
