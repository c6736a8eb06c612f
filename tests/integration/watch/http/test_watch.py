"""The server of a real watch: hooks make it look, orders hold it, its page follows."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drainer.ledger import engine
from tests.deploy.programs import program
from tests.support.command.installed import write_maildir
from tests.support.command.runner import Bench, end, environment
from tests.support.command.watch import Watcher, prepare, source, watching
from tests.support.mta.postfix import free_port, wait_until
from tests.support.smtp_peer.peer import PeerThread
from tests.support.web.http_server import (
    HMAC,
    OPEN,
    OPERATOR,
    TOKEN,
    Hooked,
    Show,
    armed,
)

StartPeer = Callable[..., PeerThread]
COUNT = 30


@pytest.fixture
def bench(tmp_path: Path, peer: StartPeer, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a bench whose watch looks for new mail rarely, and serves HTTP."""
    monkeypatch.chdir(tmp_path)
    made = Bench(tmp_path, peer().port)
    files = {"token_file": TOKEN, "operator_token_file": OPERATOR}
    for name, secret in files.items():
        path = tmp_path / name
        path.write_text(f"{secret}\n", "utf-8")
        path.chmod(0o600)
    prepare(
        made,
        watch={"rescan": "5m"},
        throttle={"rate": "10/second", "ramp": "0s"},
        hook={"listen": "127.0.0.1:0", **{k: str(tmp_path / k) for k in files}},
    )
    return made


def served(bench: Bench, watch: Watcher) -> Hooked:
    """Return a client of the server that a watch says it has."""
    watch.wait_said("the hook listens on http://127.0.0.1:")
    place = watch.text.partition("the hook listens on http://")[2].partition("/")[0]
    url = engine.parse_url(str(bench.ledger))
    client = Hooked(OPEN, Show(armed(0)), url)
    client.port = int(place.rpartition(":")[2])
    return client


def test_a_hook_makes_a_watch_look_and_orders_hold_its_drain(bench: Bench) -> None:
    """From the alert that is resolved to the last message, seen over HTTP."""
    with watching(bench) as watch:
        seen = watch.wait_for("armed")
        server = served(bench, watch)
        for n in range(COUNT):
            bench.add(f"user{n}@example.org")
        assert server.get("/readyz").json["state"] == "armed"
        assert server.post("/hooks/primary-up", {}).status == 401
        answers = [server.post("/hooks/primary-up", {}, token=TOKEN) for _ in "ab"]
        assert [answer.status for answer in answers] == [202, 202]
        watch.wait_for("probing", after=seen, why="http 127.0.0.1 hook")
        watch.wait_for("ramp", after=seen)
        pause = {"reason": "a new disk"}
        assert server.post("/api/pause", pause, token=OPERATOR).status == 202
        held = watch.wait_for("waiting", why="a new disk")
        facts = server.get("/api/status", token=OPERATOR).json
        assert facts["watch"]["controls"]["pause"]["reason"] == "a new disk"
        assert facts["ledger"]["balanced"] is True
        assert facts["ledger"]["spooled"] == COUNT
        assert server.post("/api/resume", pause, token=OPERATOR).status == 202
        watch.wait_for("armed", after=held)
        route = f"127.0.0.1:{bench.port}"
        delivered = f'drainer_recipients{{route="{route}",state="delivered"}} {COUNT}.0'
        at_rest = 'drainer_watch_state{state="armed"} 1.0'
        # Asking often meets the limit of requests: then it is asked again.
        wait_until(
            lambda: {delivered, at_rest} <= set(metrics(server).splitlines()),
            timeout=20,
            what=f"{delivered}, {at_rest}",
        )
        wait_until(
            lambda: [change["state"] for change in history(server)] == watch.states,
            timeout=20,
            what="the states on the page",
        )
    bench.assert_balanced()


def metrics(server: Hooked) -> str:
    """Return what Prometheus would read; sums of the ledger may be some seconds old."""
    return server.get("/metrics", token=TOKEN).body.decode()


def history(server: Hooked) -> list[dict[str, str]]:
    """Return the changes of state that the page shows."""
    facts = server.get("/api/status", token=OPERATOR).json
    found: list[dict[str, str]] = facts.get("watch", {}).get("last_decisions", [])
    return found


