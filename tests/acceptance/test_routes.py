"""One spool, several primaries: each recipient's mail goes where its domain says."""

import json
import signal
import smtplib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.runner import Bench, call, end, start
from tests.support.mta.postfix import PrivatePostfix, wait_until
from tests.support.mta.roles import Primary
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Drop, Script, Stall, in_turn

StartPeer = Callable[..., PeerThread]


def got(peer: PeerThread) -> list[str]:
    """Return to whom a primary delivered, in alphabetical order."""
    return sorted(path for each in peer.accepted for path in each.forward_paths)


@pytest.fixture
def two(tmp_path: Path, peer: StartPeer) -> tuple[Bench, PeerThread, PeerThread]:
    """Give a bench whose mail for other.example goes to a second primary."""
    first, second = peer(), peer()
    bench = Bench(tmp_path, first.port)
    bench.routes = [
        {"domains": ["other.example", ".other.example"], "port": second.port}
        | {"host": "127.0.0.1"}
    ]
    return bench, first, second


def test_each_domain_goes_to_its_primary(
    two: tuple[Bench, PeerThread, PeerThread],
) -> None:
    """A message with recipients on two routes goes once to each; the rest is held."""
    bench, first, second = two
    bench.add("a@example.org")
    bench.add("b@other.example")
    bench.add("c@example.org", "d@other.example", "e@sub.other.example")
    bench.add("f@nowhere.example")
    assert bench.drain().code == 5
    assert got(first) == ["a@example.org", "c@example.org"]
    assert got(second) == ["b@other.example", "d@other.example", "e@sub.other.example"]
    assert len(second.accepted) == 2
    assert Counter(bench.states().values()) == {"delivered": 5, "held": 1}
    facts = bench.recipients()
    assert facts["d@other.example"]["route"] == f"127.0.0.1:{second.port}"
    assert facts["f@nowhere.example"]["route"] == ""
    bench.assert_balanced()


def test_a_route_that_refuses_us_costs_the_other_nothing(
    two: tuple[Bench, PeerThread, PeerThread], peer: StartPeer
) -> None:
    """The drain ends with 4, says which route it was, and all of the other is sent."""
    bench, first, _ = two
    denied = peer(rcpt="554 5.7.1 Relay access denied")
    bench.routes[0]["port"] = denied.port
    for n in range(30):
        bench.add(f"u{n}@example.org", f"u{n}@other.example")
    result = bench.drain()
    assert result.code == 4
    assert len(got(first)) == 30
    states = Counter(
        (path.partition("@")[2], state) for path, state in bench.states().items()
    )
    assert states == {
        ("example.org", "delivered"): 30,
        ("other.example", "deferred"): 30,
    }
    summary = bench.run("drain", f"postfix:{bench.spool}", "--no-check")
    assert f"at 127.0.0.1:{denied.port}" in summary.stdout
    assert f"  127.0.0.1:{denied.port}: 0 messages sent, stopped" in summary.stdout
    assert f"  127.0.0.1:{first.port}: 0 messages sent, finished" in summary.stdout
    assert {each["route"]: each["stopped"] for each in result.json["routes"]} == {
        f"127.0.0.1:{denied.port}": True,
        f"127.0.0.1:{first.port}": False,
    }


def test_messages_to_both_routes_wait_for_neither(
    two: tuple[Bench, PeerThread, PeerThread], peer: StartPeer
) -> None:
    """What a stopped route still had queued is free for the other one at once."""
    bench, first, _ = two
    turns = ["250 2.1.5 ok"] * 20 + ["554 5.7.1 Relay access denied"]
    stopped = peer(rcpt=in_turn(*turns))
    bench.routes[0]["port"] = stopped.port
    first.script = Script(rcpt=in_turn("450 4.2.1 busy", "250 2.1.5 ok"))
    bench.configure(breaker={"give_up_after": "2m"}, primary={"connections": 3})
    for n in range(150):
        bench.add(f"u{n}@example.org", f"u{n}@other.example")
    result = bench.drain()
    assert result.code == 4
    assert len(got(first)) == 150
    assert result.json["seconds"] < 60


def test_a_route_that_is_down_costs_the_other_nothing(
    two: tuple[Bench, PeerThread, PeerThread],
) -> None:
    """It is left out after the check, named, and its mail waits."""
    bench, first, second = two
    second.stop()
    for n in range(20):
        bench.add(f"u{n}@example.org")
        bench.add(f"u{n}@other.example")
    bench.configure(health={"accept": ["u0@example.org"], "reject": ""})
    bench.routes[0]["accept"] = ["u0@other.example"]
    result = bench.drain(check=True)
    assert result.code == 4
    assert f"127.0.0.1:{second.port} is not ready" in result.stderr
    assert len(got(first)) == 20
    second.start()
    assert bench.drain(check=True).code == 0
    assert len(got(second)) == 20
    assert Counter(bench.states().values()) == {"delivered": 40}


