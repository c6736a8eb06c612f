"""The primary receives exactly the bytes of the spool.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

from collections.abc import Iterator

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import ALICE, BOB, StartPeer
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Message,
)

LINE = b"x" * 70 + b"\n"
CONTENTS: dict[str, bytes] = {
    "dots": b"Subject: x\n\n.\n..\n...\n.a\n a.\n.\n",
    "a-dot-first": b".Subject: x\n.\n",
    "no-final-newline": b"Subject: x\n\nlast line",
    "a-final-dot-without-newline": b"Subject: x\n\n.",
    "long-lines": b"Subject: x\n\n" + b"y" * 5000 + b"\n" + b"z" * 2048 + b"\n",
    "8-bit": b"Subject: x\n\n" + bytes(range(128, 256)) + b"\n",
    "nul": b"Subject: x\n\na\0b\n",
    "header-only": b"Subject: x\n",
    "blank-lines": b"Subject: x\n\n\n\n\n",
    "large-dots": b"Subject: x\n\n" + (b".\n..\n" + LINE) * 8000,
}


@pytest.fixture(scope="module")
def contents(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Message]]:
    """Drain a message for each content; give what arrived."""
    bench = Bench(tmp_path_factory.mktemp("contents"))
    with PeerThread() as server:
        bench.port = server.port
        for name, text in CONTENTS.items():
            bench.add(f"{name}@example.org", sender=f"{name}@example.com", text=text)
        assert bench.drain().code == 0
        yield {m.reverse_path.partition("@")[0]: m for m in server.accepted}
    assert server.violations == []


@pytest.mark.parametrize("name", CONTENTS)
def test_what_arrives_is_what_lay_in_the_spool(
    contents: dict[str, Message], name: str
) -> None:
    """Byte for byte, but for the line ends of SMTP; SIZE says how many."""
    content = contents[name].content or b""
    head, _, wire = content.partition(b"\r\n")
    assert head.startswith(b"Message-ID: ")
    text = CONTENTS[name].replace(b"\n", b"\r\n")
    assert wire == text + (b"" if text.endswith(b"\r\n") else b"\r\n")
    assert contents[name].parameters["SIZE"] == str(len(content))


def test_a_bare_newline_never_leaves(peer: StartPeer, bench: Bench) -> None:
    """RFC 5321 2.3.8: the message is set aside, or mended when that was asked for."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE, text=b"Subject: x\n\na\rb\n.\r.\n")
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held"}
    assert bench.recipients()[ALICE]["rule"] == "local-bare-newline"
    bench.configure(primary={"bare_newlines": "space"})
    bench.add(BOB, text=b"Subject: y\n\na\rb\n.\r.\n")
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}
    content = server.accepted[0].content or b""
    assert content.endswith(b"\r\n\r\na b\r\n. .\r\n")
