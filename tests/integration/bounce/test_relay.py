"""``[bounce] via = "mx"``: reports to the sender's own servers, as DNS names them.

Those are peers at addresses of the loopback, all at one port.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.dns.zones import TIMEOUT, Zone
from tests.support.mta.roles import Primary
from tests.support.scenarios.bounces import BOB, Refusing, age, nobody_unknown, refusing
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Drop, Script, Stall

StartPeer = Callable[..., PeerThread]
BEST, NEXT = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> Iterator[Refusing]:
    """Give a backup whose relay is the sender's best server."""
    monkeypatch.chdir(tmp_path)
    best = peer(host=BEST)
    with refusing(tmp_path, best, peer(Script(rcpt=nobody_unknown))) as made:
        made.configure(bounce={"via": "mx", "mx_port": best.port, "mx_private": True})
        served_at(made.zone, BEST, NEXT)
        yield made


def served_at(zone: Zone, *addresses: str) -> None:
    """Let mail for the sender go to these addresses, in this order."""
    name = "sender.example"
    zone.records[name] = [each for each in zone.records[name] if each[0] == "TXT"]
    for rank, address in reversed(list(enumerate(addresses))):
        host = f"mx{rank}.{name}"
        zone.add(name, "MX", f"{10 * rank} {host}")
        zone.records[host] = [("A", address)]


def run_due(bench: Refusing) -> None:
    """Send what is due."""
    result = bench.run("bounces", "run", "--json", "--no-check")
    assert result.code in (0, 5), result


def rules(bench: Refusing, name: str) -> list[str]:
    """Return what became of each attempt to send the report."""
    return [d["rule"].removeprefix("report-") for d in bench.sendings(name)]


def test_the_best_server_gets_it_and_no_other(bench: Refusing, peer: StartPeer) -> None:
    """From our name, to the sender, with NOTIFY=NEVER."""
    other = peer(host=NEXT, port=bench.relay.port)
    name = bench.refuse()
    assert bench.confirm().code == 0, bench.why(name)
    (report,) = bench.reports
    assert (report.reverse_path, report.forward_paths) == ("", [BOB])
    assert report.recipients[0].parameters == {"NOTIFY": "NEVER"}
    assert other.commands == []


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(None, id="away"),
        pytest.param(Script(banner="554 5.3.2 not here"), id="it lets nobody in"),
        pytest.param(Script(rcpt="450 4.2.1 busy"), id="not now, at RCPT"),
        pytest.param(Script(dot="452 4.3.1 no room"), id="not now, at the dot"),
    ],
)
def test_the_next_server_gets_it_when_the_best_one_does_not_take_it_now(
    bench: Refusing, peer: StartPeer, script: Script | None
) -> None:
    """In the same attempt (RFC 5321 5.1)."""
    other = peer(host=NEXT, port=bench.relay.port)
    if script is None:
        bench.relay.stop()
    else:
        bench.relay.script = script
    name = bench.refuse()
    assert bench.confirm().code == 0
    assert rules(bench, name) == ["sent"]
    assert len(other.accepted) == 1
    assert bench.reports == []


def test_a_refusal_for_good_is_the_end_of_it(bench: Refusing, peer: StartPeer) -> None:
    """No other server is asked to overrule it."""
    other = peer(host=NEXT, port=bench.relay.port)
    bench.relay.script = Script(rcpt="550 5.1.1 no such user")
    name = bench.refuse()
    assert bench.confirm().code == 0
    assert rules(bench, name) == ["failed"]
    assert other.commands == []


def test_a_lost_reply_to_the_dot_makes_no_second_copy_elsewhere(
    bench: Refusing, peer: StartPeer
) -> None:
    """It may have arrived: it is repeated later, to the best server again."""
    other = peer(host=NEXT, port=bench.relay.port)
    bench.configure(bounce={"retry": "1h"})
    bench.relay.script = Script(dot=Drop())
    name = bench.refuse()
    assert bench.confirm().code == 0
    assert rules(bench, name) == ["deferred"]
    assert other.commands == []


