"""The digest: sums of a real drain, and the mail that brings them."""

import email
import email.policy
from collections.abc import Callable
from pathlib import Path

import pytest

from drainer.ledger.query.digest import MAX_WORDS, fingerprint
from tests.support.mta.roles import Primary
from tests.support.scenarios.backup import Backup
from tests.support.scenarios.primaries import OK, UNKNOWN
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Drop, Script, View

StartPeer = Callable[..., PeerThread]
POSTMASTER = "postmaster@example.org"
HOSTILE = "550 5.7.1 \x1b[31m\u202e[red]spam from secret@private.example at 192.0.2.7"


def answer(view: View) -> str:
    """Refuse who is gone, call some spam, and take the rest later or at once."""
    name = view.path.partition("@")[0].rstrip("0123456789")
    replies = {
        "gone": UNKNOWN.format(view.path),
        "spam": HOSTILE,
        "busy": "450 4.2.1 x",
    }
    return replies.get(name, OK)


@pytest.fixture
def drained(
    tmp_path: Path, peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> tuple[Backup, PeerThread]:
    """Give a backup after a drain: 4 delivered, 3 + 1 refused, 1 deferred, 1 held."""
    monkeypatch.chdir(tmp_path)
    primary = peer(Script(rcpt=answer))
    backup = Backup(tmp_path, port=primary.port)
    backup.configure(
        bounce={
            "confirm_after": "1h",
            "send": False,
            "via": f"127.0.0.1:{primary.port}",
        }
    )
    backup.know("known@example.org")
    for n in range(4):
        backup.add(f"user{n}@example.org", sender=f"s{n}@d{n}.example")
    for n in range(3):
        backup.add(f"gone{n}@example.org", sender=f"secret{n}@Bulk.example")
    backup.add("spam@example.org", sender="")
    backup.add("busy@example.org")
    backup.add("else@example.net")
    assert backup.drain().code == 5
    return backup, primary


def test_the_digest_counts_states_reasons_domains_and_refusals(
    drained: tuple[Backup, PeerThread],
) -> None:
    """The sums are those of the ledger; addresses are reduced to domains."""
    backup, _ = drained
    result = backup.run("digest", "--json")
    facts = result.json
    assert facts["balanced"] is True
    assert facts["spooled"] == 10
    counted = {state: n for state, n in facts["states"].items() if n}
    assert counted == {"delivered": 4, "bounce-pending": 4, "deferred": 1, "held": 1}
    reasons = {each["reason"]: each["recipients"] for each in facts["reasons"]}
    assert reasons["the mailbox does not exist"] == 3
    assert reasons["the domain is not in [primary] domains"] == 1
    assert sum(reasons.values()) == 6
    assert facts["sender_domains"] == [
        {"domain": "bulk.example", "recipients": 3},
        {"domain": "<>", "recipients": 1},
    ]
    assert facts["refusals"][0] == {
        "words": "550 5.1.1 <@>: recipient address rejected: user unknown in virtual"
        " mailbox table",
        "recipients": 3,
    }
    assert facts["reports"] == {"queued": 0, "sent": 0, "failed": 0}
    for hidden in ("secret", "gone0", "private", "192.0.2.7"):
        assert hidden not in result.stdout


def test_since_leaves_out_what_is_older(drained: tuple[Backup, PeerThread]) -> None:
    """How it stands is told all the same."""
    backup, _ = drained
    facts = backup.run("digest", "--since", "1ms", "--json").json
    assert facts["refusals"] == facts["sender_domains"] == []
    assert facts["states"]["bounce-pending"] == 4
    assert {each["new"] for each in facts["reasons"]} == {0}
    assert backup.run("digest", "--since", "soon").code == 2


def test_the_text_is_for_a_person_and_harmless(
    drained: tuple[Backup, PeerThread],
) -> None:
    """Whatever the primary said, no escape reaches the terminal."""
    backup, _ = drained
    text = backup.run("digest").stdout
    assert "      3 bounce-pending: the mailbox does not exist (3 new)\n" in text
    assert "      3 bulk.example\n" in text
    assert "10 recipients, all accounted for" in text
    assert "550 5.7.1 \\x1b[#" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert max(map(len, text.splitlines())) <= 210


def test_an_open_breaker_is_in_it(tmp_path: Path, peer: StartPeer) -> None:
    """With the cause, and the reply without names."""
    backup = Backup(
        tmp_path, port=peer(Script(banner="554 5.7.1 Go away 192.0.2.9")).port
    )
    backup.know("known@example.org")
    for n in range(4):
        backup.add(f"user{n}@example.org", sender=f"s@d{n}.example")
    assert backup.drain().code == 4
    (breaker,) = backup.run("digest", "--json").json["breakers"]
    assert breaker["state"] == "open"
    assert breaker["reply"] == "banner: 554 5.7.1 go away [ip]"
    text = backup.run("digest").stdout
    assert (
        f"Circuit breakers that are not closed:\n{breaker['scope']} open since" in text
    )


# ---- mailed


def test_it_is_mailed_as_a_report_of_a_machine(
    drained: tuple[Backup, PeerThread],
) -> None:
    """Null sender, Auto-Submitted, and the text that would be printed."""
    backup, primary = drained
    result = backup.run("digest", "--mail", POSTMASTER)
    assert result.code == 0
    assert result.stdout == ""
    assert f"mailed to {POSTMASTER}" in result.stderr
    message = primary.accepted[-1]
    assert message.reverse_path == ""
    assert message.forward_paths == [POSTMASTER]
    content = message.content or b""
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert mail["From"] == "Mail Delivery System <MAILER-DAEMON@backup.example>"
    assert mail["To"] == POSTMASTER
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"]
    assert mail["Date"]
    assert "3 bounce-pending: the mailbox does not exist" in mail.get_content()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert content.isascii()


@pytest.mark.parametrize(
    "script",
    [
        Script(mail="550 5.7.1 no"),
        Script(rcpt="450 4.2.1 later"),
        Script(data="554 5.5.1 no"),
        Script(dot="451 4.3.0 full"),
        Script(dot=Drop()),
        Script(banner="554 5.3.2 no service"),
    ],
    ids=["mail", "rcpt", "data", "dot", "lost", "banner"],
)
def test_what_could_not_be_mailed_is_printed(
    drained: tuple[Backup, PeerThread], script: Script
) -> None:
    """Exit 3, the server's words, and the digest on standard output."""
    backup, primary = drained
    primary.script = script
    before = len(primary.accepted)
    result = backup.run("digest", "--mail", POSTMASTER)
    assert result.code == 3
    assert "did not accept the digest" in result.stderr
    assert "[bounce] via" in result.stderr
    assert "all accounted for" in result.stdout
    assert len(primary.accepted) == before


def test_only_a_mailbox_gets_it(drained: tuple[Backup, PeerThread]) -> None:
    """Nothing else reaches a command or a header."""
    backup, primary = drained
    before = len(primary.commands)
    for bad in ("nobody", "a@b\r\nRCPT TO:<x@y>", "a b@c", "<>"):
        assert backup.run("digest", "--mail", bad).code == 2
    backup.configure(bounce={"via": "no host!"})
    assert backup.run("digest", "--mail", POSTMASTER).code == 2
    assert len(primary.commands) == before


def test_a_real_postfix_takes_it(
    drained: tuple[Backup, PeerThread], primary_postfix: Callable[..., Primary]
) -> None:
    """One that insists on proper MIME and line ends."""
    backup, _ = drained
    postfix = primary_postfix(parameters={"strict_mime_encoding_domain": "yes"})
    backup.configure(bounce={"via": f"127.0.0.1:{postfix.port}"})
    result = backup.run("digest", "--mail", POSTMASTER)
    assert result.code == 0, result.stderr
    (found,) = postfix.wait_received(1)
    assert found.reverse_path == b""
    assert b"Auto-Submitted: auto-generated" in found.content


# ---- pure


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("550 5.1.1 <a@b.example>: unknown", "550 5.1.1 <@>: unknown"),
        ("450 Queued as 4BQ8sLx1", "450 queued as #"),
        ("banner: 554 5.7.1 x 192.0.2.7", "banner: 554 5.7.1 x [ip]"),
        ("no reply at all", "no reply at all"),
        ("5501 is no code", "# is no code"),
        ("", ""),
        ("552 " + "x" * 5000, ("552 " + "x" * 5000)[:MAX_WORDS]),
    ],
)
def test_a_fingerprint_keeps_the_code_and_masks_the_rest(
    reply: str, expected: str
) -> None:
    """What names a person, a host or an id differs from message to message."""
    assert fingerprint(reply) == expected
