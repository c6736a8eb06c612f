"""A relay on loopback that makes a distance: what passes it arrives later.

``python -m tests.bench.delay PORT MILLISECONDS`` listens on a free port, prints it, and
passes connections on to PORT. Half of the round trip is added in each direction, and a
whole one to the handshake of TCP. Bandwidth is not limited.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from typing import cast

import uvloop


class _Pipe(asyncio.Protocol):
    """One end of a connection; what it receives is written to the other, later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[tuple[float, bytes | None]] = deque()
        self._is_timed = False
        self.transport: asyncio.Transport | None = None
        self.other: _Pipe | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._later(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._later(None)

    def _later(self, data: bytes | None) -> None:
        self._arrived.append((self._loop.time() + self._delay, data))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._arrived and not self._is_timed:
            self._is_timed = True
            self._loop.call_at(self._arrived[0][0], self._pass_on)

    def _pass_on(self) -> None:
        self._is_timed = False
        now = self._loop.time()
        while self._arrived and self._arrived[0][0] <= now:
            if self.other is None or self.other.transport is None:
                self._arrived[0] = (now + self._delay, self._arrived[0][1])
                break
            data = self._arrived.popleft()[1]
            if data is None:
                self.other.transport.close()
            else:
                self.other.transport.write(data)
        self._set_timer()


class _Front(_Pipe):
    """The end that faces the client; it connects to the server a round trip later."""

    def __init__(self, port: int, delay: float) -> None:
        super().__init__(delay)
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._loop.call_later(2 * self._delay, self._connect)

    def _connect(self) -> None:
        self._task = self._loop.create_task(self._open())

    async def _open(self) -> None:
        back = _Pipe(self._delay)
        back.other, self.other = self, back
        with contextlib.suppress(OSError):
            await self._loop.create_connection(lambda: back, "127.0.0.1", self._port)
            return
        cast("asyncio.Transport", self.transport).abort()


@contextlib.contextmanager
def distance(port: int, milliseconds: float) -> Iterator[int]:
    """Run a relay in a process of its own; return the port that is so far away."""
    argv = [sys.executable, "-m", "tests.bench.delay", str(port), str(milliseconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def _serve(port: int, milliseconds: float) -> None:
    half = milliseconds / 2000
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Front(port, half), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
