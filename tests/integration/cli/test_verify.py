"""`drainer verify`: each rule, what was found, and the verdict."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from drainer.cli import app
from drainer.errors import DrainerError, UsageError
from drainer.policy.bounce.evidence import RULES
from tests.integration.bounce.evidence.test_dkim import MESSAGE, PUBLIC, sign
from tests.support.command.installed import Drainer, write_maildir
from tests.support.dns.zones import serving, zone_of

ZONE: Final = zone_of(
    {
        "test._domainkey.sender.example": [("TXT", PUBLIC)],
        "sender.example": [("A", "192.0.2.9"), ("TXT", "v=spf1 ip4:192.0.2.1 -all")],
        "open.example": [("A", "192.0.2.9"), ("TXT", "v=spf1 include:all.example")],
        "all.example": [("TXT", "v=spf1 +all")],
        "sender0.example": [("A", "192.0.2.9"), ("TXT", "v=spf1 ip4:192.0.2.1 -all")],
    }
)


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Give the settings that make a command ask a DNS server of ours."""
    with serving(ZONE) as servers:
        yield {
            "DRAINER_BOUNCE__DNS_SERVERS": '["127.0.0.1"]',
            "DRAINER_BOUNCE__DNS_PORT": str(servers.port),
        }


@pytest.fixture
def message(tmp_path: Path) -> Path:
    """Give a signed message as a file with LF line ends."""
    path = tmp_path / "mail.eml"
    path.write_bytes(sign().replace(b"\r\n", b"\n"))
    return path


def run(environment: dict[str, str], *arguments: object) -> Any:
    """Run the command in this process; raise what it raises."""
    given = ["verify", *map(str, arguments)]
    return CliRunner().invoke(app, given, env=environment, catch_exceptions=False)


def only(environment: dict[str, str], *arguments: object) -> dict[str, Any]:
    """Verify, and return the one object that is printed."""
    result = run(environment, "--json", *arguments)
    assert result.exit_code == 0
    assert result.stderr.startswith("without --recipient") is (
        "--recipient" not in arguments
    )
    return dict(json.loads(result.stdout))


def strengths(found: dict[str, Any]) -> dict[str, str]:
    """Return what each rule found, in a word."""
    return {row["rule"]: row["strength"] for row in found["rules"]}


def test_a_file_with_its_envelope(environment: dict[str, str], message: Path) -> None:
    """SPF by the client, DKIM by the content, both proven."""
    found = only(
        environment, message, "--sender", "bob@sender.example", "--client", "192.0.2.1",
        "--helo", "x.example", "--recipient", "anna@primary.example",
    )  # fmt: skip
    assert list(strengths(found)) == list(RULES)
    assert strengths(found)["V3"] == strengths(found)["V4"] == "proven"
    assert (found["verdict"], found["by"]) == ("proven", "V3")
    assert found["decision"]["answer"] == "send"


def test_a_forged_sender(environment: dict[str, str], message: Path) -> None:
    """Of a domain that lets everybody pass."""
    found = only(
        environment, message, "--sender", "eve@open.example", "--client", "198.51.100.7"
    )
    assert (found["verdict"], found["by"]) == ("not", None)
    assert "all proves nothing" in found["rules"][2]["found"]
    assert (found["decision"]["answer"], found["decision"]["rule"]) == ("no", "G13")


def test_for_a_person(environment: dict[str, str], message: Path) -> None:
    """A table, the verdict, and what the bounce rules would say."""
    top = b"From x Tue Nov 24 10:30:00 2026\nReturn-Path: <bob@sender.example>\n"
    message.write_bytes(top + message.read_bytes())
    result = run(environment, message, "--client", "192.0.2.1")
    assert result.exit_code == 0
    for rule in RULES:
        assert f"{rule} " in result.stdout
    assert "verdict: proven by V3" in result.stdout
    assert "G15" in result.stdout


def test_a_message_that_was_signed_long_ago(
    environment: dict[str, str], message: Path
) -> None:
    """Its signature counts as of its arrival."""
    early = only(
        environment, message, "--sender", "bob@sender.example",
        "--arrived", "2020-01-01T00:00:00Z",
    )  # fmt: skip
    assert "future" in early["rules"][3]["found"]


