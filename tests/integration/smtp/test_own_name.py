"""A primary with our own name is a loop, unless it only repeats what it hears."""

import asyncio
from collections.abc import Callable

import pytest

from drainer.smtp.canary import CanaryQuestion, ask_canary
from drainer.smtp.connection import ConnectFailure
from drainer.smtp.route import Route
from tests.support.command.runner import Bench, call
from tests.support.scenarios.sessions import ALICE, StartPeer, verbs
from tests.support.smtp_peer.script import Step, View

HELO = "backup.example"
KNOWS: dict[str, Callable[[View], Step]] = {
    "rcpt": lambda v: "250 ok" if v.path == ALICE else "550 5.1.1 no"
}


def echo(view: View) -> Step:
    """Introduce yourself with the name of the client."""
    name = view.command.line.split()[1].decode()
    return f"250-{name}\n250-PIPELINING\n250 8BITMIME"


@pytest.mark.parametrize(
    "banner", ["220 mx.example.org ready", "220 ESMTP", "220"], ids=repr
)
def test_a_primary_that_repeats_our_name_is_no_loop(
    peer: StartPeer, bench: Bench, banner: str
) -> None:
    """Check and drain alike: another name is repeated as well."""
    server = peer(ehlo=echo, banner=banner, **KNOWS)
    bench.port = server.port
    bench.configure(primary={"helo": HELO}, health={"accept": [ALICE]})
    assert call("check", "--config", bench.config).code == 0
    bench.add(ALICE)
    assert bench.drain(check=True).code == 0
    assert bench.states() == {ALICE: "delivered"}


@pytest.mark.parametrize(
    ("banner", "code"), [("220 mx.example.org ready", 0), ("220 ESMTP", 2)]
)
def test_the_banner_decides_if_a_second_ehlo_is_refused(
    peer: StartPeer, bench: Bench, banner: str, code: int
) -> None:
    """It cannot repeat our name; without a name in it, nothing speaks for the peer."""

    def once(view: View) -> Step:
        first = view.command.line.endswith(HELO.encode()) and not met
        met.append(view)
        return echo(view) if first else "503 5.5.1 duplicate EHLO"

    met: list[View] = []
    server = peer(ehlo=once, banner=banner, **KNOWS)
    bench.port = server.port
    bench.configure(primary={"helo": HELO})
    bench.add(ALICE)
    assert bench.drain().code == code


def test_a_canary_of_a_primary_that_repeats_our_name_is_sent(peer: StartPeer) -> None:
    """The canary asks in the same way."""
    server = peer(ehlo=echo)
    route = Route(host="127.0.0.1", port=server.port, helo=HELO)
    question = CanaryQuestion(sender="a@example.com", good=(ALICE,))
    assert not isinstance(asyncio.run(ask_canary(route, question)), ConnectFailure)
    assert "MAIL" in verbs(server)


@pytest.mark.parametrize(
    "script",
    [{"name": HELO}, {"banner": f"220 {HELO} ready"}],
    ids=["in-the-reply-to-ehlo", "in-the-banner"],
)
def test_allow_own_name_is_the_way_out(
    peer: StartPeer, bench: Bench, script: dict[str, str]
) -> None:
    """The error names the setting, and with it drainer delivers."""
    server = peer(**script, **KNOWS)
    bench.port = server.port
    bench.add(ALICE)
    bench.configure(primary={"helo": HELO}, health={"accept": [ALICE]})
    for result in (bench.drain(), bench.drain(check=True)):
        assert result.code == 2
        assert "allow_own_name" in result.stderr
    primary = {"helo": HELO, "allow_own_name": True}
    bench.configure(primary=primary, health={"accept": [ALICE]})
    assert bench.drain(check=True).code == 0
