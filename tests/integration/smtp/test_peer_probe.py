"""What listens on a port that does not answer as an SMTP server does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drainer.mail.reply import Lost, Reply, Stage
from drainer.smtp.peer_probe import identify
from drainer.smtp.route import Route
from tests.support.command.runner import Bench, call
from tests.support.mta.roles import SmtpSink
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Stall
from tests.support.tls.certificates import self_signed

StartPeer = Callable[..., PeerThread]
UNKNOWN = Reply(code=500, text="unknown command")
SILENT = Lost(reason="timeout")


def found(port: int, stage: Stage, answer: Reply | Lost) -> str:
    """Return what the probe says about a port of this host."""
    return asyncio.run(identify(Route(host="127.0.0.1", port=port), stage, answer))


def check(tmp_path: Path, port: int, **primary: Any) -> str:
    """Run the check against a port that fails; return its hint."""
    bench = Bench(tmp_path)
    bench.port = port
    bench.configure(primary=primary)
    result = call("check", "--config", bench.config, "--json")
    assert result.code == 3
    return str(result.json["stages"][-1]["hint"])


def test_an_lmtp_server_is_named(
    smtp_sink: Callable[..., SmtpSink], tmp_path: Path
) -> None:
    """It refuses EHLO and HELO in words that say nothing, and knows LHLO."""
    assert "that is LMTP, not SMTP" in check(tmp_path, smtp_sink("-L").port)


def test_an_smtp_server_that_refuses_ehlo_is_not_called_lmtp(peer: StartPeer) -> None:
    """It refuses LHLO too."""
    server = peer(ehlo="500 no", helo="500 no", lenient=True)
    assert found(server.port, Stage.EHLO, UNKNOWN) == ""


def test_a_port_that_expects_tls_from_the_start_is_named(
    peer: StartPeer, tmp_path: Path
) -> None:
    """It says nothing before a handshake."""
    context = self_signed(tmp_path).server_context()
    server = peer(tls=context, implicit_tls=True, lenient=True)
    hint = check(tmp_path, server.port, banner_timeout="300ms")
    assert "expects TLS from the start" in hint


def test_a_silent_server_is_not_called_one_of_tls(peer: StartPeer) -> None:
    """It answers no handshake either."""
    server = peer(banner="554 no", lenient=True)
    assert found(server.port, Stage.BANNER, SILENT) == ""
    assert found(peer(banner=Stall(), lenient=True).port, Stage.MAIL, SILENT) == ""


@pytest.mark.parametrize(
    ("stage", "answer"),
    [
        (Stage.BANNER, Lost(reason="protocol")),
        (Stage.BANNER, Reply(code=554)),
        (Stage.EHLO, Lost(reason="closed")),
        (Stage.EHLO, Reply(code=550)),
        (Stage.MAIL, UNKNOWN),
    ],
)
def test_an_answer_that_says_enough_is_not_followed_by_a_probe(
    peer: StartPeer, stage: Stage, answer: Reply | Lost
) -> None:
    """No second connection is made for it."""
    server = peer()
    assert found(server.port, stage, answer) == ""
    assert server.connections == 0


def test_a_port_where_nothing_listens_is_no_error(peer: StartPeer) -> None:
    """The probe says nothing, and the failed stage keeps its own hint."""
    server = peer()
    server.stop()
    assert found(server.port, Stage.BANNER, SILENT) == ""
    assert found(server.port, Stage.EHLO, UNKNOWN) == ""
