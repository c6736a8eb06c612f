"""Which route a recipient domain takes."""

import pytest

from drainer.policy.admission.routes import OTHERS, RouteTable, single_route

TABLE = RouteTable(
    domains={
        "example.org": "a",
        ".example.org": "b",
        ".deep.example.org": "c",
        "example.net": "b",
    }
)


@pytest.mark.parametrize(
    ("domain", "route"),
    [
        ("example.org", "a"),
        ("x.example.org", "b"),
        ("deep.example.org", "b"),
        ("x.deep.example.org", "c"),
        ("a.b.deep.example.org", "c"),
        ("example.net", "b"),
        ("x.example.net", None),
        ("badexample.org", None),
        ("org", None),
        ("", "a"),
    ],
)
def test_the_name_goes_before_a_suffix_and_the_longest_suffix_first(
    domain: str, route: str | None
) -> None:
    """An address without a domain takes the first route."""
    assert TABLE.route_of(domain) == route


def test_one_route_may_take_the_others() -> None:
    """Only what no other entry names."""
    table = RouteTable(domains={"example.org": "a", OTHERS: "b"})
    assert table.route_of("example.org") == "a"
    assert table.route_of("example.com") == "b"
    assert table.names == ["a", "b"]


def test_without_domains_one_route_takes_all() -> None:
    """With domains it takes those."""
    assert single_route("a").route_of("x.example") == "a"
    assert single_route("a", ["y.example"]).route_of("x.example") is None
