"""MX records that change during a drain, from a real DNS server on loopback."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drainer.delivery.mx_refresh import LEAST, MxRefresh, MxSettings
from drainer.smtp.hosts import HostChoice
from drainer.smtp.route import Host, Route
from tests.support.command.runner import Bench, end
from tests.support.dns.zones import SERVFAIL, Zone, serving
from tests.support.mta.postfix import wait_until
from tests.support.smtp_peer.peer import PeerThread

OURS = frozenset(("backup.example",))


class Scene:
    """Two routes that go by MX, and one that does not."""

    def __init__(self, settings: MxSettings) -> None:
        """Start with the servers that DNS named then."""
        names = {"mx1:25": "mx1", "mx2:25": "mx2", "own:25": "own"}
        self.hosts = {
            name: HostChoice(Route(host=host)) for name, host in names.items()
        }
        self._refresh = MxRefresh(settings, self.hosts)

    def look(self) -> float:
        """Ask once; return in how many seconds drainer asks again."""
        return asyncio.run(self._refresh.look())

    def servers(self, name: str) -> list[list[str]]:
        """Return the servers of a route now."""
        return [
            [each.host for each in tier] for tier in self.hosts[name].route.all_tiers
        ]


@pytest.fixture
def zone() -> Zone:
    """Give a zone in which nothing has changed yet."""
    zone = Zone(ttl=90, proven=True)
    for domain in ("a.example", "b.example"):
        zone.add(domain, "MX", "10 mx1")
    return zone.add("c.example", "MX", "10 mx2")


@pytest.fixture
def scene(zone: Zone) -> Iterator[Scene]:
    """Serve the zone."""
    with serving(zone) as servers:
        domains = {"mx1:25": ("a.example", "b.example"), "mx2:25": ("c.example",)}
        proven = frozenset(("mx2:25",))
        yield Scene(
            MxSettings(servers=servers, ours=OURS, domains=domains, proven=proven)
        )


def test_new_sessions_use_the_new_answer(scene: Scene, zone: Zone) -> None:
    """Drainer asks again when the first TTL ends; the name of the route stays."""
    assert scene.look() == 90
    zone.ttl = 0
    for domain in ("a.example", "b.example"):
        zone.records[domain] = [("MX", "20 mx5"), ("MX", "10 mx4"), ("MX", "10 mx3")]
    assert scene.look() == LEAST
    assert scene.servers("mx1:25") == [["mx3", "mx4"], ["mx5"]]
    assert scene.servers("mx2:25") == [["mx2"]]
    assert str(scene.hosts["mx1:25"].route) == "mx1:25"
    assert scene.hosts["mx1:25"].route.all_tiers[1] == (Host(host="mx5"),)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([(SERVFAIL, "")], id="DNS is down"),
        pytest.param([("MX", "0 .")], id="a null MX"),
        pytest.param([("MX", "5 backup.example")], id="only this backup"),
        pytest.param([("MX", "10 mx3")], id="its domains differ"),
    ],
)
def test_the_old_servers_stay_when_the_new_answer_names_none_for_all(
    scene: Scene, zone: Zone, records: list[tuple[str, str | bytes]]
) -> None:
    """The next run decides about such mail."""
    zone.records["a.example"] = records
    scene.look()
    assert scene.servers("mx1:25") == [["mx1"]]


@pytest.mark.parametrize("other", ["mx1", "own"])
def test_a_server_of_another_route_is_not_taken_over(
    scene: Scene, zone: Zone, other: str
) -> None:
    """It would see the rates of both."""
    zone.records["c.example"] = [("MX", f"10 {other}")]
    scene.look()
    assert scene.servers("mx2:25") == [["mx2"]]


def test_a_worse_server_of_another_route_is_left_out(scene: Scene, zone: Zone) -> None:
    """The rest of the answer is used."""
    zone.records["c.example"] = [("MX", "10 mx7"), ("MX", "20 mx1"), ("MX", "30 mx8")]
    scene.look()
    assert scene.servers("mx2:25") == [["mx7"], ["mx8"]]


def test_records_that_dnssec_must_prove_are_not_taken_without(
    scene: Scene, zone: Zone
) -> None:
    """Others are."""
    zone.proven = False
    for domain in zone.records:
        zone.records[domain] = [("MX", "10 a" + domain)]
    zone.records["b.example"] = zone.records["a.example"]
    scene.look()
    assert scene.servers("mx1:25") == [["aa.example"]]
    assert scene.servers("mx2:25") == [["mx2"]]


def test_a_drain_follows_the_records_when_their_ttl_ends(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """The rest of the mail goes to the server that DNS names now."""
    zone = Zone(ttl=1).add("example.org", "MX", "10 127.0.0.1")
    old = peer()
    new = PeerThread(host="127.0.0.2", port=old.port)
    with serving(zone) as servers, new:
        bench = Bench(tmp_path, old.port)
        bench.configure(
            primary={
                "host": "",
                "hosts": "mx",
                "domains": ["example.org"],
                "max_messages": 1,
            },
            throttle={"rate": "2/second"},
            bounce={"dns_servers": list(servers.addresses), "dns_port": servers.port},
        )
        for n in range(200):
            bench.add(f"u{n}@example.org")
        drain = bench.start("drain", f"postfix:{bench.spool}", "--no-check")
        wait_until(lambda: bool(old.accepted), timeout=30, what="the old server")
        zone.records["example.org"] = [("MX", "10 127.0.0.2")]
        wait_until(lambda: bool(new.accepted), timeout=60, what="the new server")
        drain.send_signal(signal.SIGINT)
        assert end(drain).code == 130