def test_a_route_that_swallows_packets_costs_the_other_nothing(
    two: tuple[Bench, PeerThread, PeerThread], peer: StartPeer
) -> None:
    """The other has its full rate while each session of the first still waits."""
    bench, first, _ = two
    hole = peer(banner=Stall(), lenient=True)
    bench.routes[0]["port"] = hole.port
    bench.configure(throttle={"rate": "20/second"}, primary={"banner_timeout": "5m"})
    for n in range(60):
        bench.add(f"u{n}@other.example", f"u{n}@example.org")
    drain = bench.start("drain", f"postfix:{bench.spool}", "--no-check")
    wait_until(lambda: bool(first.accepted), timeout=60, what="the first message")
    began = time.monotonic()
    wait_until(lambda: len(got(first)) == 60, timeout=60, what="the full rate")
    assert time.monotonic() - began < 30, "3 s at the full rate"
    assert drain.poll() is None
    drain.send_signal(signal.SIGINT)
    assert end(drain).code == 130
    assert Counter(bench.states().values()) == {"delivered": 60, "pending": 60}


def test_what_waits_follows_the_configuration(
    two: tuple[Bench, PeerThread, PeerThread],
) -> None:
    """What was not sent goes by the new route; what was delivered stays delivered."""
    bench, first, second = two
    routes, bench.routes = bench.routes, []
    bench.configure(primary={"domains": []})
    bench.add("a@other.example")
    first.script = Script(rcpt="450 4.2.1 busy")
    assert bench.drain().code == 5
    bench.routes = routes
    assert bench.drain().code in (0, 5)
    assert "a@other.example" in got(second)
    assert got(first) == []


# ---- several servers of one primary


def test_equal_servers_share_the_load(tmp_path: Path, peer: StartPeer) -> None:
    """Each gets half of it within 10 %, also of an odd number of long sessions."""
    one, other = peer(), peer()
    bench = Bench(tmp_path, one.port)
    hosts = [[f"127.0.0.1:{one.port}", f"127.0.0.1:{other.port}"]]
    bench.configure(
        primary={"host": "", "hosts": hosts, "connections": 5, "max_messages": 1000}
    )
    for n in range(200):
        bench.add(f"u{n}@example.org")
    assert bench.drain().code == 0
    assert sorted(got(one) + got(other)) == sorted(
        f"u{n}@example.org" for n in range(200)
    )
    assert min(len(got(one)), len(got(other))) >= 90


def test_the_next_server_is_tried_when_one_cannot_be_reached(
    tmp_path: Path, peer: StartPeer
) -> None:
    """One that is down, or does not greet us, costs no attempt."""
    dead, rude, good = peer(), peer(banner="421 4.3.2 shutting down"), peer()
    dead.stop()
    bench = Bench(tmp_path, good.port)
    hosts = [f"127.0.0.1:{each.port}" for each in (dead, rude, good)]
    bench.configure(primary={"host": "", "hosts": hosts, "connections": 2})
    for n in range(20):
        bench.add(f"u{n}@example.org")
    assert bench.drain().code == 0
    assert len(got(good)) == 20
    assert {each["attempts"] for each in bench.recipients().values()} == {1}
    id_ = next(iter(bench.recipients().values()))["id"]
    told = bench.run("why", id_).stdout
    assert f"at 127.0.0.1:{good.port}, of the route {hosts[0]}" in told
    checked = call("check", "--config", bench.config, "--json")
    assert checked.code == 0
    stages = checked.json["stages"]
    warned = [each["stage"] for each in stages if each["verdict"] == "warn"]
    assert warned[:2] == ["connect", "banner"]


@pytest.mark.parametrize("check", [False, True], ids=["unchecked", "checked"])
def test_an_equal_server_that_refuses_us_is_avoided(
    tmp_path: Path, peer: StartPeer, *, check: bool
) -> None:
    """From its first session on: the other has all mail, once, in one run."""
    denied, good = peer(rcpt="554 5.7.1 <x>: Relay access denied"), peer()
    bench = Bench(tmp_path, good.port)
    hosts = [[f"127.0.0.1:{each.port}" for each in (denied, good)]]
    bench.configure(primary={"host": "", "hosts": hosts, "connections": 4})
    for n in range(60):
        bench.add(f"u{n}@example.org")
    result = bench.drain(check=check)
    assert result.code == 0, result.stderr
    assert sorted(got(good)) == sorted(f"u{n}@example.org" for n in range(60))
    assert {each["attempts"] for each in bench.recipients().values()} == {1}
    assert len(denied.commands) < 60


def test_equal_servers_that_all_refuse_us_end_the_run(
    tmp_path: Path, peer: StartPeer
) -> None:
    """Then it is the primary, and the reply of any of them is the answer."""
    hosts = [
        f"127.0.0.1:{peer(rcpt='554 5.7.1 Relay access denied').port}" for _ in "ab"
    ]
    bench = Bench(tmp_path, 25)
    bench.configure(primary={"host": "", "hosts": [hosts], "connections": 4})
    for n in range(20):
        bench.add(f"u{n}@example.org")
    assert bench.drain().code == 4
    assert Counter(bench.states().values()) == {"deferred": 20}