def test_an_order_over_http_holds_a_drain_by_hand_too_and_a_command_lets_both_go_on(
    bench: Bench,
) -> None:
    """Every door leads to the ledger, and whoever drains looks there."""
    other = bench.root / "other"
    write_maildir(other, 150)
    with watching(bench) as watch:
        seen = watch.wait_for("armed")
        server = served(bench, watch)
        drain = bench.start("drain", f"maildir:{other}", "--no-check", "--json")
        wait_until(lambda: bool(paces(bench)), timeout=20, what="a drain by hand")
        order = {"reason": "a new disk", "for": "1h"}
        assert server.post("/api/pause", order, token=OPERATOR).status == 202
        wait_until(
            lambda: "throttle-pause" in paces(bench), timeout=20, what="its pause"
        )
        bench.add("user@example.org")
        server.post("/hooks/primary-up", token=TOKEN)
        held = watch.wait_for("waiting", after=seen, why="a new disk")
        assert drain.poll() is None
        bench.run("throttle", "set", "500/second", "--reason", "it is in")
        bench.run("throttle", "resume")
        ended = end(drain)
        watch.wait_for("armed", after=held)
    assert ended.code == 0, ended.stderr
    assert ended.json["recipients"]["delivered"] >= 150
    bench.assert_balanced()


def test_a_hook_that_comes_before_the_watch_is_answered_by_it(bench: Bench) -> None:
    """On a socket that systemd holds, by its own program for that."""
    bench.configure(hook={"listen": "systemd", "token_file": "", "hmac": HMAC})
    port = free_port()
    command = [program("systemd-socket-activate"), "-l", f"127.0.0.1:{port}"]
    command += [sys.executable, "-m", "drainer"]
    command += map(str, bench.arguments("watch", source(bench)))
    client = Hooked(OPEN, Show(armed(0)), engine.parse_url(str(bench.ledger)))
    client.port = port
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as watch:
        wait_until(lambda: reached(client), timeout=20, what="a socket that listens")
        assert client.post("/hooks/primary-up").status == 401
        assert client.get("/api/status", token=OPERATOR).json["watch"]["state"]
        watch.terminate()
        said = watch.communicate(timeout=20)[1].decode()
    assert watch.returncode == 0, said
    assert f"the hook listens on http://127.0.0.1:{port}/" in said


def test_a_socket_that_was_not_handed_over_is_missed(bench: Bench) -> None:
    """Exit status 2, with what to do."""
    bench.configure(hook={"listen": "systemd"})
    ended = bench.run("watch", source(bench))
    assert ended.code == 2
    assert "let drainer.socket start the service" in ended.stderr


def reached(client: Hooked) -> bool:
    """Tell whether somebody answers."""
    with contextlib.suppress(ConnectionRefusedError):
        return client.get("/healthz").status == 200
    return False


def paces(bench: Bench) -> list[str]:
    """Return by which rule each drain that runs goes as fast as it does."""
    shown = bench.run("throttle", "show", "--json").json["drains"]
    return [each.get("rule", "") for each in shown]


def test_a_watch_ends_in_time_although_a_page_listens(bench: Bench) -> None:
    """With its exit status, and the stream's end."""
    with watching(bench) as watch:
        watch.wait_for("armed")
        server = served(bench, watch)
        connection = server.connect()
        headers = {"Authorization": f"Bearer {OPERATOR}"}
        connection.request("GET", "/api/events", headers=headers)
        response = connection.getresponse()
        assert response.readline() == b"event: status\n"
        assert watch.end() == 0
        assert response.read().endswith(b"\n\n")
        connection.close()


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ({"listen": "0.0.0.0:0", "token_file": ""}, "beyond loopback a token"),
        ({"token_file": "/nowhere"}, "cannot be read"),
        ({"listen": "192.0.2.1:80"}, "cannot listen on 192.0.2.1 port 80"),
        ({"tls_cert": "/nowhere", "tls_key": "/nowhere"}, "certificate /nowhere"),
    ],
    ids=["no token", "no file", "no address", "no certificate"],
)
def test_a_server_that_cannot_be_ends_the_watch_with_words(
    bench: Bench, hook: dict[str, object], words: str
) -> None:
    """Exit status 2, before anything is looked at."""
    bench.configure(hook=hook)
    ended = bench.start("watch", source(bench))
    _, said = ended.communicate(timeout=60)
    assert ended.returncode == 2, said
    assert words in said
    assert "watch probing" not in said
