"""A watch as a process: what people and services do to it, and what it tells."""

import asyncio
import getpass
import itertools
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from drainer.config import Config
from drainer.config import load as config_file
from drainer.config.build.paths import ledger_url
from drainer.ledger.overrides import give
from drainer.policy.pacing.overrides import Override, OverrideKind
from drainer.runtime.process import utcnow
from drainer.watch.digest import mail_daily, next_digest
from drainer.watch.health import last_hook
from drainer.watch.http.snapshot import StatusSnapshot, WatchView
from drainer.watch.plan import make_plan
from drainer.watch.watch import Watch
from tests.support.command.runner import Bench
from tests.support.command.watch import prepare, source, watching
from tests.support.mta.postfix import free_port, wait_until
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import ReplyThenDrop, in_turn, per_recipient

StartPeer = Callable[..., PeerThread]
ROUTE = "127.0.0.1:{}"


@pytest.fixture
def bench(tmp_path: Path, peer: StartPeer, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a bench with a primary that takes everything, slowly drained to."""
    monkeypatch.chdir(tmp_path)
    made = Bench(tmp_path, peer().port)
    prepare(made, throttle={"rate": "10/second", "ramp": "0s"})
    return made


def settings(bench: Bench) -> Config:
    """Return the configuration of a bench."""
    return config_file.load(bench.config, {"ledger": {"url": str(bench.ledger)}})


def order(bench: Bench, ask: OverrideKind, **facts: Any) -> None:
    """Give a control, as a command or a hook does."""
    control = Override(at=utcnow(), ask=ask, **facts)
    give(ledger_url(settings(bench)), ROUTE.format(bench.port), control)


def fill(bench: Bench, count: int) -> None:
    """Put some messages into the spool."""
    for n in range(count):
        bench.add(f"user{n}@example.org")


def delivered(bench: Bench) -> int:
    """Return how many recipients are delivered."""
    return int(bench.run("status", "--json").json["states"]["delivered"])


# ---- orders


def test_a_pause_stops_the_drain_in_order_and_its_end_lets_it_go_on(
    bench: Bench,
) -> None:
    """Paused by whom, and why; nothing is sent meanwhile; one check, then the rest."""
    fill(bench, 30)
    with watching(bench) as watch:
        watch.wait_for("canary")
        watch.wait_for("ramp")
        order(bench, OverrideKind.PAUSE, by="cli ann", reason="backup runs")
        seen = watch.wait_for("waiting", why="paused by cli ann: backup runs")
        order(bench, OverrideKind.UP)
        order(bench, OverrideKind.RESUME, by="cli ann")
        again = watch.wait_for("canary", after=seen)
        assert watch.states[seen:again] == ["probing", "canary"]
        watch.wait_for("armed", after=again)
    assert delivered(bench) == 30
    bench.assert_balanced()


def test_a_hook_that_says_down_stops_the_drain_until_checks_go_well(
    bench: Bench,
) -> None:
    """The primary is well after all: it goes on by itself."""
    fill(bench, 20)
    with watching(bench) as watch:
        watch.wait_for("ramp")
        assert bench.run("hook", "down", "--reason", "monit").code == 0
        down = watch.wait_for("down", why="monit")
        watch.wait_for("armed", after=down)
    assert delivered(bench) == 20


def test_what_a_hook_said_before_the_watch_began_counts_for_a_while(
    bench: Bench,
) -> None:
    """And says that nobody listens yet; the last word counts."""
    said = bench.run("hook", "up", "--json")
    assert said.json["watch"] is False
    assert bench.run("hook", "down", "--json").json["id"] > said.json["id"]
    with watching(bench) as watch:
        watch.wait_for("down")
        assert bench.run("hook", "up", "--json").json["watch"] is True


def test_what_a_hook_said_long_before_counts_no_more() -> None:
    """[watch] remember."""
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    old = Override(at=now - timedelta(hours=2), ask=OverrideKind.DOWN)
    new = Override(at=now, ask=OverrideKind.UP, by="http 192.0.2.1", reason="kuma")
    pause = Override(at=now, ask=OverrideKind.PAUSE)
    assert last_hook([old, pause], now - timedelta(hours=1)) is None
    happening = last_hook([old, new, pause], now - timedelta(hours=1))
    assert happening is not None
    assert happening.why == "up by http 192.0.2.1: kuma"


def test_outside_of_its_hours_a_well_primary_is_waited_for_with_nothing_sent(
    bench: Bench,
) -> None:
    """It says until when."""
    soon = datetime.now().astimezone() + timedelta(hours=2)
    late = soon + timedelta(hours=1)
    bench.configure(watch={"windows": [f"{soon:%H}:00-{late:%H}:00"]})
    fill(bench, 1)
    with watching(bench) as watch:
        watch.wait_for("waiting", why="outside of [watch] windows")
        assert f"{soon:%H}:00:00" in watch.changes[-1][1]
    assert "canary" not in watch.states


# ---- the service manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Give the socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(30)
        yield link


def heard(manager: socket.socket, start: str) -> str:
    """Wait for a datagram that starts so."""
    while not (said := manager.recv(4096).decode()).startswith(start):
        pass
    return said


def test_a_good_configuration_is_taken_up_and_a_bad_one_refused(
    bench: Bench, manager: socket.socket, tmp_path: Path
) -> None:
    """SIGHUP; the drain that runs begins again when it would do otherwise now."""
    fill(bench, 40)
    name = str(tmp_path / "notify")
    with watching(bench, NOTIFY_SOCKET=name, JOURNAL_STREAM="1:2") as watch:
        heard(manager, "READY=1")
        watch.wait_for("ramp")
        bench.config.write_text("[throttle]\nrate = 'fast'\n", "utf-8")
        watch.send(signal.SIGHUP)
        heard(manager, "RELOADING=1\nMONOTONIC_USEC=")
        heard(manager, "READY=1")
        watch.wait_said("the configuration is invalid, the old one stays")
        bench.configure(throttle={"rate": "unlimited"})
        assert bench.config.exists()  # written anew
        watch.send(signal.SIGHUP)
        heard(manager, "RELOADING=1")
        heard(manager, "READY=1")
        watch.wait_for("armed")
        assert watch.states.count("canary") == 2
        heard(manager, "STATUS=armed")
        assert watch.end() == 0
        heard(manager, "STOPPING=1")
    assert watch.text.startswith("<6>watching ")  # a journal has its own times
    assert delivered(bench) == 40


def test_another_primary_needs_another_watch(bench: Bench) -> None:
    """SIGHUP refuses it; a second one of the same primary is, not for its port."""
    bench.configure(hook={"listen": f"127.0.0.1:{free_port()}"})
    with watching(bench) as watch:
        watch.wait_for("armed")
        second = bench.run("watch", source(bench))
        assert second.code == 6
        assert "another `drainer watch`" in second.stderr
        bench.configure(primary={"port": 1})
        assert bench.config.exists()  # written anew
        watch.send(signal.SIGHUP)
        watch.wait_said("needs a watch of its own")


def test_without_a_source_or_a_primary_it_is_a_usage_error(bench: Bench) -> None:
    """Exit status 2, before anything is begun."""
    assert bench.run("watch").code == 2
    assert bench.run("watch", "postfix:/nowhere").code == 2
    assert not bench.ledger.exists()


# ---- what it tells


def test_a_digest_that_no_relay_would_take_is_reported_at_once(bench: Bench) -> None:
    """Reports may go to whoever wrote; a digest needs a server for everybody."""
    bench.configure(
        watch={"digest": "07:00", "postmaster": "postmaster@example.org"},
        bounce={"via": "mx"},
    )
    refused = bench.run("watch", source(bench))
    assert refused.code == 2
    assert "for reports only" in refused.stderr


def test_every_period_of_the_watch_is_a_span_when_it_ends(bench: Bench) -> None:
    """A trace of its own, which starts as the one before ends; drains are linked."""
    traces = bench.root / "traces.jsonl"
    bench.configure(telemetry={"traces": f"file:{traces}"})
    fill(bench, 3)
    with watching(bench) as watch:
        watch.wait_for("armed")
    spans = [
        span
        for line in traces.read_text("utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    periods = [span for span in spans if span["name"].startswith("watch.")]
    assert [span["name"] for span in periods] == [f"watch.{s}" for s in watch.states]
    assert len({span["traceId"] for span in periods}) == len(periods)
    assert not any("parentSpanId" in span for span in periods)
    for before, after in itertools.pairwise(periods):
        assert int(before["startTimeUnixNano"]) <= int(before["endTimeUnixNano"])
        ended, began = before["endTimeUnixNano"], after["startTimeUnixNano"]
        assert abs(int(began) - int(ended)) < 10**9
    (drain,) = [span for span in spans if span["name"] == "drain"]
    linked = {
        (link["traceId"], link["spanId"])
        for span in periods
        for link in span.get("links", ())
    }
    assert linked == {(drain["traceId"], drain["spanId"])}


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Give this process its handlers back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_whoever_serves_it_sees_everything_as_json(bench: Bench) -> None:
    """Woken by every change; nothing is read for it."""
    fill(bench, 15)
    seen: list[StatusSnapshot] = []

    async def serve(watched: WatchView) -> None:
        while not seen or seen[-1]["state"] != "armed":
            await watched.wait_for_change()
            seen.append(json.loads(json.dumps(watched.snapshot())))
        os.kill(os.getpid(), signal.SIGTERM)

    plan = make_plan(settings(bench), (source(bench),))
    asyncio.run(within(30, Watch(plan, lambda: plan, lambda: serve).run()))
    last = seen[-1]
    running = [each["run"] for each in seen if each["run"] is not None]
    assert running[-1]["limit"] == 10
    assert max(run["rate_now"] for run in running) > 0
    assert last["run"] is None
    assert last["primary"] == ROUTE.format(bench.port)
    [route] = last["routes"]
    assert route["route"] == last["primary"]
    assert route["answered"] == last["primary"]
    assert route["breaker"]["state"] == "closed"
    assert last["history"][-1][2] == 10
    assert route["latency"]["dot_ms"] is not None
    assert [check["verdict"] for check in route["checks"]].count("fail") == 0
    assert [change["state"] for change in last["last_decisions"]][-2:] == [
        "done",
        "armed",
    ]


async def within(seconds: float, doing: Awaitable[None]) -> None:
    """Wait for something, not for ever."""
    async with asyncio.timeout(seconds):
        await doing


def test_the_daily_digest_goes_to_the_postmaster_by_the_reports_relay(
    bench: Bench,
    peer: StartPeer,
) -> None:
    """At its time of day, once."""
    relay = peer()
    bench.configure(
        bounce={"via": f"127.0.0.1:{relay.port}"},
        watch={"digest": "07:00", "postmaster": "postmaster@example.org"},
    )
    fill(bench, 1)
    assert bench.drain().code == 0
    config = settings(bench)
    asyncio.run(mail_daily(config, utcnow()))
    (mail,) = relay.accepted
    assert mail.content is not None
    assert b"To: <postmaster@example.org>" in mail.content
    assert b"delivered" in mail.content
    noon = datetime(2026, 11, 25, 12, tzinfo=UTC)
    due = next_digest(config, noon, lambda moment: moment)
    assert due == datetime(2026, 11, 26, 7, tzinfo=UTC)


# ---- refusals that rest


def test_a_refusal_is_confirmed_by_the_watch_and_settled(
    tmp_path: Path, peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ripe, tried again with nobody there, and kept, as nobody is to be told."""
    monkeypatch.chdir(tmp_path)
    nobody, bob = "nobody@example.org", "bob@example.org"
    users = per_recipient({bob: "250 2.1.5 ok"}, "550 5.1.1 User unknown")
    bench = Bench(tmp_path, peer(rcpt=users).port)
    prepare(bench, bounce={"confirm_after": "1s", "send": False})
    bench.add(nobody, sender="amy@example.com")
    with watching(bench) as watch:
        watch.wait_for("canary")
        bench.add(bob, sender="cid@example.net")
        wait_until(
            lambda: bench.states().get(nobody) == "quarantined",
            timeout=30,
            what="the confirmation",
        )
    assert bench.states()[bob] == "delivered"
    bench.assert_balanced()


def test_a_hook_that_says_up_ends_a_pause_of_the_breaker(
    tmp_path: Path, peer: StartPeer
) -> None:
    """The drain that waits for ten minutes tries a message at once."""
    bye = ReplyThenDrop("421 4.3.2 restarting")
    well = "220 peer.example ESMTP"
    primary = peer(banner=in_turn(well, well, bye, well))  # two checks, the drain
    bench = Bench(tmp_path, primary.port)
    prepare(bench, breaker={"pauses": ["10m"], "give_up_after": "1h"})
    bench.add("bob@example.org")
    with watching(bench) as watch:
        waits = watch.wait_for("waiting", why="421")
        assert bench.run("hook", "up", "--reason", "it was restarted").code == 0
        watch.wait_for("armed", after=waits)
        said = watch.text
    assert f"reported up by cli {getpass.getuser()} because it was restarted" in said
    assert delivered(bench) == 1