def test_what_is_in_doubt_stays_with_its_route(tmp_path: Path, peer: StartPeer) -> None:
    """The former primary may have it: only an operator sends it elsewhere."""
    former, other = peer(dot=Drop()), peer()
    bench = Bench(tmp_path, former.port)
    bench.configure(primary={"dot_timeout": "200ms"}, retry={"unknown": "0s"})
    name = bench.add("a@example.org")
    bench.drain()
    assert bench.states() == {"a@example.org": "unknown"}
    bench.port = other.port
    assert bench.drain().code == 5
    assert bench.states() == {"a@example.org": "unknown"}
    assert other.accepted == []
    assert bench.run("requeue", name, "--reason", "it never came").code == 0
    assert bench.drain().code == 0
    assert got(other) == ["a@example.org"]


def test_which_route_an_address_takes_is_explained_and_planned(
    two: tuple[Bench, PeerThread, PeerThread],
) -> None:
    """By `config --route` for one address, by `plan` for the spool."""
    bench, first, second = two
    bench.add("a@example.org", "b@other.example")
    bench.add("c@sub.other.example")
    asked = {
        address: call("config", "--config", bench.config, "--json", "--route", address)
        for address in ("a@example.org", "c@sub.other.example", "d@nowhere.example")
    }
    found = {address: result.json for address, result in asked.items()}
    assert found["a@example.org"]["route"] == f"127.0.0.1:{first.port}"
    assert found["c@sub.other.example"]["route"] == f"127.0.0.1:{second.port}"
    assert found["c@sub.other.example"]["entry"] == ".other.example"
    assert found["d@nowhere.example"]["route"] is None
    planned = bench.run("plan", f"postfix:{bench.spool}", "--json").json
    assert planned["routes"] == {
        f"127.0.0.1:{first.port}": 1,
        f"127.0.0.1:{second.port}": 2,
    }


# ---- with real servers


def test_three_postfix_primaries_share_the_mail_of_two_domains(
    tmp_path: Path,
    backup_postfix: Callable[..., PrivatePostfix],
    primary_postfix: Callable[..., Primary],
) -> None:
    """One is stopped in the middle and comes back: all is delivered once, by its route.

    The equal ones share it within 10 %, however fast each of them is at the moment: a
    session moves as soon as one is ahead by 3 %.
    """
    count = 120
    backup = backup_postfix(domains=("a.example", "b.example"))
    one, other = (primary_postfix(domains=("a.example",)) for _ in range(2))
    third = primary_postfix(domains=("b.example",))
    with smtplib.SMTP("127.0.0.1", backup.port) as client:
        for n in range(count):
            to = [f"u{n}@a.example", f"u{n}@b.example"][: 1 + n % 2]
            client.sendmail("s@client.example", to, f"Subject: {n}\r\n\r\nx\r\n")
    backup.wait_queue(count)
    backup.stop()
    equal = [f"127.0.0.1:{one.port}", f"127.0.0.1:{other.port}"]
    config = tmp_path / "drainer.toml"
    config.write_text(
        f'[primary]\nhosts = [{json.dumps(equal)}]\ndomains = ["a.example"]\n'
        'tls = "off"\nmax_messages = 5\nconnections = 4\n'
        '[throttle]\nrate = "unlimited"\nramp = "0s"\n'
        f'[[routes]]\ndomains = ["b.example"]\nhost = "127.0.0.1"\n'
        f'port = {third.port}\nrate = "20/second"\n'
        '[retry]\nfirst = "1s"\nunknown = "1s"\n'
        '[breaker]\npauses = ["200ms"]\ngive_up_after = "5m"\n',
        "utf-8",
    )
    ledger = tmp_path / "ledger.db"
    url = f"postfix:{backup.queue_dir}"
    drain = start("drain", url, "--config", config, "--ledger", ledger, "--no-check")
    third.wait_received(10, timeout=60)
    third.stop()
    wait_until(
        lambda: len(one.received() + other.received()) == count,
        timeout=60,
        what="the mail of the others",
    )
    assert drain.poll() is None
    third.start()
    result = end(drain)
    assert result.code == 0, result.stderr
    for each in (one, other, third):
        each.wait_queue(0, ("incoming", "active"))
    got_by = [Counter(r.recipient.decode() for r in p.received()) for p in (one, other)]
    assert got_by[0] + got_by[1] == Counter(f"u{n}@a.example" for n in range(count))
    assert min(each.total() for each in got_by) >= 0.9 * count / 2
    sent = Counter(r.recipient.decode() for r in third.received())
    assert set(sent) == {f"u{n}@b.example" for n in range(1, count, 2)}
    for path in (path for path, copies in sent.items() if copies > 1):
        # Its reply was lost when the server was stopped: RFC 5321 4.5.3.2.6.
        listed = call("list", "--ledger", ledger, "--recipient", path, "--json")
        told = call("why", listed.lines[0]["id"], "--ledger", ledger)
        assert "unknown" in told.stdout
