"""Routes from a real Exim's configuration."""

import os
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from drainer.config.build.server_routes import exim_toml
from drainer.errors import SourceError
from tests.support.command.installed import Drainer
from tests.support.mta.others import EximPrimary
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(
    EximPrimary.missing_reason() is not None, reason=str(EximPrimary.missing_reason())
)

RELAYED = "domainlist relay_to_domains"
BY_MX = "begin routers\nr:\n driver = dnslookup\n transport = remote\n"
TRANSPORTS = """
begin transports
remote:
  driver = smtp
  port = 587
mda:
  driver = smtp
  protocol = lmtp
local:
  driver = appendfile
  file = /dev/null
  user = root
"""


class Backup:
    """A backup with Exim."""

    def __init__(self, base: Path) -> None:
        """Write a command for PATH that starts Exim in its sandbox."""
        exim = EximPrimary(base, [])
        libraries = exim.environment["LD_LIBRARY_PATH"]
        command = shlex.join(exim._sandboxed(str(ROOT / EximPrimary.program)))
        text = f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {command} "$@"\n'
        program = base / "bin" / "exim4"
        program.parent.mkdir()
        program.write_text(text, "utf-8")
        program.chmod(0o755)
        self.base = base
        self.file = base / "exim.conf"

    def write(self, text: str, transports: str = TRANSPORTS) -> Path:
        """Write its configuration."""
        main = f"spool_directory = {self.base}/spool\nprimary_hostname = mx2.example\n"
        self.file.write_text(f"{main}{text}{transports}", "utf-8")
        return self.file

    def toml(self, text: str, **more: str) -> str:
        """Return what `drainer init` writes for a configuration."""
        return exim_toml(str(self.write(text, **more)))

    def routes(self, text: str, **more: str) -> list[dict[str, Any]]:
        """Return the routes of a configuration."""
        return list(tomllib.loads(self.toml(text, **more))["routes"])


@pytest.fixture
def backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backup:
    """Put Exim on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Backup(tmp_path)


def test_init_writes_the_routes_of_manualroute(backup: Backup) -> None:
    """Exim itself says which router has a domain; the rest goes by MX."""
    (backup.base / "more").write_text("# relayed\ne.example: yes\nf.example\n")
    (backup.base / "hubs").write_text("looked.example: h5::26\n")
    text = f"""
HUB = hub.example.net
domainlist local_domains = @ : localhost
domainlist relay_to_domains = a.example : *.sub.example : b.example : \\
    c.example : d.example : !no.sub.example : lsearch;{backup.base}/more
begin routers
by_hand:
  driver = manualroute
  domains = ! +local_domains : ! d.example
  transport = remote
  route_list = a.example HUB::2525:h2.example.net ; \\
    *.sub.example "h1 : h2" randomize ; b.example mda.example mda ; \\
    extra.example mail.$domain ; lsearch;;{backup.base}/hubs "$value : h9"
others:
  driver = dnslookup
  domains = ! +local_domains
  transport = remote
users:
  driver = accept
  transport = local
"""
    assert backup.routes(text) == [
        {
            "domains": ["a.example"],
            "hosts": ["hub.example.net:2525", "h2.example.net:587"],
        },
        {"domains": [".sub.example"], "hosts": [["h1:587", "h2:587"]]},
        {
            "domains": ["b.example"],
            "host": "mda.example",
            "port": 24,
            "protocol": "lmtp",
        },
        {"domains": ["extra.example"], "host": "mail.extra.example", "port": 587},
        {"domains": ["looked.example"], "hosts": ["h5:26", "h9:587"]},
        {
            "domains": ["c.example", "d.example", "e.example", "f.example"],
            "hosts": "mx",
        },
    ]
    made = backup.base / "routes.toml"
    drainer = Drainer(backup.base / "ledger.db")
    assert drainer.run("init", made, "--from-exim", backup.file).code == 0
    text = made.read_text("utf-8")
    assert 'helo = "mx2.example"' in text
    assert f'url = "exim:{backup.base}/spool"' in text
    assert "REVIEW" not in text
    shown = drainer.run("config", "--config", made, "--json")
    assert shown.code == 0, shown.stderr


def test_a_transport_may_name_the_server_itself(backup: Backup) -> None:
    """LMTP to a socket, or hosts of the smtp transport."""
    text = """
domainlist relay_to_domains = a.example : b.example
begin routers
boxes:
  driver = accept
  domains = a.example
  transport = boxes
hub:
  driver = accept
  transport = hub
begin transports
boxes:
  driver = lmtp
  socket = /run/dovecot/lmtp
hub:
  driver = smtp
  hosts = hub.example : hub2.example
