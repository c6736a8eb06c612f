"""What the tests of whole drains share: addresses, peers, and what reached them."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Command,
    Message,
    Stall,
    in_turn,
)

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.org"
PLAIN = tuple(word for word in EXTENSIONS if word != "PIPELINING")
PIPELINING = pytest.mark.parametrize(
    "extensions", [EXTENSIONS, PLAIN], ids=["pipelined", "one-by-one"]
)
#: More than any socket buffer takes, so that the peer's words come in the middle.
LARGE = b"Subject: large\n\n" + b"0123456789abcdef" * 4 * 1024 * 64 + b"\n"
SILENT = Stall()
SHORT = {"command_timeout": "150ms", "data_timeout": "150ms", "dot_timeout": "150ms"}

StartPeer = Callable[..., PeerThread]


def verbs(peer: PeerThread) -> list[str]:
    """Return the verbs of all commands, in order."""
    return [command.line.split(b" ")[0].decode().upper() for command in peer.commands]


def sent(peer: PeerThread) -> list[tuple[str, ...]]:
    """Return the recipients of every message that the peer took."""
    return [tuple(message.forward_paths) for message in peer.accepted]


FOR_GOOD = {
    "banner": "554 5.3.2 no",
    "ehlo": "554 5.7.1 no",
    "starttls": "554 5.7.0 no",
    "auth": "535 5.7.8 no",
}


def refused_before_mail(
    start: StartPeer, bench: Bench, script: dict[str, Any], *, again: bool
) -> PeerThread:
    """Check that the drain stopped, that nothing was judged, and how often it asked.

    What is tried again is refused twice, and then for good.
    """
    silent = SILENT in script.values()
    if again:
        ((stage, step),) = [(key, script[key]) for key in script if key in FOR_GOOD]
        script = script | {stage: in_turn(step, step, FOR_GOOD[stage])}
    server = start(**script)
    bench.port = server.port
    bench.configure(
        primary={"banner_timeout": "300ms"} if silent else {},
        breaker={"give_up_after": "30s"},
    )
    queue_id = bench.add(ALICE, BOB)
    result = bench.drain()
    assert result.code == 4, result
    assert result.json["exit"] == 4
    assert bench.states() == {ALICE: "pending", BOB: "pending"}
    assert {fact["attempts"] for fact in bench.recipients().values()} == {0}
    assert bench.verdicts(queue_id) == []
    assert "MAIL" not in verbs(server)
    assert server.connections == (3 if again else 1)
    bench.assert_balanced()
    return server


#: One attempt each, whatever else goes on; a lost connection is waited out.
PATIENT: dict[str, dict[str, object]] = {
    "retry": dict.fromkeys(("first", "max", "long_first", "long_max", "unknown"), "1h"),
    "breaker": {"pauses": ["10ms"], "give_up_after": "30s"},
}


NOBODY = Message("", {}, 0, 0, Command(0, 0, b""))
