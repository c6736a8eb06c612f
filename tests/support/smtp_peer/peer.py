"""A scripted SMTP server on a real socket.

``Peer`` lives in the running event loop, ``PeerThread`` in a thread with a loop of its
own, so that a test may run a subprocess against it. Both keep what they saw as plain
lists, which may be read at any time from any thread:

    with PeerThread(Script(rcpt="450 4.2.1 busy")) as peer:
        ...  # a client talks to 127.0.0.1, peer.port
        peer.wait(lambda: len(peer.messages) == 3)
        assert [message.content for message in peer.accepted] == [...]

``peer.script`` may be exchanged meanwhile. A conversation that fails for a reason of
ours, such as an exception in a scripted function, shows up among the violations.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Self

from tests.support.mta.postfix import free_port
from tests.support.smtp_peer.conversation import Conversation
from tests.support.smtp_peer.script import Command, Message, Script
from tests.support.smtp_peer.wire import Wire

BACKLOG = 1000


class Peer:
    """The server and its records; an asynchronous context manager."""

    def __init__(
        self, script: Script | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Prepare; without a port any free one is taken when it listens.

        A host ``unix:PATH`` is a Unix socket, and has no port.
        """
        self.script = Script() if script is None else script
        self.host = host
        self.port = port
        #: Every command line, in order of arrival.
        self.commands: list[Command] = []
        #: Of all connections, in order.
        self.wires: list[Wire] = []
        #: Every transaction whose MAIL was accepted.
        self.transactions: list[Message] = []
        #: Those of them whose final dot arrived.
        self.messages: list[Message] = []
        #: User and password of every AUTH.
        self.logins: list[tuple[str, str]] = []
        #: What a client must not do, in words.
        self.violations: list[str] = []
        #: Connections so far, open now, and open at once at most.
        self.connections = 0
        self.open_connections = 0
        self.max_concurrent = 0
        self._changed = threading.Condition()
        self._pulse = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def accepted(self) -> list[Message]:
        """The messages that it took responsibility for."""
        return [message for message in self.messages if message.accepted]

    # ---- in the event loop

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def listen(self) -> None:
        """Open the port, or the socket."""
        loop = asyncio.get_running_loop()
        if self.host.startswith("unix:"):
            path = self.host.removeprefix("unix:")
            self._server = await loop.create_unix_server(
                lambda: Wire(self._opened), path, backlog=BACKLOG
            )
            return
        context = self.script.tls if self.script.implicit_tls else None
        self._server = await loop.create_server(
            lambda: Wire(self._opened),
            self.host,
            self.port or free_port(self.host),
            ssl=context,
            backlog=BACKLOG,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close the port and break every connection; harmless when repeated."""
        if self._server is None:
            return
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _opened(self, wire: Wire) -> None:
        self.connections += 1
        self.wires.append(wire)
        self.open_connections += 1
        self.max_concurrent = max(self.max_concurrent, self.open_connections)
        task = asyncio.get_running_loop().create_task(
            self._converse(wire, self.connections)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.note()

    async def _converse(self, wire: Wire, number: int) -> None:
        try:
            await Conversation(self, wire, number).run()
        except asyncio.CancelledError:
            wire.transport.abort()
            raise
        except Exception as error:  # noqa: BLE001  the test must see it, whatever it is
            self.violations.append(f"connection {number}: the peer failed: {error!r}")
            wire.transport.abort()
        finally:
            self.open_connections -= 1
            self.note()

    async def until(self, holds: Callable[[], bool], *, timeout: float = 10) -> None:  # noqa: ASYNC109
        """Wait, in the peer's own loop, for a condition on its records.

        Raises TimeoutError.
        """
        async with asyncio.timeout(timeout):
            while not holds():
                self._pulse.clear()
                await self._pulse.wait()

    # ---- from any thread

    def note(self) -> None:
        """Wake those who wait."""
        self._pulse.set()
        with self._changed:
            self._changed.notify_all()

    def wait(self, holds: Callable[[], bool], *, timeout: float = 10) -> None:
        """Wait, in any other thread, for a condition on its records.

        Raises TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(holds, timeout):
                last = self.commands[-3:]
                msg = f"not within {timeout} s; last {last}; {self.violations}"
                raise TimeoutError(msg)


class PeerThread(Peer):
    """A peer in a thread of its own; a plain context manager."""

    def __init__(
        self, script: Script | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Prepare, as a Peer."""
        super().__init__(script, host=host, port=port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave = asyncio.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Start; the port is open on return. Raises OSError when it is taken."""
        self._ready.clear()
        self._leave = asyncio.Event()
        self._pulse = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="peer", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self:
            self._ready.set()
            await self._leave.wait()

    def stop(self) -> None:
        """Close the port and break every connection; harmless when repeated.

        Started again it has the same port and goes on with its records.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._leave.set)
        thread.join()
