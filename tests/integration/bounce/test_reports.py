"""Reports to senders: once, to whom is proven, whatever the relay does."""

import shutil
import signal
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from drainer.bounce.evidence.dns import Resolver
from drainer.bounce.evidence.mx import relays_of
from tests.integration.bounce.evidence.test_dkim import KEY
from tests.support.dns.zones import SERVFAIL, serving, zone_of
from tests.support.mta.postfix import wait_until
from tests.support.mta.roles import Primary
from tests.support.scenarios.bounces import (
    BOB,
    Refusing,
    nobody_unknown,
    parsed,
    refusing,
)
from tests.support.scenarios.primaries import OK, UNKNOWN
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Drop,
    Script,
    Stall,
    Step,
    View,
    in_turn,
)
from tests.support.tls.certificates import self_signed

StartPeer = Callable[..., PeerThread]


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> Iterator[Refusing]:
    """Give a backup, its primary, and a relay that takes reports."""
    monkeypatch.chdir(tmp_path)
    with refusing(tmp_path, peer(), peer(Script(rcpt=nobody_unknown))) as made:
        yield made


def test_a_proven_sender_gets_one_report(bench: Refusing) -> None:
    """From <>, with NOTIFY=NEVER, about both recipients; the copy goes after it."""
    name = bench.refuse("nobody@example.org", "nobody2@example.org")
    result = bench.confirm()
    assert result.code == 0, bench.why(name)
    assert set(bench.states().values()) == {"bounced"}
    (report,) = bench.reports
    assert report.reverse_path == ""
    assert report.forward_paths == [BOB]
    assert report.recipients[0].parameters == {"NOTIFY": "NEVER"}
    mail = parsed(report)
    assert mail["In-Reply-To"] == "<1@test.example>"
    assert mail.get_content_type() == "multipart/report"
    assert report.content is not None
    assert b"nobody2@example.org" in report.content
    sent = bench.sendings(name)
    assert [d["rule"] for d in sent] == ["report-sent"] * 2
    assert sent[0]["evidence"]["report"] == mail["Message-ID"]
    assert list(Path(f"{bench.ledger}.quarantine").iterdir()) == []
    assert bench.drain().code == 0
    assert len(bench.reports) == 1
    bench.assert_balanced()


def test_with_verp_each_recipient_has_a_report_to_a_sender_of_its_own(
    bench: Refusing,
) -> None:
    """The address that the primary was told: the list knows whom it is about."""
    paths = ("nobody1@example.org", "nobody2@example.org")
    name = bench.refuse(*paths, sender="list@sender.example", verp=True)
    assert bench.confirm().code == 0, bench.why(name)
    told = {r.forward_paths[0]: r for r in bench.reports}
    assert set(told) == {
        "list+nobody1=example.org@sender.example",
        "list+nobody2=example.org@sender.example",
    }
    asked = {m.reverse_path for m in bench.primary.transactions}
    assert set(told) <= asked
    for path, (sender, report) in zip(paths, sorted(told.items()), strict=True):
        assert parsed(report)["To"] == f"<{sender}>"
        assert report.content is not None
        assert report.content.count(b"Final-Recipient") == 1
        assert f"Final-Recipient: rfc822; {path}".encode() in report.content


def run_due(bench: Refusing) -> None:
    """Send what is due, by the command for that."""
    result = bench.run("bounces", "run", "--json", "--no-check")
    assert result.code in (0, 5), result