"""
    assert backup.routes(text, transports="") == [
        {"domains": ["a.example"], "host": "unix:/run/dovecot/lmtp"},
        {"domains": ["b.example"], "hosts": ["hub.example:25", "hub2.example:25"]},
    ]


def test_route_data_is_looked_up_for_each_domain(backup: Backup) -> None:
    """As in Debian's configuration: a file of hubbed hosts, which may be absent."""
    text = f"""
domainlist relay_to_domains = a.example : b.example
begin routers
hubbed:
  driver = manualroute
  domains = "${{if exists{{{backup.base}/hubs}}\
    {{partial-lsearch;{backup.base}/hubs}}fail}}"
  route_data = ${{lookup{{$domain}}partial-lsearch{{{backup.base}/hubs}}}}
  transport = remote
others:
  driver = dnslookup
  domains = +relay_to_domains
  transport = remote
"""
    assert backup.routes(text) == [
        {"domains": ["a.example", "b.example"], "hosts": "mx"}
    ]
    (backup.base / "hubs").write_text('a.example: h1 byname\n"*.c.example": h3::26\n')
    assert backup.routes(text) == [
        {"domains": ["a.example"], "host": "h1", "port": 587},
        {"domains": [".c.example", "c.example"], "host": "h3", "port": 26},
        {"domains": ["b.example"], "hosts": "mx"},
    ]


@pytest.mark.parametrize(
    ("listed", "router", "words"),
    [
        ("^a.*\\\\.example\\$ : a.example", "driver = dnslookup", "^a.*"),
        ("^[a-z]{1,3}\\\\.example\\$ : a.example", "driver = dnslookup", "^[a-z]{1,3}"),
        ("a.example", "driver = accept", "router r (driver accept)"),
        ("a.example", "driver = dnslookup\n domains = b.example", "no router of Exim"),
        (
            "a.example",
            "driver = manualroute\n route_data = ${lc:$local_part}.example",
            "by what is in the message",
        ),
        (
            "a.example",
            "driver = manualroute\n route_list = * h1\n condition = ${if eq{1}{1}}",
            "router r of Exim has condition",
        ),
    ],
)
def test_what_exim_decides_otherwise_is_marked(
    backup: Backup, listed: str, router: str, words: str
) -> None:
    """With a comment that a person looks for."""
    found = backup.toml(
        f"{RELAYED} = {listed}\nbegin routers\nr:\n transport = remote\n {router}\n"
    )
    marks = [line for line in found.splitlines() if "REVIEW" in line]
    assert any(words in line for line in marks), found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nosuch = 1\n", "nosuch"),
        (f"{RELAYED} = lsearch;/absent : a.example\n{BY_MX}", "/absent"),
    ],
)
def test_what_exim_cannot_evaluate_is_reported_in_its_words(
    backup: Backup, text: str, words: str
) -> None:
    """Then drainer cannot know the routes, and writes nothing."""
    with pytest.raises(SourceError, match=words):
        backup.toml(text)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[a-b]{1,3}\\.example\$",
        r"\N^[a-b]{1}\.example$\N",
        r'"^\\\\w{1,3}[.]example\\$"',
    ],
)
def test_a_pattern_with_braces_is_asked_from_exim(backup: Backup, pattern: str) -> None:
    """Which known domains it has; a person must look for others."""
    text = f"""
domainlist relay_to_domains = a.example : b.example : c.example.net
begin routers
by_hand:
  driver = manualroute
  domains = {pattern}
  transport = remote
  route_list = * h1
others:
  driver = dnslookup
  transport = remote
"""
    assert backup.routes(text) == [
        {"domains": ["a.example", "b.example"], "host": "h1", "port": 587},
        {"domains": ["c.example.net"], "hosts": "mx"},
    ]
    assert "REVIEW: drainer cannot list the domains of ^" in backup.toml(text)


def test_a_server_of_two_routers_is_one_route_or_marked(backup: Backup) -> None:
    """What is written can be read; a person makes one of servers that overlap."""
    text = """
domainlist relay_to_domains = a.example : b.example : c.example
begin routers
some:
  driver = manualroute
  domains = a.example
  condition = yes
  transport = remote
  route_list = * h1
others:
  driver = manualroute
  transport = remote
  route_list = b.example h1 ; c.example h1:h2
"""
    written = backup.toml(text)
    first, second = tomllib.loads(written)["routes"]
    assert first == {"domains": ["a.example", "b.example"], "host": "h1", "port": 587}
    assert second["domains"] == ["c.example"]
    assert "# REVIEW: the router some of Exim has condition.\n[[routes]]" in written
    assert "# REVIEW: another route has the server h1:587, too" in written
