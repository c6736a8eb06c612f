"""Replies of every shape, hostile ones among them.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Self

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import (
    ALICE,
    BOB,
    NOBODY,
    PATIENT,
    PIPELINING,
    StartPeer,
)
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Raw,
    Script,
    Step,
    View,
    per_recipient,
)


class Dribble:
    """A proxy that hands on what the server says in pieces of one octet."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)

        async def upwards() -> None:
            while data := await reader.read(65536):
                up_writer.write(data)
            up_writer.close()

        with contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                group.create_task(upwards())
                while octet := await up_reader.read(1):
                    writer.write(octet)
                    await asyncio.sleep(0)
                writer.close()


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
@PIPELINING
def test_replies_may_come_octet_by_octet(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...], protocol: str
) -> None:
    """Nothing depends on how a reply is cut into packets."""
    server = peer(
        lmtp=protocol == "lmtp",
        extensions=extensions,
        mail="250-2.1.0 first\n250-2.1.0 second\n250 2.1.0 third",
        rcpt=per_recipient({BOB: "550-5.1.1 no\n550-5.1.1 such\n550 5.1.1 user"}),
        dot="250-2.0.0 taken\n250 2.0.0 as 12345",
    )
    with Dribble(server.port) as proxy:
        bench.port = proxy.port
        bench.configure(primary={"protocol": protocol})
        bench.add(ALICE, BOB)
        assert bench.drain().code == 5
    found = bench.recipients()
    assert found[ALICE]["reply"] == "250 2.0.0 taken as 12345"
    assert found[BOB]["reply"] == "550 5.1.1 no such user"


SHAPES: dict[str, tuple[bytes, str]] = {
    "bare-lf": (b"250 2.0.0 ok\n", "delivered"),
    "no-text": (b"250\r\n", "delivered"),
    "no-text-but-a-blank": (b"250 \r\n", "delivered"),
    "cr-cr-lf": (b"250 2.0.0 ok\r\r\n", "delivered"),
    "leading-blanks": (b"  250-a\r\n  250 b\r\n", "delivered"),
    "bare-lf-in-many-lines": (b"250-a\n250-b\n250 c\n", "delivered"),
    "100-lines": (b"250-x\r\n" * 99 + b"250 x\r\n", "delivered"),
    "a-line-of-4000": (b"250 " + b"x" * 4000 + b"\r\n", "delivered"),
    "latin-1": (b"250 2.0.0 \xfcber\r\n", "delivered"),
    "controls": (b"250 2.0.0 \x1b[2J\x00\r\n", "delivered"),
    "refused-with-controls": (b"550 5.1.1 \x1b[2J\x1b]0;x\x07\r\n", "bounce-pending"),
    "two-at-once": (b"250 2.0.0 ok\r\n421 4.4.2 idle\r\n", "delivered"),
    "1xx": (b"150 hm\r\n", "unknown"),
    "6xx": (b"650 hm\r\n", "unknown"),
    "no-code": (b"OK\r\n", "unknown"),
    "code-and-letter": (b"250ok\r\n", "unknown"),
    "empty-line": (b"\r\n", "unknown"),
    "a-banner": (b"220 peer.example ESMTP\r\n", "unknown"),
    "a-farewell": (b"221 2.7.0 I can break rules, too. Goodbye.\r\n", "unknown"),
    "mixed-to-250": (b"550-5.1.1 no\r\n250 ok\r\n", "unknown"),
    "mixed-to-550": (b"250-ok\r\n550 5.1.1 no\r\n", "held"),
    "mixed-to-554-5.6.0": (b"451-5.6.0 x\r\n554 5.6.0 no\r\n", "held"),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Drain a message for each shape of the last reply, each on its own connection."""
    bench = Bench(tmp_path_factory.mktemp("shapes"))
    bench.configure(primary={"max_messages": 1}, **PATIENT)

    def dot(view: View) -> Step:
        path = (view.message or NOBODY).reverse_path
        return Raw(SHAPES[path.partition("@")[0]][0])

    with PeerThread(Script(dot=dot)) as server:
        bench.port = server.port
        for name in SHAPES:
            bench.add(f"{name}@example.org", sender=f"{name}@shape.example")
        assert bench.drain().code == 5
        bench.assert_balanced()
        yield bench
    assert server.violations == []


@pytest.fixture(scope="module")
def shaped(shapes: Bench) -> dict[str, str]:
    """Give the state of every recipient after that."""
    return shapes.states()


@pytest.mark.parametrize("name", SHAPES)
def test_replies_of_every_shape(shaped: dict[str, str], name: str) -> None:
    """What can be understood is; what cannot be is never permanent."""
    assert shaped[f"{name}@example.org"] == SHAPES[name][1]


def test_what_a_primary_says_harms_no_terminal(shapes: Bench) -> None:
    """Controls in a reply are escaped wherever a person reads it."""
    for command in (["list"], ["status"], ["list", "--reply", "550"]):
        assert "\x1b" not in shapes.run(*command).stdout
    for fact in shapes.recipients().values():
        assert "\x1b" not in shapes.run("why", fact["id"]).stdout
        assert "\x1b" not in shapes.run("show", fact["id"]).stdout


def test_an_endless_reply_to_a_recipient_is_cut_off(
    peer: StartPeer, bench: Bench
) -> None:
    """A hundred kilobytes without a line end: the connection is given up."""
    server = peer(rcpt=Raw(b"550-" + b"x" * 100_000))
    bench.port = server.port
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}
