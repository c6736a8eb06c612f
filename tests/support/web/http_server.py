"""The HTTP server as a test runs it: on loopback, in a thread, with a real ledger."""

import asyncio
import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from msgspec.structs import replace
from sqlalchemy.engine import URL

from drainer.ledger import engine
from drainer.ledger.overrides import OverrideReader
from drainer.policy.pacing.overrides import Override
from drainer.policy.pacing.rate import Rate
from drainer.watch.http.auth import HookKeys
from drainer.watch.http.server import listen, serve
from drainer.watch.http.settings import HookSettings
from drainer.watch.http.snapshot import RouteFacts, StatusSnapshot

ROUTE: Final = "mx1.example.org:25"
TOKEN: Final = "hook-token-0123456789"  # noqa: S105 - of the tests alone
OPERATOR: Final = "operator-token-0123456789"
HMAC: Final = "hmac-key-0123456789abcdef"
KEYS: Final = HookKeys(token=TOKEN, operator=OPERATOR, hmac=HMAC)
OPEN: Final = HookSettings(
    host="127.0.0.1", port=0, rate=Rate(per_second=500, burst=500)
)
LOCKED: Final = replace(OPEN, keys=KEYS)
TIMEOUT: Final = 20
NONE: Final[Mapping[str, str]] = {}


def moment(seconds: float) -> str:
    """Return a time as a snapshot has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def armed(now: float) -> StatusSnapshot:
    """Return a watch that has nothing to do."""
    return {
        "state": "armed",
        "since": moment(now - 60),
        "why": "nothing is left to do",
        "until": None,
        "primary": ROUTE,
        "sources": ["postfix:/var/spool/postfix"],
        "version": "0.1",
        "run": None,
        "routes": [quiet_route(ROUTE)],
        "history": [],
        "controls": {"pause": None, "throttle": None},
        "last_decisions": [],
    }


def quiet_route(name: str) -> RouteFacts:
    """Return a route that nothing was seen of."""
    return {
        "route": name,
        "answered": "",
        "sent": 0,
        "connections": 0,
        "rate_now": 0.0,
        "limit": None,
        "waiting": "",
        "latency": {"rcpt_ms": None, "dot_ms": None, "connect_ms": None},
        "breaker": {
            "state": "closed",
            "reply": "",
            "until": None,
            "reason": "",
            "remedy": "",
        },
        "checks": [],
    }


class Show:
    """A watch that is as the test says."""

    def __init__(self, snapshot: StatusSnapshot) -> None:
        """Begin with a snapshot."""
        self._snapshot = snapshot
        self._waiting: list[asyncio.Event] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def snapshot(self) -> StatusSnapshot:
        """Return it."""
        return self._snapshot

    async def wait_for_change(self) -> None:
        """Wait until the test changes it."""
        self._loop = asyncio.get_running_loop()
        event = asyncio.Event()
        self._waiting.append(event)
        await event.wait()

    def change(self, **facts: object) -> None:
        """Lay facts over it, from the test's own thread."""
        self._snapshot = cast("StatusSnapshot", {**self._snapshot, **facts})
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()
        self._waiting.clear()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def words(self) -> str:
        """Why it was refused."""
        return str(self.json["error"])


class Hooked:
    """A server that runs, and a client of it."""

    def __init__(self, settings: HookSettings, watched: Show, url: URL) -> None:
        """Know where its ledger is."""
        self.settings, self.watched, self.url = settings, watched, url
        self.port = 0
        self._last = 0
        self.cafile = ""
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None

    # ---- the server

    @contextlib.contextmanager
    def running(self) -> Iterator["Hooked"]:
        """Serve in a thread of its own, and end in order."""
        begun = threading.Event()
        thread = threading.Thread(target=self._run, args=(begun,))
        thread.start()
        try:
            assert begun.wait(TIMEOUT)
            yield self
        finally:
            if self._loop is not None and self._stop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "the server does not end"
        assert self._failure is None, self._failure

    def _run(self, begun: threading.Event) -> None:
        try:
            uvloop.run(self._serve(begun))  # as a watch does
        except BaseException as error:  # noqa: BLE001 - told to the test
            self._failure = error
        finally:
            begun.set()

    async def _serve(self, begun: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listener = listen(self.settings)
        self.port = listener.getsockname()[1]
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(
                serve(self.settings, self.watched, self.url, ROUTE, listener)
            )
            begun.set()
            await self._stop.wait()
            serving.cancel()

    # ---- a client

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to it."""
        if self.cafile:
            context = ssl.create_default_context(cafile=self.cafile)
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=TIMEOUT, context=context
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = "",
        headers: Mapping[str, str] = NONE,
    ) -> Answer:
        """Send one request on a connection of its own."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        fields = dict(headers)
        if token:
            fields["Authorization"] = f"Bearer {token}"
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, data, fields)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def get(self, path: str, **more: Any) -> Answer:
        """Read something."""
        return self.ask("GET", path, **more)

    def post(self, path: str, body: object = None, **more: Any) -> Answer:
        """Send something."""
        return self.ask("POST", path, b"" if body is None else body, **more)

    def log_in(self, token: str = OPERATOR) -> str:
        """Log in as the form does; return the cookie with its attributes."""
        answer = self.post("/login", f"token={token}".encode())
        assert answer.status == 303
        return str(answer.headers["Set-Cookie"])

    # ---- its ledger

    def controls(self) -> list[Override]:
        """Return what has been given since ``forget``."""
        with contextlib.closing(OverrideReader(self.url, ROUTE)) as desk:
            return desk.after(self._last)

    def forget(self) -> None:
        """Be as at the start for the next test."""
        ids = [control.id for control in self.controls()]
        self._last = max(ids, default=self._last)
        self.watched.change(**armed(datetime.now(UTC).timestamp()))

    def asks(self) -> list[str]:
        """Return what has been given, by name."""
        return [control.ask.value for control in self.controls()]


def hooked(
    folder: Path,
    settings: HookSettings = LOCKED,
    snapshot: StatusSnapshot | None = None,
) -> Hooked:
    """Return a server with an empty ledger of its own; ``running`` starts it."""
    url = engine.parse_url(str(folder / "ledger.db"))
    engine.connect(url, create=True).dispose()
    now = datetime.now(UTC).timestamp()
    return Hooked(settings, Show(snapshot or armed(now)), url)