def test_temporary_failures_are_tried_again_and_hold_up_nobody_else(
    bench: Refusing,
) -> None:
    """One sender's servers are away; another sender gets its report meanwhile."""
    served_at(bench.zone, NEXT)
    bench.zone.add("other.example", "TXT", "v=spf1 ip4:192.0.2.1 -all")
    bench.zone.add("other.example", "MX", "10 mx.other.example")
    bench.zone.add("mx.other.example", "A", BEST)
    bench.configure(bounce={"retry": "50ms"})
    name = bench.refuse()
    bench.refuse("nobody2@example.org", sender="amy@other.example")
    bench.confirm()
    assert rules(bench, name)[0] == "deferred"
    assert [r.forward_paths for r in bench.reports] == [["amy@other.example"]]
    served_at(bench.zone, BEST)
    run_due(bench)
    assert rules(bench, name)[-1] == "sent"
    assert len(bench.reports) == 2


def test_a_server_that_says_nothing_holds_up_nobody_for_long(bench: Refusing) -> None:
    """It may be anybody's: the attempt ends, and another sender gets its report."""
    bench.zone.add("other.example", "TXT", "v=spf1 ip4:192.0.2.1 -all")
    bench.zone.add("other.example", "MX", "10 mx1.sender.example")
    bench.relay.script = Script(
        rcpt=lambda view: Stall() if view.path == BOB else "250 2.1.5 ok"
    )
    served_at(bench.zone, BEST)
    bench.zone.add("mx1.sender.example", "A", BEST)
    bench.configure(bounce={"retry": "1h", "timeout": "1s"})
    name = bench.refuse()
    bench.refuse("nobody2@example.org", sender="amy@other.example")
    assert bench.confirm().code == 0
    (sending,) = bench.sendings(name)
    assert sending["rule"] == "report-deferred"
    assert "took more than" in sending["evidence"]["reason"]
    assert [r.forward_paths for r in bench.reports] == [["amy@other.example"]]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        pytest.param([("MX", "0 .")], "null MX", id="null MX"),
        pytest.param([("MX", "5 self.example")], "private", id="the loopback"),
        pytest.param([("A", "169.254.1.1")], "private", id="link-local, without MX"),
        pytest.param([("AAAA", "::ffff:10.0.0.1")], "private", id="mapped"),
    ],
)
def test_no_report_leaves_for_where_no_stranger_can_be(
    bench: Refusing, records: list[tuple[str, str]], words: str
) -> None:
    """The zone changed after the bounce decision: nothing is dialled, it failed."""
    bench.configure(bounce={"mx_private": False})
    served_at(bench.zone, "192.0.2.25")
    bench.zone.add("self.example", "A", BEST)
    name = bench.refuse()
    assert bench.drain().code == 5
    spf = bench.zone.records["sender.example"][:1]
    bench.zone.records["sender.example"] = [*spf, *records]
    assert bench.drain().code == 0
    (sending,) = bench.sendings(name)
    assert sending["rule"] == "report-failed"
    assert words in sending["evidence"]["reason"]
    assert bench.relay.commands == []
    assert len(list(Path(f"{bench.ledger}.quarantine").glob("*.eml"))) == 1


def test_a_private_server_is_no_servers_for_the_bounce_rules(bench: Refusing) -> None:
    """G12: quarantined, unless the operator says that the network is a closed one."""
    bench.configure(bounce={"mx_private": False})
    name = bench.refuse()
    assert bench.confirm().code == 0
    assert bench.states() == {"nobody@example.org": "quarantined"}
    assert "G12" in [d["rule"] for d in bench.why(name)["decisions"]]
    assert bench.relay.commands == []


def test_silent_dns_is_asked_again(bench: Refusing) -> None:
    """Neither sent nor given up; then it answers."""
    bench.configure(bounce={"dns_timeout": "100ms"})
    name = bench.refuse()
    assert bench.drain().code == 5
    known = bench.zone.records["sender.example"]
    bench.zone.records["sender.example"] = [(f"MX-{TIMEOUT}", "")]
    bench.configure(bounce={"retry": "1h"})
    assert bench.drain().code == 0
    assert rules(bench, name) == ["deferred"]
    bench.zone.records["sender.example"] = known
    age(bench, hours=2)
    run_due(bench)
    assert rules(bench, name) == ["deferred", "sent"]


def test_a_real_postfix_as_the_senders_server(
    bench: Refusing, primary_postfix: Callable[..., Primary]
) -> None:
    """It takes the report from nobody, after one that is away."""
    server = primary_postfix(parameters={"virtual_mailbox_domains": "sender.example"})
    served_at(bench.zone, "127.0.0.9", "127.0.0.1")
    bench.configure(bounce={"mx_port": server.port})
    bench.refuse()
    assert bench.confirm().code == 0
    (found,) = server.wait_received(1)
    assert (found.reverse_path, found.recipient) == (b"", BOB.encode())
    assert b"multipart/report" in found.content