@pytest.mark.parametrize(
    ("script", "rules"),
    [
        pytest.param(
            Script(rcpt=in_turn("450 4.2.1 busy", "250 2.1.5 ok")),
            ["report-deferred", "report-sent"],
            id="a temporary refusal is tried again",
        ),
        pytest.param(
            Script(dot=in_turn(Drop(), "250 2.0.0 ok")),
            ["report-deferred", "report-sent"],
            id="a lost reply to the dot is tried again",
        ),
        pytest.param(
            Script(banner=in_turn("554 5.3.2 not now", "220 relay.example ESMTP")),
            ["report-deferred", "report-sent"],
            id="a relay that lets nobody in is tried again",
        ),
        pytest.param(
            Script(rcpt="550 5.1.1 no such user"),
            ["report-failed"],
            id="a refusal for good is the end of it",
        ),
        pytest.param(
            Script(extensions=("PIPELINING",)),
            ["report-sent"],
            id="a relay without DSN and 8BITMIME",
        ),
    ],
)
def test_whatever_the_relay_does(
    bench: Refusing, script: Script, rules: list[str]
) -> None:
    """One report at most is taken, always with the same Message-ID and content."""
    bench.relay.script = script
    name = bench.refuse()
    assert bench.confirm().code == 0, bench.why(name)
    for _ in range(2):
        run_due(bench)
    sent = bench.sendings(name)
    assert [d["rule"] for d in sent] == rules
    assert len({d["evidence"]["report"] for d in sent}) == 1
    assert len(bench.reports) == rules.count("report-sent")
    assert len({message.content for message in bench.relay.messages}) <= 1
    (row,) = bench.rows()
    assert row["report"]["state"] == rules[-1].removeprefix("report-")
    assert bench.states() == {"nobody@example.org": "bounced"}


def takes_anybody_but_nobody(view: View) -> Step:
    """Answer RCPT as a primary with a catch-all, which refuses one mailbox."""
    unknown = view.path.startswith("nobody")
    return UNKNOWN.format(view.path) if unknown else OK


def test_what_an_earlier_drain_delivered_confirms_where_no_canary_can(
    bench: Refusing,
) -> None:
    """A primary that takes any address; mail of others came in after the refusal."""
    bench.primary.script = Script(rcpt=takes_anybody_but_nobody)
    bench.configure(primary={"connections": 1})
    alone = bench.refuse()
    assert bench.drain().code == 5
    assert bench.drain().code == 5  # nobody else was welcome since: it rests on
    assert bench.states() == {"nobody@example.org": "bounce-pending"}
    assert "approve" in bench.why(alone)["next"]
    bench.add("user@example.org", sender="amy@other.example")
    bench.configure(breaker={"brake_least": 0, "brake_share": 0})
    assert bench.drain().code == 5  # it is not tried itself
    bench.configure(breaker={"brake_least": 10})
    # It is due again after as long as it has rested so far.
    wait_until(lambda: bench.drain().code == 0, timeout=20, what="its confirmation")
    assert bench.states()["nobody@example.org"] == "bounced"
    assert len(bench.reports) == 1


def test_a_spool_that_is_gone_keeps_no_report_back(bench: Refusing) -> None:
    """Unmounted, say: the copy of the confirming attempt will do."""
    bench.primary.script = Script(rcpt=takes_anybody_but_nobody)
    name = bench.refuse()
    for _ in range(2):
        assert bench.drain().code == 5
    shutil.rmtree(bench.spool)
    approved = bench.run("bounces", "approve", name, "--reason", "so it is", "--json")
    assert approved.json["bounced"] == 1, approved
    run_due(bench)
    assert [report.forward_paths for report in bench.reports] == [[BOB]]
    assert bench.sendings(name)[-1]["rule"] == "report-sent"


def test_who_is_not_proven_is_never_told(bench: Refusing) -> None:
    """The null sender, a forgery, a report itself: quarantined, each with its copy."""
    bench.refuse("nobody1@example.org", sender="")
    bench.add("nobody2@example.org", sender=BOB)  # no client is known
    bench.refuse(
        "nobody3@example.org",
        text=b"Content-Type: multipart/report; boundary=x\nSubject: a report\n\n",
    )
    assert bench.confirm().code == 0
    assert set(bench.states().values()) == {"quarantined"}
    assert bench.relay.commands == []
    assert len(list(Path(f"{bench.ledger}.quarantine").glob("*.eml"))) == 3


