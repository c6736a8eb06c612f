"""``protocol = "lmtp"``: ports, Unix sockets, and what contradicts them."""

from pathlib import Path

import pytest

from drainer.cli.options import load as load_with_flags
from drainer.config.build.routes import make_route, make_route_table, route_name
from drainer.config.host import split_server
from drainer.config.primary import PrimarySection
from drainer.config.route_section import route_configs
from drainer.errors import UsageError
from drainer.smtp.route import Host
from tests.unit.config.test_route_section import load

SOCKET = "unix:/run/dovecot/lmtp"


def test_lmtp_has_a_port_of_its_own_unless_one_is_given() -> None:
    """Never that of SMTP (RFC 2033 5)."""
    assert PrimarySection(host="mx", protocol="lmtp").port == 24
    assert PrimarySection(host="mx", protocol="lmtp", port=2003).port == 2003
    assert PrimarySection(host="mx", protocol="lmtp", tls="implicit").port == 465


def test_a_host_of_the_command_line_has_the_usual_port(tmp_path: Path) -> None:
    """The port of the file belongs to its own host."""
    path = tmp_path / "drainer.toml"
    for keys, port in (("", 25), ('protocol = "lmtp"', 24), ('tls = "implicit"', 465)):
        path.write_text(f'[primary]\nhost = "mx1"\nport = 2525\n{keys}\n', "utf-8")
        assert load_with_flags(path, to="mx2").primary.port == port
        assert load_with_flags(path, to="mx2:26").primary.port == 26


@pytest.mark.parametrize(
    "keys",
    [
        {"host": "mx", "port": 25},
        {"hosts": ("mx1:24", "mx2:25")},
        {"hosts": (SOCKET, ("mx1", "mx2")), "port": 25},
        {"hosts": ("[::1]:25",)},
    ],
)
def test_lmtp_to_port_25_is_refused(keys: dict[str, object]) -> None:
    """The words name the port that LMTP usually has."""
    with pytest.raises(ValueError, match=r"must not go to port 25 .*usually 24"):
        PrimarySection.model_validate(keys | {"protocol": "lmtp"})


def test_lmtp_to_the_servers_of_mx_records_is_refused() -> None:
    """They speak SMTP (RFC 5321 5)."""
    with pytest.raises(ValueError, match="names SMTP servers"):
        PrimarySection(hosts="mx", protocol="lmtp")


def test_a_unix_socket_means_lmtp_and_is_the_name_of_its_route(tmp_path: Path) -> None:
    """It has neither port nor TLS; a TCP route beside it speaks SMTP."""
    text = (
        f'[primary]\nhost = "{SOCKET}"\ndomains = ["example.org"]\n'
        '[[routes]]\ndomains = ["example.net"]\nhost = "mx2"\n'
    )
    config = load(tmp_path, text)
    other, first = route_configs(config)
    assert (first.primary.protocol, other.primary.protocol) == ("lmtp", "smtp")
    assert (route_name(first), route_name(other)) == (SOCKET, "mx2:25")
    assert make_route_table(config).route_of("example.org") == SOCKET
    route = make_route(first)
    assert str(route) == SOCKET
    assert route.socket_path == "/run/dovecot/lmtp"
    assert not route.starts_tls
    assert route.hello == "LHLO"


def test_a_route_may_speak_lmtp_beside_an_smtp_primary(tmp_path: Path) -> None:
    """The port of [primary] does not count if nobody set it."""
    text = (
        '[primary]\nhost = "mx1"\n[[routes]]\ndomains = ["example.net"]\n'
        f'hosts = [["mx2", "mx3:2003"], "{SOCKET}"]\nprotocol = "lmtp"\n'
    )
    other, first = route_configs(load(tmp_path, text))
    assert make_route(first).protocol == "smtp"
    route = make_route(other)
    assert str(route) == "mx2:24"
    assert route.tiers[0] == (Host(host="mx2", port=24), Host(host="mx3", port=2003))
    assert route.tiers[1][0].host == SOCKET


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"protocol": "smtp"}, 'set protocol = "lmtp"'),
        ({"tls": "required"}, "requires TLS"),
        ({"tls": "implicit"}, "requires TLS"),
        ({"verify": True}, "verify requires TLS"),
        ({"tls_pin": ["ab" * 32]}, "tls_pin requires TLS"),
        ({"username": "u", "password": "p"}, "username requires TLS"),
    ],
)
def test_what_a_unix_socket_cannot_do_is_refused(
    keys: dict[str, object], words: str
) -> None:
    """A contradiction is named before anything is sent."""
    with pytest.raises(ValueError, match=words):
        PrimarySection.model_validate(keys | {"host": SOCKET})


@pytest.mark.parametrize(
    "text",
    [
        "unix:",
        "unix:lmtp",
        "unix:/a\nb",
        "unix:/a\0",
        "unix:/\udcff",
        f"unix:/{'x' * 107}",
    ],
)
def test_a_socket_that_cannot_be_is_refused(text: str) -> None:
    """Its path is absolute, printable and short enough for the kernel."""
    with pytest.raises(UsageError, match="not a valid Unix socket"):
        split_server(text)


def test_a_socket_needs_no_tls_because_the_primary_does(tmp_path: Path) -> None:
    """What [primary] wants of TCP does not concern a route to a socket only."""
    text = (
        '[primary]\nhost = "mx1"\ntls = "required"\nverify = true\nport = 25\n'
        f'[[routes]]\ndomains = ["a.example"]\nhost = "{SOCKET}"\n'
        '[[routes]]\ndomains = ["b.example"]\nhost = "mx2"\nprotocol = "lmtp"\n'
    )
    by_socket, by_lmtp, _ = map(make_route, route_configs(load(tmp_path, text)))
    assert not by_socket.requires_tls
    assert (str(by_lmtp), by_lmtp.requires_tls) == ("mx2:24", True)


@pytest.mark.parametrize(
    ("hosts", "own", "words"),
    [
        (f'["{SOCKET}"]', 'tls = "required"', 'the route of a.example: tls = "req'),
        (f'["mx2:24", "{SOCKET}"]', "", 'set tls = "off", or name the socket in a'),
    ],
)
def test_a_route_that_needs_tls_itself_has_no_socket(
    tmp_path: Path, hosts: str, own: str, words: str
) -> None:
    """Or other hosts of it would lose the TLS that [primary] requires."""
    text = (
        '[primary]\nhost = "mx1"\ntls = "required"\n'
        f'[[routes]]\ndomains = ["a.example"]\nhosts = {hosts}\n{own}\n'
    )
    with pytest.raises(UsageError) as refused:
        load(tmp_path, text)
    assert words in str(refused.value)
