"""``[[routes]]``: what a route has of its own, and what is refused."""

from pathlib import Path

import pytest

from drainer.config import Config
from drainer.config import load as config_file
from drainer.config.build.routes import make_route, make_route_table
from drainer.config.health import HealthSection
from drainer.config.primary import PrimarySection
from drainer.config.route_section import (
    OWN_KEYS,
    SECTION_OF,
    route_configs,
)
from drainer.config.throttle import BreakerSection, ThrottleSection
from drainer.errors import UsageError
from drainer.smtp.route import Host

PRIMARY = '[primary]\nhost = "mx1.example.org"\ndomains = ["example.org"]\n'


def load(tmp_path: Path, text: str, **flags: dict[str, object]) -> Config:
    """Load a configuration file with this text."""
    path = tmp_path / "drainer.toml"
    path.write_text(text, "utf-8")
    return config_file.load(path, flags)


def test_a_route_has_what_it_sets_and_the_rest_of_the_sections(tmp_path: Path) -> None:
    """Each is a configuration like the whole one; [primary] is the last."""
    text = (
        PRIMARY + 'tls = "required"\ncommand_timeout = "7s"\n'
        '[throttle]\nrate = "9/second"\n[health]\naccept = ["a@example.org"]\n'
        '[[routes]]\ndomains = ["Example.NET."]\nhost = "mx2"\nport = 26\n'
        'rate = "5/second"\naccept = ["b@example.net"]\ngive_up_after = "1m"\n'
    )
    other, first = route_configs(load(tmp_path, text))
    assert first.primary.host == "mx1.example.org"
    assert (other.primary.host, other.primary.port) == ("mx2", 26)
    assert other.primary.domains == ("example.net",)
    assert other.primary.tls == "required"
    assert other.primary.command_timeout == first.primary.command_timeout
    assert (other.throttle.rate, first.throttle.rate) == ("5/second", "9/second")
    assert other.health.accept == ("b@example.net",)
    assert other.breaker.give_up_after != first.breaker.give_up_after
    table = make_route_table(load(tmp_path, text))
    assert table.domains == {
        "example.net": "mx2:26",
        "example.org": "mx1.example.org:25",
    }


def test_without_primary_there_are_only_the_routes(tmp_path: Path) -> None:
    """Then mail for every other domain is held."""
    config = load(tmp_path, '[[routes]]\ndomains = ["a.example"]\nhost = "mx"\n')
    assert len(route_configs(config)) == 1
    assert make_route_table(config).route_of("b.example") is None


def test_hosts_are_tiers_of_equal_servers(tmp_path: Path) -> None:
    """The first server gives the route its name."""
    hosts = '[primary]\nhosts = [["mx1", "mx2:26"], "[::1]:27"]\nport = 24\n'
    route = make_route(load(tmp_path, hosts))
    assert str(route) == "mx1:24"
    assert route.tiers == (
        (Host(host="mx1", port=24), Host(host="mx2", port=26)),
        (Host(host="::1", port=27),),
    )
    plain = make_route(load(tmp_path, '[primary]\nhosts = ["mx1"]\n'))
    assert (plain.host, plain.tiers) == ("mx1", ())


@pytest.mark.parametrize(
    ("text", "tls"),
    [
        ('hosts = [["a:465", "b:465"]]', "implicit"),
        ('hosts = ["a:465"]\ntls = "required"', "required"),
        ('hosts = "mx"\nport = 465', "implicit"),
    ],
)
def test_port_465_means_implicit_tls(tmp_path: Path, text: str, tls: str) -> None:
    """Wherever the port is written; a key of its own goes before it."""
    assert load(tmp_path, f"[primary]\n{text}\n").primary.tls == tls


