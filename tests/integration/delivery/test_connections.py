"""How a drain opens its sessions."""

from pathlib import Path

from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script

SLOW = Delay(1.5, "220 peer.example ESMTP")
BANNERS = {1: "220 peer.example ESMTP"}
DOT = Delay(0.1, "250 2.0.0 ok")
ROOM = 1.4
"""Less than one banner takes: no session waited for that of another."""


def test_sessions_are_opened_side_by_side_once_one_is_open(tmp_path: Path) -> None:
    """A round trip costs time once, not once for each of the connections."""
    bench = Bench(tmp_path)
    for n in range(40):
        bench.add(f"user{n}@example.org")
    script = Script(banner=lambda view: BANNERS.get(view.connection, SLOW), dot=DOT)
    with PeerThread(script) as peer:
        to = ("--to", f"127.0.0.1:{peer.port}")
        result = bench.drain(*to, "--connections", "4", "--rate", "unlimited")
    assert result.code == 0, result.stderr
    begun = {each.connection: each.at for each in reversed(peer.commands)}
    assert sorted(begun) == [1, 2, 3, 4]
    others = [at for connection, at in begun.items() if connection > 1]
    assert max(others) - min(others) < ROOM
