"""What manualroute and the smtp transport of Exim mean."""

import pytest

from drainer.sources.exim.router import (
    RouteRule,
    nexthop_of,
    parse_route_data,
    parse_route_list,
    split_list,
)
from drainer.sources.protocol import Nexthop

SMTP = {"driver": "smtp", "port": "smtp", "protocol": "smtp"}


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (" a : b:c ", ["a", "b", "c"]),
        ("::1 : a", [":1", "a"]),
        ("h::26", ["h:26"]),
        ("<; ::1 ; 10.0.0.1:26", ["::1", "10.0.0.1:26"]),
        ("", []),
    ],
)
def test_a_list_has_a_separator_that_is_doubled_in_an_item(
    text: str, items: list[str]
) -> None:
    """It is a colon unless the list begins with another one."""
    assert split_list(text) == items


def test_a_route_list_has_rules_with_a_pattern() -> None:
    """Hosts with spaces are in quotes; what follows them is an option."""
    text = 'a.example  h1:h2  byname; b.example "h3 : h4"; *.c.example'
    assert list(parse_route_list(text)) == [
        RouteRule("a.example", "h1:h2", ("byname",)),
        RouteRule("b.example", "h3 : h4"),
        RouteRule("*.c.example"),
    ]
    assert parse_route_data("h1:h2 byname") == RouteRule("", "h1:h2", ("byname",))
    assert parse_route_data("") == RouteRule()


@pytest.mark.parametrize(
    ("hosts", "transport", "nexthop"),
    [
        ("h1.example", SMTP, Nexthop("h1.example")),
        ("h1::26", SMTP, Nexthop("h1", 26)),
        ("h1", SMTP | {"port": "587"}, Nexthop("h1", 587)),
        ("h1", SMTP | {"protocol": "smtps"}, Nexthop("h1", 465)),
        ("h1", SMTP | {"protocol": "lmtp"}, Nexthop("h1", 24, "lmtp")),
        ("<; 2001:db8::1", SMTP, Nexthop("2001:db8::1")),
        ("<; [2001:db8::1]:26", SMTP, Nexthop("2001:db8::1", 26)),
        ("", SMTP | {"hosts": "h9"}, Nexthop("h9")),
        ("h1", SMTP | {"hosts": "h9"}, Nexthop("h1")),
        ("h1", SMTP | {"hosts": "h9", "hosts_override": "yes"}, Nexthop("h9")),
        ("", {"driver": "lmtp", "socket": "/x"}, Nexthop("unix:/x", protocol="lmtp")),
    ],
)
def test_a_host_list_and_a_transport_are_a_next_hop(
    hosts: str, transport: dict[str, str], nexthop: Nexthop
) -> None:
    """The port of a host goes before that of the transport."""
    assert nexthop_of(hosts, transport, shares=False) == nexthop


def test_several_hosts_are_tried_in_order_unless_exim_shuffles_them() -> None:
    """Then those between two plus signs are equal."""
    in_order = nexthop_of("h1 : h2::26", SMTP, shares=False)
    assert in_order.tiers == (("h1:25",), ("h2:26",))
    shuffled = SMTP | {"hosts_randomize": "hosts_randomize"}
    shared = nexthop_of("<; ::1 ; h2 ; + ; h3", shuffled, shares=False)
    assert shared == nexthop_of("<; ::1 ; h2 ; + ; h3", SMTP, shares=True)
    assert shared.tiers == (("[::1]:25", "h2:25"), ("h3:25",))
    assert (shared.host, shared.port) == ("::1", 25)


@pytest.mark.parametrize(
    ("hosts", "transport", "words"),
    [
        ("h1", SMTP | {"hosts_require_tls": "*"}, "has hosts_require_tls"),
        ("h1/MX", SMTP, "does not understand the host 'h1/MX'"),
        ("h1::99999", SMTP, "does not understand the host"),
        ("h 1", SMTP, "does not understand the host"),
        ("", SMTP, "finds no host"),
        ("h1", {"driver": "appendfile"}, "driver appendfile"),
        ("h1", {}, "transport"),
        ("h1", {"driver": "lmtp", "command": "/bin/x"}, "driver lmtp"),
    ],
)
def test_what_drainer_does_not_do_as_exim_does_is_reported(
    hosts: str, transport: dict[str, str], words: str
) -> None:
    """So that a person looks at it."""
    assert words in nexthop_of(hosts, transport, shares=False).doubt