def test_a_flag_names_the_only_route(tmp_path: Path) -> None:
    """``--to`` ignores the tables."""
    text = PRIMARY + '[[routes]]\ndomains = ["a.example"]\nhost = "mx"\n'
    config = load(tmp_path, text, primary={"host": "mx9"}, routes={})
    [only] = route_configs(config)
    assert only.primary.host == "mx9"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[routes]]\nhost = "mx"\n', "domains"),
        ('[[routes]]\ndomains = []\nhost = "mx"\n', "domains"),
        ('[[routes]]\ndomains = ["a.example"]\n', "names no host"),
        (
            PRIMARY + '[[routes]]\ndomains = ["example.org"]\nhost = "mx"\n',
            "two routes",
        ),
        (
            '[[routes]]\ndomains = ["a.example"]\nhost = "mx"\nkeep = "1h"\n',
            "keep",
        ),
        ('[[routes]]\ndomains = ["a.example"]\nhost = "mx"\nrate = "many"\n', "rate"),
        (
            '[[routes]]\ndomains = ["a.example"]\nhost = "mx"\nhosts = ["b"]\n',
            "not both",
        ),
        ('[primary]\nhosts = ["a b"]\n', "not a valid host"),
        (
            PRIMARY + '[[routes]]\ndomains = ["b.example"]\nhost = "MX1.example.org"\n',
            "the server",
        ),
        ("[primary]\nhosts = [[]]\n", "empty"),
        ('[primary]\nhosts = ["mx1", "m:99999"]\n', "toml:2: primary.hosts: 'm:99999'"),
        ('[primary]\nhost = "mx1:2525"\n', "set host = 'mx1', port = 2525"),
        ('[primary]\nhost = "127.0.0.1:26"\n', "set host = '127.0.0.1', port = 26"),
        ('[primary]\nhost = "[::1]:26"\n', "set host = '::1', port = 26"),
        ('[primary]\nhost = "a b"\n', "toml:2: primary.host: 'a b' is not a valid"),
        ('[primary]\ndomains = ["*"]\n', "toml:2: primary.domains: '\\*' is not a"),
        ('[primary]\ndomains = ["f\u00f6\u00f6 bar"]\n', "is not a domain"),
        (
            (
                '[primary]\nhost = "a"\ndomains = ["stra\u00dfe.example"]\n'
                '[[routes]]\ndomains = ["xn--strae-oqa.example"]\nhost = "b"\n'
            ),
            "two routes have the domain",
        ),
        ('[primary]\nhosts = ["a:465", "b"]\n', "port 465 has TLS from the start"),
        ('[primary]\ntoken_command = "t"\n', "token_command needs username"),
        (
            '[primary]\nusername = "u"\npassword = "p"\ntoken_command = "t"\n',
            "token_command or a password",
        ),
        (
            PRIMARY
            + '[[routes]]\ndomains = ["b.example"]\nhost = "b"\nrat = "1/second"\n',
            "toml:7: routes.rat: unknown key; legal here: accept, adaptive,",
        ),
        (
            '[[routes]]\ndomains = ["a.example"]\nhost = "a"\nbind = "eth0"\n',
            "a.example: bind: 'eth0' does not",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    tmp_path: Path, text: str, words: str
) -> None:
    """The error names the key or the domain."""
    with pytest.raises(UsageError, match=words):
        load(tmp_path, text)


def test_no_key_has_two_sections() -> None:
    """A route's table is flat, so a key means one thing."""
    sections = (PrimarySection, HealthSection, ThrottleSection, BreakerSection)
    keys = [key for section in sections for key in section.model_fields]
    assert len(keys) == len(set(keys))
    assert set(SECTION_OF) < set(keys)


SECRETS = (
    'tls_ca = "ca.pem"\nusername = "u"\npassword = "p"\ntls_pin = ["'
    + "00" * 32
    + '"]\n'
    'tls_cert = "c.pem"\ntls_key = "k.pem"\ntls_key_password_file = "w"\n'
)


def test_no_secret_of_the_primary_goes_to_another_server(tmp_path: Path) -> None:
    """Login, client certificate, pins and known-good recipients are its own."""
    text = (
        f'{PRIMARY}{SECRETS}[health]\naccept = ["a@example.org"]\nsender = "s@a.b"\n'
        '[[routes]]\ndomains = ["a.example"]\nhost = "mx2"\n'
        '[[routes]]\ndomains = ["b.example"]\nhost = "mx3"\nusername = "v"\n'
        'password_file = "w"\n'
    )
    config = load(tmp_path, text)
    bare, own, first = route_configs(config)
    for key in OWN_KEYS:
        section = "health" if key == "accept" else "primary"
        assert getattr(getattr(bare, section), key) == (
            type(getattr(bare, section)).model_fields[key].default
        )
    assert (bare.primary.tls, bare.health.sender) == ("opportunistic", "s@a.b")
    assert make_route(bare).login is None
    assert (own.primary.username, own.primary.password_file) == ("v", "w")
    assert not own.primary.password.get_secret_value()
    assert first.primary.tls_cert == "c.pem"


def test_a_route_with_half_a_login_is_refused(tmp_path: Path) -> None:
    """The password of [primary], from the file or the environment, is not its own."""
    text = (
        PRIMARY
        + 'username = "u"\npassword = "p"\n[[routes]]\ndomains = ["a.example"]\n'
    )
    with pytest.raises(UsageError, match=r"username needs password_file$"):
        load(tmp_path, text + 'host = "mx2"\nusername = "v"\n')


def test_dns_does_not_choose_who_gets_a_password(tmp_path: Path) -> None:
    """With hosts = "mx", a login needs DNSSEC."""
    text = '[primary]\nhosts = "mx"\nusername = "u"\npassword = "p"\n'
    with pytest.raises(UsageError, match="username needs named hosts"):
        load(tmp_path, text)
    assert load(tmp_path, text + 'tls = "dane"\n').primary.username == "u"


@pytest.mark.parametrize(
    ("to", "more", "username"),
    [
        ("mx9", {}, ""),
        ("MX1.example.org", {"port": 2525}, "u"),
        ("mx9", {"username": "v", "password_file": "w"}, "v"),
    ],
)
def test_a_flag_sends_the_login_to_no_other_server(
    tmp_path: Path, to: str, more: dict[str, object], username: str
) -> None:
    """Unless it is given with it; a login without a host is for any."""
    primary = {"host": to} | more
    config = load(tmp_path, PRIMARY + SECRETS, primary=primary, routes={})
    assert config.primary.username == username
    assert bool(config.primary.tls_cert) == bool(username)
    bare = '[primary]\nusername = "u"\npassword = "p"\n'
    config = load(tmp_path, bare, primary=primary, routes={})
    assert config.primary.username == (username or "u")
