"""What the entries of transport(5) mean."""

import pytest

from drainer.sources.postfix.transport import parse_transport
from drainer.sources.protocol import Nexthop


@pytest.mark.parametrize(
    ("text", "nexthop"),
    [
        ("relay:[mx1.example]", Nexthop("mx1.example")),
        ("smtp:[mx1.example]:2525", Nexthop("mx1.example", 2525)),
        ("smtp:[mx1.example]:smtps", Nexthop("mx1.example", 465)),
        (":[192.0.2.1]", Nexthop("192.0.2.1")),
        ("relay:[IPv6:2001:db8::1]:26", Nexthop("2001:db8::1", 26)),
        ("relay", Nexthop()),
        ("relay:", Nexthop()),
        ("smtp:mx1:26", Nexthop("mx1", 26)),
        ("lmtp:inet:mda.example:2424", Nexthop("mda.example", 2424, "lmtp")),
        ("lmtp:inet:[192.0.2.1]", Nexthop("192.0.2.1", 24, "lmtp")),
        ("lmtp:[::1]:lmtp", Nexthop("::1", 24, "lmtp")),
        ("lmtp:unix:/run/x", Nexthop("unix:/run/x", protocol="lmtp")),
        ("lmtp:unix:private/x", Nexthop("unix:private/x", protocol="lmtp")),
    ],
)
def test_a_next_hop_is_a_host_and_a_port(text: str, nexthop: Nexthop) -> None:
    """Without one, the MX records of the domain say where its mail goes."""
    assert parse_transport(text) == nexthop


@pytest.mark.parametrize("text", ["smtp:[mx1], [::1]:26", "smtp:[mx1] [::1]:26"])
def test_several_next_hops_are_tried_in_their_order(text: str) -> None:
    """As in relayhost; a doubt about one of them is one about all."""
    assert parse_transport(text).tiers == (("mx1:25",), ("[::1]:26",))
    assert "MX records" in parse_transport(f"{text}, other.example").doubt
    assert "understand" in parse_transport(f"{text}, [x").doubt


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("virtual", "by the transport"),
        ("lmtp:inet:mx1:25", "must not go to port 25"),
        ("lmtp:", "a host that has its name"),
        ("smtp:mx1:nosuch", "does not understand"),
        ("smtp:[mx1]:99999", "does not understand"),
        ("error:5.1.1 gone", "by the transport"),
        ("relay:[mx1", "does not understand"),
        ("relay:other.example", "MX records of other.example"),
    ],
)
def test_what_drainer_does_not_do_is_reported(text: str, words: str) -> None:
    """So that a person looks at it."""
    assert words in parse_transport(text).doubt


def test_an_entry_without_a_name_has_the_default_one() -> None:
    """And an entry without a next hop has the default's."""
    assert parse_transport(":[mx9]", "lmtp:x") == Nexthop("mx9", 24, "lmtp")
    assert parse_transport("", "relay:[mx9]:26") == Nexthop("mx9", 26)
    assert parse_transport("smtp:", "relay:[mx9]:26") == Nexthop()