def test_the_null_sender(environment: dict[str, str], message: Path) -> None:
    """Is never told."""
    found = only(environment, message, "--sender", "<>")
    assert (found["verdict"], found["decision"]["rule"]) == ("not", "G2")


def test_a_message_of_the_ledger(
    environment: dict[str, str], tmp_path: Path, peer: Any
) -> None:
    """With the envelope that the spool recorded; the installed command."""
    write_maildir(tmp_path / "mail", 1)
    primary = peer(rcpt="550 5.1.1 User unknown")
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment |= environment
    drained = drainer.drain(f"maildir:{tmp_path / 'mail'}", primary.port)
    assert drained.code == 5
    (row,) = drainer.recipients()
    result = drainer.run("verify", "--json", row["id"])
    assert (result.code, result.stderr) == (0, "")
    (found,) = result.objects
    assert found["sender"] == "sender0@sender0.example"
    assert found["recipient"] == "user0@example.org"
    assert found["verdict"] == "not"  # a Maildir knows no client
    assert "no client address" in found["rules"][2]["found"]
    (tmp_path / "other.toml").write_text('[sources.gone]\nurl = "maildir:/absent"')
    config = ("--config", tmp_path / "other.toml")
    assert drainer.run("verify", *config, row["id"]).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent.eml", "--client", "192.0.2.1"), "there is no file"),
        (("FILE",), "does not name its sender"),
        (("FILE", "--sender", "b ob@x"), "bad local part"),
        (
            ("FILE", "--sender", "<>", "--client", "mx.example"),
            "is not a valid IP address",
        ),
        (("FILE", "--sender", "<>", "--arrived", "yesterday"), "is not a valid time"),
        (("4bX1Yz3Qk2z",), "ledger"),
    ],
)
def test_bad_usage_is_reported(
    environment: dict[str, str], message: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit status 2, and what to do."""
    given = [message if each == "FILE" else each for each in arguments]
    nowhere = {"DRAINER_LEDGER__URL": str(message.parent / "none.db")}
    with pytest.raises(DrainerError, match=words) as raised:
        run(environment | nowhere, *given)
    assert raised.value.exit_code == 2


def test_hostile_words_reach_no_terminal(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """A signature's domain, a sender's name."""
    path = tmp_path / "evil.eml"
    tag = b"DKIM-Signature: v=1; a=\x1b[2J; d=sender.example; s=x; h=from\r\n"
    path.write_bytes(tag + MESSAGE)
    for flags in ((), ("--json",)):
        result = run(environment, path, "--sender", "bob@sender.example", *flags)
        assert result.exit_code == 0
        assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TRUSTED_NETWORKS", '["192.0.2.1/24"]'),
        ("DNS_SERVERS", '["ns.example"]'),
        ("DNS_PORT", "0"),
        ("UNKNOWN", "x"),
    ],
)
def test_a_bad_setting_is_reported(
    environment: dict[str, str], message: Path, key: str, value: str
) -> None:
    """Before anything is asked."""
    given = environment | {f"DRAINER_BOUNCE__{key}": value}
    with pytest.raises(UsageError, match=f"(?i){key}"):
        run(given, message, "--sender", "a@sender.example")


def test_a_trusted_network(environment: dict[str, str], message: Path) -> None:
    """[bounce] trusted_networks, and relay_domains for the domains that we serve."""
    given = environment | {
        "DRAINER_BOUNCE__TRUSTED_NETWORKS": '["198.51.100.0/24"]',
        "DRAINER_BOUNCE__RELAY_DOMAINS": '["Sender.Example."]',
    }
    flags = ("--sender", "carl@sender.example", "--client")
    inside = only(given, message, *flags, "198.51.100.9")
    assert (inside["verdict"], inside["by"]) == ("proven", "V2")
    outside = only(given, message, *flags, "192.0.2.1")
    assert (outside["verdict"], outside["decision"]["rule"]) == ("proven", "G11")
