"""How many reports leave, how fast, and how long somebody is asked."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.dns.zones import TIMEOUT
from tests.support.scenarios.bounces import (
    Refusing,
    age,
    nobody_unknown,
    parsed,
    refusing,
)
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import EXTENSIONS, Delay, Script, Step, View

StartPeer = Callable[..., PeerThread]
NO_UTF8 = tuple(each for each in EXTENSIONS if each != "SMTPUTF8")


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> Iterator[Refusing]:
    """Give a backup, its primary, and a relay that takes reports."""
    monkeypatch.chdir(tmp_path)
    with refusing(tmp_path, peer(), peer(Script(rcpt=nobody_unknown))) as made:
        yield made


def test_reports_keep_to_their_own_rate(bench: Refusing) -> None:
    """Whatever the rate of the drain: a burst of one second's worth, then in turn."""
    bench.configure(bounce={"rate": "2/second"})
    for n in range(4):
        bench.refuse(f"nobody{n}@example.org", sender=f"amy{n}@sender.example")
    bench.confirm()
    assert bench.drain().code == 0
    first, *_, last = (report.mail_at for report in bench.reports)
    assert len(bench.reports) == 4
    assert last - first >= 0.9


def test_what_is_over_a_limit_is_quarantined_and_later_runs_remember(
    bench: Refusing,
) -> None:
    """Two an hour to one sender; then an hour goes by."""
    bench.configure(bounce={"sender_per_hour": 2})
    bench.refuse("nobody0@example.org", "nobody1@example.org")  # one report
    bench.refuse("nobody2@example.org")
    assert bench.confirm().code == 0
    name = bench.refuse("nobody4@example.org")
    assert bench.confirm().code == 0
    assert sorted(bench.states().values()) == ["bounced"] * 3 + ["quarantined"]
    (decision,) = [d for d in bench.why(name)["decisions"] if d["kind"] == "bounce"]
    assert decision["rule"] == "G14"
    assert "2 are allowed" in decision["evidence"]["reason"]
    digest = bench.run("digest", "--json").json
    assert [(d["rule"], d["recipients"]) for d in digest["not_told"]] == [("G14", 1)]
    assert digest["reports"] == {"queued": 0, "sent": 2, "failed": 0}
    assert "      1 G14: already reported" in bench.run("digest").stdout
    age(bench, hours=2)
    bench.refuse("nobody5@example.org")
    assert bench.confirm().code == 0
    assert bench.states()["nobody5@example.org"] == "bounced"
    assert len(bench.reports) == 3


def test_silent_dns_decides_later_and_then_no(bench: Refusing) -> None:
    """DNS is asked again, later each time, until the operator's patience is over."""
    known = bench.zone.records["sender.example"]
    bench.zone.records["sender.example"] = [(TIMEOUT, "")]
    bench.configure(bounce={"dns_timeout": "100ms", "patience": "5h"})
    name = bench.refuse()
    for _ in range(2):
        assert bench.drain().code == 5
        assert bench.states() == {"nobody@example.org": "bounce-pending"}
        age(bench, hours=2)
    bench.refuse("nobody2@example.org")
    assert bench.drain().code == 5
    age(bench, hours=2)
    bench.drain()
    assert bench.states() == {
        "nobody@example.org": "quarantined",
        "nobody2@example.org": "bounce-pending",
    }
    last = [d for d in bench.why(name)["decisions"] if d["kind"] == "bounce"][-1]
    assert (last["rule"], last["verdict"]) == ("G12", "no")
    assert "the wait was too long" in last["evidence"]["reason"]
    bench.zone.records["sender.example"] = known
    bench.configure(bounce={"dns_timeout": "5s", "patience": "5h"})
    age(bench, hours=2.5)
    bench.drain()
    assert bench.drain().code == 0
    assert bench.states()["nobody2@example.org"] == "bounced"
    assert len(bench.reports) == 1


def test_a_report_that_nobody_takes_is_given_up_after_five_days(
    bench: Refusing,
) -> None:
    """Failed, with the reason; its copy stays, so that nothing is lost."""
    bench.relay.stop()
    name = bench.refuse()
    assert bench.confirm().code == 0
    age(bench, days=4)
    bench.drain()
    age(bench, days=2)
    bench.drain()
    sent = bench.sendings(name)
    assert [d["rule"] for d in sent] == ["report-deferred"] * 2 + ["report-failed"]
    assert "no server accepted it in time" in sent[-1]["evidence"]["reason"]
    assert len(list(Path(f"{bench.ledger}.quarantine").glob("*.eml"))) == 1


def test_a_sender_whose_address_the_relay_cannot_write_is_not_told(
    bench: Refusing,
) -> None:
    """It needs SMTPUTF8: failed for good, the copy stays; told where it is offered."""
    bench.relay.script = Script(extensions=NO_UTF8)
    name = bench.refuse(sender="j\u00fcrgen@sender.example")
    assert bench.confirm().code == 0, bench.why(name)
    (sent,) = bench.sendings(name)
    assert sent["rule"] == "report-failed"
    assert "SMTPUTF8" in sent["evidence"]["reason"]
    assert bench.reports == []
    assert len(list(Path(f"{bench.ledger}.quarantine").glob("*.eml"))) == 1
    bench.relay.script = Script()
    bench.refuse("nobody2@example.org", sender="j\u00fcrgen@sender.example")
    assert bench.confirm().code == 0
    (report,) = bench.reports
    assert "SMTPUTF8" in report.parameters
    assert report.forward_paths == ["j\u00fcrgen@sender.example"]
    kinds = [part.get_content_type() for part in parsed(report).walk()]
    assert "message/global-delivery-status" in kinds


def test_a_sender_whose_domain_alone_is_not_ascii_gets_a_report(
    bench: Refusing,
) -> None:
    """Without SMTPUTF8 its domain is written as A-labels (RFC 5890 2.3.2.1)."""
    bench.relay.script = Script(extensions=NO_UTF8)
    sender, known = "amy@s\u00e4nder.example", bench.zone.records["sender.example"]
    bench.zone.records["xn--snder-gra.example"] = known
    bench.refuse(sender=sender)
    assert bench.confirm().code == 0
    (report,) = bench.reports
    assert report.forward_paths == ["amy@xn--snder-gra.example"]
    assert parsed(report)["To"] == "<amy@xn--snder-gra.example>"
    assert "SMTPUTF8" not in report.parameters


def test_a_slow_answer_about_a_known_recipient_postpones_no_report_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> None:
    """Each drain has many refusals before it: the next drain asks first."""

    def late(view: View) -> Step:
        step = nobody_unknown(view)
        return Delay(0.4, step) if view.path.startswith("known") else step

    monkeypatch.chdir(tmp_path)
    with refusing(tmp_path, peer(), peer(Script(rcpt=late))) as bench:
        bench.configure(breaker={"brake_share": 1, "brake_least": 1000})
        for n in range(8):
            bench.refuse(f"nobody{n}@example.org", sender=f"amy{n}@sender.example")
        codes = [bench.drain().code for _ in range(4)]
        assert codes[-1] == 0, codes
        assert set(bench.states().values()) == {"bounced"}
