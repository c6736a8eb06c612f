"""XCLIENT and XFORWARD as bytes: what the primary learns of the original client."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from drainer.mail.envelope import Client, from_xtext
from drainer.mail.message import Message
from drainer.mail.reply import Reply
from drainer.smtp.route import Login, Route
from drainer.smtp.xclient import (
    MAX_COMMAND_BYTES,
    ClientIntroduction,
    narrow_extensions,
)
from tests.unit.smtp.test_commands import message

ALL = {"xclient": "NAME ADDR PROTO HELO", "xforward": "NAME ADDR IDENT SOURCE HELO"}
CLIENT = Client(address="192.0.2.7", name="mail.example.com", helo="mail.example.com")
ROUTE = Route(host="mx", helo="backup.example")


def speaking(mode: str, offered: dict[str, str] | None = None) -> ClientIntroduction:
    """Return what is agreed upon with a primary that offers all, or this."""
    route = replace(ROUTE, forward_client=mode)
    return ClientIntroduction.on(route, ALL if offered is None else offered)


def of(client: Client, **fields: Any) -> Message:
    """Return a message that this client gave to the backup."""
    return replace(message(), client=client, **fields)


@pytest.mark.parametrize(
    ("mode", "offered", "kind"),
    [
        ("off", "xclient xforward", ""),
        ("auto", "xclient xforward", "xclient"),
        ("auto", "xforward", "xforward"),
        ("auto", "", ""),
        ("xforward", "xclient xforward", "xforward"),
        ("xforward", "xclient", ""),
        ("xclient", "xclient xforward", "xclient"),
        ("xclient", "xforward", ""),
    ],
)
def test_the_primary_is_told_as_both_sides_allow(
    mode: str, offered: str, kind: str
) -> None:
    """What it does not offer is not sent; auto prefers what more of it sees."""
    assert speaking(mode, {word: ALL[word] for word in offered.split()}).kind == kind


def test_auto_keeps_a_login() -> None:
    """XCLIENT would end it."""
    login = Login(username="u", password="p")  # noqa: S106
    route = replace(ROUTE, forward_client="auto", login=login)
    assert ClientIntroduction.on(route, ALL).kind == "xforward"


COMMANDS: dict[str, tuple[Client, bytes]] = {
    "all": (CLIENT, b"ADDR=192.0.2.7 NAME=mail.example.com HELO=mail.example.com"),
    "nameless": (
        Client(address="192.0.2.7"),
        b"ADDR=192.0.2.7 NAME=[UNAVAILABLE] HELO=[UNAVAILABLE]",
    ),
    "IPv6": (
        Client(address="2001:db8::7", name="unknown", helo="[IPv6:2001:db8::7]"),
        b"ADDR=IPV6:2001:db8::7 NAME=[UNAVAILABLE] HELO=[IPv6:2001:db8::7]",
    ),
    "hostile": (
        Client(address="192.0.2.7", name="a b\r\nRSET", helo="x +=\r\nDATA"),
        b"ADDR=192.0.2.7 NAME=[UNAVAILABLE] HELO=x+20+2B+3D+0D+0ADATA",
    ),
    "a name that is an address": (
        Client(address="192.0.2.7", name="192.0.2.9", helo="h"),
        b"ADDR=192.0.2.7 NAME=[UNAVAILABLE] HELO=h",
    ),
    "too long": (
        Client(address="192.0.2.7", name="n", helo="h" * 256),
        b"ADDR=192.0.2.7 NAME=n HELO=[UNAVAILABLE]",
    ),
    "too long when encoded": (
        Client(address="192.0.2.7", name="n", helo="=" * 200),
        b"ADDR=192.0.2.7 NAME=n",
    ),
}


@pytest.mark.parametrize(("client", "words"), COMMANDS.values(), ids=COMMANDS.keys())
def test_xclient_names_the_client(client: Client, words: bytes) -> None:
    """In xtext; what is not known, or no client could have, is unavailable."""
    command = speaking("xclient").command(of(client))
    assert command == b"XCLIENT " + words + b"\r\n"


def test_xforward_names_the_queue_id_too() -> None:
    """So that a line in the primary's log leads to the backup's."""
    command = speaking("xforward").command(of(CLIENT, native_id="4BQ8sLx"))
    assert command == (
        b"XFORWARD ADDR=192.0.2.7 NAME=mail.example.com IDENT=4BQ8sLx SOURCE=REMOTE"
        b" HELO=mail.example.com\r\n"
    )


def test_only_attributes_that_the_primary_takes_are_sent() -> None:
    """An unknown one would be refused."""
    introduction = speaking("xforward", {"xforward": "name addr"})
    assert introduction.command(of(CLIENT)) == (
        b"XFORWARD ADDR=192.0.2.7 NAME=mail.example.com\r\n"
    )


@pytest.mark.parametrize(
    "ours",
    [
        of(Client()),
        of(CLIENT, login="anna"),
        of(Client(address="127.0.0.1", name="filter")),
        of(Client(address="10.0.0.3", name="inside")),
        of(Client(address="fe80::1%eth0")),
    ],
    ids=["none", "login", "filter", "private", "zone"],
)
def test_a_session_that_is_a_clients_does_not_take_the_backups_own_mail(
    ours: Message,
) -> None:
    """It cannot become ours again; and no rights are borrowed from an address."""
    introduction = speaking("xclient")
    assert introduction.speaks_for(ours)
    assert introduction.command(ours) == b""
    introduction.command(of(CLIENT))
    assert not introduction.speaks_for(ours)


def test_a_session_has_one_client() -> None:
    """XCLIENT is sent once, and takes the right to another; XFORWARD is for each."""
    other = of(replace(CLIENT, address="192.0.2.8"))
    xclient, xforward = speaking("xclient"), speaking("xforward")
    assert [bool(xclient.command(of(CLIENT))) for _ in range(2)] == [True, False]
    assert xclient.speaks_for(of(CLIENT))
    assert not xclient.speaks_for(other)
    assert [bool(xforward.command(m)) for m in (of(CLIENT), of(CLIENT))] == [True, True]
    assert xforward.speaks_for(other)


@pytest.mark.parametrize(
    ("helo", "sent"),
    [("client.example", b"client.example"), ("a b\r\n", b"backup.example")],
)
def test_the_session_goes_on_in_the_clients_name(helo: str, sent: bytes) -> None:
    """Its EHLO is judged as well; one that cannot be said is replaced by ours."""
    introduction = speaking("xclient")
    introduction.command(of(replace(CLIENT, helo=helo)))
    assert introduction.ehlo == b"EHLO " + sent + b"\r\n"


@given(
    st.sampled_from(["xclient", "xforward"]),
    st.ip_addresses(),
    st.text(max_size=600),
    st.text(max_size=600),
)
def test_any_client_makes_one_line_that_can_be_read_back(
    mode: str, address: object, name: str, helo: str
) -> None:
    """Printable ASCII, short enough, one blank between its words."""
    client = Client(address=str(address), name=name, helo=helo)
    command = speaking(mode).command(of(client))
    if not command:
        return
    line = command.removesuffix(b"\r\n")
    assert line.isascii()
    assert line.decode().isprintable()
    assert len(line) <= MAX_COMMAND_BYTES
    values = dict(word.split(b"=", 1) for word in line.split(b" ")[1:])
    assert values[b"ADDR"]
    if helo.isprintable() and b"HELO" in values and values[b"HELO"][:1] != b"[":
        assert from_xtext(values[b"HELO"]) == helo


def test_only_what_the_client_is_offered_as_well_stays() -> None:
    """Limits by address are Postfix's smtpd_discard_ehlo_keyword_address_maps."""
    before = {"pipelining": "", "size": "1000", "xclient": "NAME", "dsn": ""}
    reply = Reply(code=250, text="mx.example PIPELINING SIZE 1000 XCLIENT NAME")
    assert set(narrow_extensions(before, reply)) == {"pipelining", "size", "xclient"}
