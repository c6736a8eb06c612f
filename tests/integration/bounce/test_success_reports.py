"""Reports of a delivery, where the primary does not report it itself."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.scenarios.bounces import BOB, CLIENT, Refusing, parsed, refusing
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import EXTENSIONS, Script
from tests.support.spools.postfix_files import record

StartPeer = Callable[..., PeerThread]
NO_DSN = tuple(each for each in EXTENSIONS if each != "DSN")
ANNA = "anna@example.org"


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> Iterator[Refusing]:
    """Give a backup, a primary that lacks DSN, and a relay that takes reports."""
    monkeypatch.chdir(tmp_path)
    with refusing(tmp_path, peer(), peer(Script(extensions=NO_DSN))) as made:
        yield made


def wanting(bench: Refusing, notify: str, *, sender: str = BOB, **options: str) -> str:
    """Put a message with a NOTIFY parameter into the spool."""
    flags = {"NEVER": 1, "SUCCESS": 2, "FAILURE": 4, "DELAY": 8}
    number = sum(flags[word] for word in notify.split(",") if word)
    flagged = (record("A", f"notify_flags={number}"),) if number else ()
    parts = (*CLIENT, *flagged)
    text = options.get("text", "").encode() + b"Subject: hello\n\nbody\n"
    return bench.add(ANNA, sender=sender, envelope=parts, text=text)


def test_who_asked_for_it_is_told_that_the_mail_was_relayed(bench: Refusing) -> None:
    """The primary cannot: one report with the header alone; then no copy is left."""
    name = wanting(bench, "SUCCESS")
    assert bench.drain().code == 0, bench.why(name)
    (report,) = bench.reports
    mail = parsed(report)
    assert (report.reverse_path, report.forward_paths) == ("", [BOB])
    assert mail["Subject"] == "Your message was passed on"
    assert report.content is not None
    assert b"Action: relayed" in report.content
    assert b"Status: 2." in report.content
    assert b"body\r\n" not in report.content.partition(b"text/rfc822-headers")[2]
    assert [d["rule"] for d in bench.sendings(name)] == ["report-sent"]
    assert list(Path(f"{bench.ledger}.quarantine").iterdir()) == []
    assert bench.drain().code == 0
    assert len(bench.reports) == 1
    bench.assert_balanced()


@pytest.mark.parametrize(
    ("notify", "sender", "text", "rule"),
    [
        pytest.param("SUCCESS", "eve@absent.example", "", "G12", id="no such domain"),
        pytest.param("SUCCESS", "", "", "G2", id="the null sender"),
        pytest.param(
            "SUCCESS", BOB, "Auto-Submitted: auto-replied\n", "G7", id="a robot"
        ),
        pytest.param("FAILURE", BOB, "", "", id="only failures are wanted"),
        pytest.param("NEVER", BOB, "", "", id="nothing is wanted"),
    ],
)
def test_nobody_else_is_told_of_a_delivery(
    bench: Refusing, notify: str, sender: str, text: str, rule: str
) -> None:
    """It goes through the same bounce rules as a failure, and needs to be asked for."""
    name = wanting(bench, notify, sender=sender, text=text)
    assert bench.drain().code == 0
    assert bench.reports == []
    asked = [d for d in bench.why(name)["decisions"] if d["kind"] == "bounce"]
    assert [d["rule"] for d in asked] == ([rule] if rule else [])
    assert list(Path(f"{bench.ledger}.quarantine").glob("*")) == []


def test_a_primary_with_dsn_tells_of_its_deliveries_itself(bench: Refusing) -> None:
    """It was passed NOTIFY=SUCCESS: a second report would be one too many."""
    bench.primary.script = Script()
    wanting(bench, "SUCCESS")
    assert bench.drain().code == 0
    (message,) = bench.primary.accepted
    assert message.recipients[0].parameters["NOTIFY"] == "SUCCESS"
    assert bench.relay.commands == []
    assert list(Path(f"{bench.ledger}.quarantine").glob("*")) == []