def test_a_report_waits_for_other_recipients_of_its_message(bench: Refusing) -> None:
    """One is final, another still rests: nothing leaves before ``settle``."""
    bench.configure(bounce={"settle": "1h", "confirm_after": "1h"})
    bench.refuse("nobody1@example.org", "nobody2@example.org")
    assert bench.drain().code == 5
    approve = ("bounces", "approve", "--recipient")
    done = bench.run(*approve, "nobody1@", "--reason", "gone", "--json")
    assert done.json["bounced"] == 1, done
    run_due(bench)
    assert bench.reports == []
    assert bench.run(*approve, "nobody2@", "--reason", "gone").code == 0
    run_due(bench)
    (report,) = bench.reports
    assert report.content is not None
    for path in (b"nobody1@example.org", b"nobody2@example.org"):
        assert b"Final-Recipient: rfc822; " + path in report.content
    bench.assert_balanced()


def test_a_drain_killed_while_it_sends(bench: Refusing) -> None:
    """The relay had the whole of it: the next run repeats it under the same name."""
    bench.relay.script = Script(dot=Stall())
    name = bench.refuse()
    assert bench.drain().code == 5
    process = bench.start(
        "drain", f"postfix:{bench.spool}", "--json", "--no-check", cwd=bench.root
    )
    bench.relay.wait(lambda: len(bench.relay.messages) == 1, timeout=30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    bench.relay.script = Script()
    run_due(bench)
    assert [d["rule"] for d in bench.sendings(name)] == ["report-sent"]
    first, second = bench.relay.messages
    assert first.content == second.content
    run_due(bench)
    assert len(bench.relay.messages) == 2


def test_what_was_queued_when_a_drain_died_is_sent_once(bench: Refusing) -> None:
    """The relay was away from the transaction on: nothing is lost, nothing doubled."""
    bench.relay.stop()
    name = bench.refuse()
    assert bench.confirm().code == 0
    assert [d["rule"] for d in bench.sendings(name)] == ["report-deferred"]
    bench.relay.start()
    for _ in range(3):
        run_due(bench)
    assert len(bench.reports) == 1


# ---- the operator's part


def test_the_list_says_who_would_be_told(bench: Refusing) -> None:
    """The bounce decision now, by the evidence that the drain gathered at its end."""
    bench.configure(bounce={"confirm_after": "1h"})
    bench.refuse("nobody1@example.org")
    bench.add("nobody2@example.org", sender="eve@sender.example")
    assert bench.drain().code == 5
    rows = {row["forward_path"]: row for row in bench.rows()}
    assert rows["nobody1@example.org"]["decision"]["answer"] == "send"
    assert rows["nobody2@example.org"]["decision"]["answer"] == "no"
    assert all(row["gathered"] and row["due"] for row in rows.values())
    table = bench.run("bounces", "list").stdout
    assert "send by G15" in table
    assert (
        "V3" in bench.run("bounces", "show", rows["nobody1@example.org"]["id"]).stdout
    )


def test_approving_asks_the_breaker_and_cancelling_tells_nobody(
    bench: Refusing,
) -> None:
    """Proven: bounced. Not proven, or cancelled: quarantined with a copy."""
    bench.configure(bounce={"confirm_after": "1h"})
    bench.refuse("nobody1@example.org")
    bench.add("nobody2@example.org", sender="eve@sender.example")
    bench.refuse("nobody3@example.org")
    assert bench.drain().code == 5
    assert bench.run("bounces", "approve").code == 2
    dry = ("bounces", "approve", "--recipient", "nobody", "--dry-run", "--json")
    assert bench.run(*dry).json["bounced"] == 2
    assert set(bench.states().values()) == {"bounce-pending"}
    bench.run("bounces", "cancel", "--recipient", "nobody3@", "--reason", "no")
    bench.run("bounces", "approve", "--recipient", "nobody", "--reason", "gone")
    assert bench.states() == {
        "nobody1@example.org": "bounced",
        "nobody2@example.org": "quarantined",
        "nobody3@example.org": "quarantined",
    }
    assert len(list(Path(f"{bench.ledger}.quarantine").glob("*.eml"))) == 3
    run_due(bench)
    (report,) = bench.reports
    assert report.forward_paths == [BOB]
    assert len(list(Path(f"{bench.ledger}.quarantine").glob("*.eml"))) == 2
    bench.assert_balanced()


# ---- a real relay


def test_a_real_postfix_takes_a_signed_report(
    bench: Refusing, primary_postfix: Callable[..., Primary]
) -> None:
    """And delivers it to the sender, octet for octet, as if it came from nobody."""
    relay = primary_postfix(parameters={"virtual_mailbox_domains": "sender.example"})
    key = bench.root / "dkim.key"
    key.write_bytes(KEY)
    bench.configure(
        bounce={
            "via": f"127.0.0.1:{relay.port}",
            "dkim_key_file": str(key),
            "dkim_selector": "reports",
        }
    )
    name = bench.refuse()
    assert bench.confirm().code == 0, bench.why(name)
    assert [d["rule"] for d in bench.sendings(name)] == ["report-sent"]
    (found,) = relay.wait_received(1)
    assert (found.reverse_path, found.recipient) == (b"", BOB.encode())
    mail = message_from_bytes(found.content)
    assert "s=reports" in mail["DKIM-Signature"]
    assert mail["From"] == "Mail Delivery System <MAILER-DAEMON@backup.example>"
    assert b"nobody@example.org" in found.content


def test_a_smarthost_gets_the_login_under_tls(
    bench: Refusing,
    peer: StartPeer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nobody else sees the password: not the ledger, not who runs the command."""
    password = bench.root / "password"
    password.write_text("open sesame\n")
    certificate = self_signed(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    relay = peer(
        tls=certificate.server_context(), extensions=(*EXTENSIONS, "AUTH PLAIN")
    )
    bench.configure(
        bounce={
            "via": f"localhost:{relay.port}",
            "via_username": "me",
            "via_password_file": str(password),
        }
    )
    name = bench.refuse()
    result = bench.confirm()
    assert [d["rule"] for d in bench.sendings(name)] == ["report-sent"], result.stderr
    commands = [each.line.split()[0] for each in relay.commands]
    begun = [commands.index(verb) for verb in (b"STARTTLS", b"AUTH", b"MAIL")]
    assert begun == sorted(begun)
    assert len(relay.accepted) == 1
    assert b"sesame" not in bench.ledger.read_bytes()
    assert "sesame" not in result.stdout + result.stderr + str(bench.why(name))


# ---- the servers of a sender


OWN = frozenset(("backup.example",))


@pytest.mark.parametrize(
    ("domain", "targets", "problem"),
    [
        ("one.example", [("mx1.example", "192.0.2.1")], ""),
        ("bare.example", [("bare.example", "192.0.2.9")], ""),
        ("null.example", [], "null MX"),
        ("private.example", [], "private"),
        ("ours.example", [("mx1.example", "192.0.2.1")], ""),
        ("only-ours.example", [], "ours"),
        ("absent.example", [], "does not exist"),
        ("sick.example", [], "NoNameservers"),
        ("a..b", [], "not a DNS name"),
    ],
)
def test_where_mail_for_a_sender_goes(
    domain: str, targets: list[tuple[str, str]], problem: str
) -> None:
    """By preference; never to private addresses, to ourselves or past ourselves."""
    mx = {"mx1": "192.0.2.1", "inside": "10.0.0.1", "backup": "192.0.2.7"}
    zone = zone_of(
        {f"{name}.example": [("A", address)] for name, address in mx.items()}
        | {
            "one.example": [("MX", "20 inside.example"), ("MX", "10 mx1.example")],
            "bare.example": [("A", "192.0.2.9")],
            "null.example": [("MX", "0 .")],
            "private.example": [("MX", "0 inside.example")],
            "ours.example": [
                ("MX", "5 mx1.example"),
                ("MX", "10 backup.example"),
                ("MX", "20 bare.example"),
            ],
            "only-ours.example": [("MX", "10 backup.example")],
            "sick.example": [(SERVFAIL, "")],
        }
    )
    with serving(zone) as servers:
        found = relays_of(Resolver(servers), domain, OWN)
    assert list(found.targets) == targets
    assert problem in found.problem
    assert found.later == (domain == "sick.example")
