"""The hook in a crowd: a client with the right token is served, whatever others do.

Others open connections and send nothing, half a request, or requests whose answers they
never read; they come back at once when they are dropped; they guess tokens. Everything
runs on real sockets, those of the crowd and of the right client in one process.
"""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from drainer.policy.pacing.rate import Rate
from drainer.watch.http.acceptor import MOST, MOST_OF_ONE
from drainer.watch.http.auth import SIGNATURE, TIMESTAMP, grafana_signature, signature
from drainer.watch.http.context import MAX_STREAMS
from drainer.watch.http.limits import neighbourhood
from tests.support.tls.certificates import self_signed
from tests.support.web.http_server import (
    HMAC,
    LOCKED,
    OPEN,
    OPERATOR,
    TOKEN,
    Hooked,
    hooked,
)

UP, DOWN = "/hooks/primary-up", "/hooks/primary-down"
SOON: Final = 7.0
"""Seconds within which the right client is served; mostly it takes far less than one,
on a busy machine more. Where others had to run into a time limit first it takes ten."""
HEAD: Final = b"POST /hooks/primary-up HTTP/1.1\r\nHost: localhost\r\n"
PAGE: Final = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
CROWD: Final[Mapping[str, bytes]] = {
    "silence": b"",
    "half a line": b"POST /hooks/pri",
    "half a head": HEAD + b"X-Slow: ",
    "half a body": HEAD + b"Content-Length: 9\r\n\r\n{",
    "half a body that asks first": (
        HEAD + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    ),
    "chunks without end": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 50
    ),
    "a signed half": HEAD + b"X-Drainer-Signature: 0\r\nContent-Length: 9\r\n\r\n{",
    "answers never read": PAGE * 200,
    "a stream never read": b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.0 that stays": b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "half a handshake": b"\x16\x03\x01\x02\x00\x01",
}


def connect(port: int, source: str = "127.0.0.1", sent: bytes = b"") -> socket.socket:
    """Connect from a loopback address, and send what can be sent at once."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    link.bind((source, 0))
    link.connect(("127.0.0.1", port))
    link.setblocking(False)  # noqa: FBT003 - the only way to say it
    with contextlib.suppress(OSError):
        link.send(sent)
    return link


@contextlib.contextmanager
def crowd(
    port: int, sources: int, count: int, sent: bytes = b""
) -> Iterator[list[socket.socket]]:
    """Keep so many connections from so many addresses."""
    links: list[socket.socket] = []
    try:
        for n in range(count):
            links += [connect(port, f"127.0.0.{2 + n % sources}", sent)]
        yield links
    finally:
        for link in links:
            link.close()


def served(ask: Callable[[], int]) -> float:
    """Ask until it is answered with 202; return how many seconds that took."""
    start = time.monotonic()
    while True:
        with contextlib.suppress(OSError, ConnectionError):
            if ask() == 202:
                return time.monotonic() - start
        assert time.monotonic() - start < 20, "the right client is locked out"


def gone(links: list[socket.socket]) -> int:
    """Return how many of these connections the server has ended."""
    poll = select.poll()
    for link in links:
        poll.register(link, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
    return sum(1 for _ in poll.poll(0))


def is_kept(port: int, client: int) -> bool:
    """Tell whether the server keeps a connection: its end is ESTABLISHED."""
    ends = f":{port:04X}", f":{client:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(
        row[1].endswith(ends[0]) and row[2].endswith(ends[1]) and row[3] == "01"
        for row in rows
    )


def wait_gone(links: list[socket.socket], count: int, seconds: float = 10) -> None:
    """Wait until the server has ended so many of them."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    for link in links:
        poll.register(link, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
    ended: set[int] = set()
    while len(ended) < count:
        left = deadline - time.monotonic()
        assert left > 0, f"{len(ended)} of {count} have been dropped"
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            ended.add(descriptor)


# ---- crowds that stay


@pytest.mark.parametrize("sent", CROWD.values(), ids=list(CROWD))
@pytest.mark.parametrize(("sources", "count"), [(1, 150), (50, 200)])
def test_a_crowd_does_not_lock_the_right_client_out(
    locked: Hooked, sent: bytes, sources: int, count: int
) -> None:
    """Of one address or many: it is served at once, each time, from any address."""
    with crowd(locked.port, sources, count, sent):
        for _ in range(3):
            assert served(lambda: locked.post(UP, {}, token=TOKEN).status) < SOON
    assert locked.asks() == ["up"] * 3


def test_a_thousand_that_come_back_do_not_lock_the_right_client_out(
    locked: Hooked,
) -> None:
    """Whoever is dropped connects again; the right client comes from there, too."""
    stop, opened = threading.Event(), [0]

    def press() -> None:
        links: list[socket.socket] = []
        while not stop.is_set():
            with contextlib.suppress(OSError):
                links.append(connect(locked.port, f"127.0.0.{1 + opened[0] % 50}"))
                opened[0] += 1
            if len(links) > 300:
                links.pop(0).close()
        for link in links:
            link.close()

    presser = threading.Thread(target=press)
    presser.start()
    try:
        times = [
            served(lambda: locked.post(UP, {}, token=TOKEN).status) for _ in range(10)
        ]
        while opened[0] < 1000:
            times.append(served(lambda: locked.post(UP, {}, token=TOKEN).status))
    finally:
        stop.set()
        presser.join(10)
    assert max(times) < SOON
    assert locked.asks() == ["up"] * len(times)


@pytest.mark.parametrize("sources", [1, 50])
@pytest.mark.parametrize("sent", [b"", CROWD["half a handshake"]], ids=["none", "half"])
def test_half_open_tls_does_not_lock_the_right_client_out(
    tmp_path: Path, sources: int, sent: bytes
) -> None:
    """A handshake that does not go on has a place like any other connection."""
    made = self_signed(tmp_path)
    settings = replace(LOCKED, tls=(made.certificate, made.key))
    with hooked(tmp_path, settings).running() as server:
        server.cafile = str(made.certificate)
        with crowd(server.port, sources, 300, sent) as links:
            right = served(lambda: server.post(UP, {}, token=TOKEN).status)
            assert right < SOON
            wait_gone(links, 300 - (MOST if sources > 1 else MOST_OF_ONE))


def test_no_more_connections_are_kept_than_there_are_places(locked: Hooked) -> None:
    """All in all, and of one client; the oldest give way."""
    with crowd(locked.port, 1, 100) as links:
        wait_gone(links[: 100 - MOST_OF_ONE], 100 - MOST_OF_ONE)
        assert gone(links[100 - MOST_OF_ONE :]) == 0
    with crowd(locked.port, 40, 200) as links:
        wait_gone(links, 200 - MOST)
        assert gone(links) <= 200 - MOST + 1


def test_the_client_with_the_most_connections_gives_way(locked: Hooked) -> None:
    """A client with one keeps it, although it is the oldest."""
    link = connect(locked.port, "127.0.0.99")
    with contextlib.closing(link), crowd(locked.port, 4, 300):
        assert served(lambda: locked.post(UP, {}, token=TOKEN).status) < SOON
        link.setblocking(True)  # noqa: FBT003 - the only way to say it
        link.settimeout(10)
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert link.recv(100).startswith(b"HTTP/1.1 200 ")


def test_who_has_shown_a_token_keeps_the_connection(locked: Hooked) -> None:
    """The oldest of the client with the most: its place is reserved all the same."""
    with contextlib.closing(locked.connect()) as connection:
        for _ in range(2):
            connection.request("POST", UP, b"{}", {"Authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (202, True)
            with crowd(locked.port, 1, 150), crowd(locked.port, 30, 200):
                assert served(lambda: locked.post(UP, {}, token=TOKEN).status) < SOON


def test_addresses_of_one_network_are_one_client() -> None:
    """IPv6 is given out by /64; an IPv4 address seen through IPv6 stays itself."""
    one = neighbourhood("2001:db8::1")
    assert one == neighbourhood("2001:db8::ffff:1:2:3")
    assert one != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("::ffff:192.0.2.1") == neighbourhood("192.0.2.1")
    assert neighbourhood("::ffff:192.0.2.1") != neighbourhood("::ffff:192.0.2.2")
    assert neighbourhood("fe80::1%eth0") == neighbourhood("fe80::2%eth0")


# ---- answers that are not read


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "request_line", [b"GET /page.js", b"GET /metrics", b"GET /nothing"]
)
def test_a_client_that_does_not_read_is_dropped(
    tmp_path: Path, request_line: bytes, *, tls: bool
) -> None:
    """Also when what it asked for is written, and the connection would close."""
    made, settings = self_signed(tmp_path), replace(OPEN, patience=0.3)
    if tls:
        settings = replace(settings, tls=(made.certificate, made.key))
    with hooked(tmp_path, settings).running() as server:
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        link.connect(("127.0.0.1", server.port))
        if tls:
            server.cafile = str(made.certificate)
            context = ssl.create_default_context(cafile=server.cafile)
            link = context.wrap_socket(link, server_hostname="localhost")
        request = request_line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with contextlib.closing(link):
            link.setblocking(False)  # noqa: FBT003 - the only way to say it
            with contextlib.suppress(OSError):
                for _ in range(3000):
                    link.send(request)
            deadline = time.monotonic() + 10
            while is_kept(server.port, link.getsockname()[1]):
                assert server.get("/healthz").status == 200
                assert time.monotonic() < deadline


def test_a_client_that_reads_slowly_gets_its_answers(tmp_path: Path) -> None:
    """The limit is for those that do not read, not for slow ones."""
    with hooked(tmp_path, replace(OPEN, patience=2.0)).running() as server:
        request = PAGE.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"
        link = connect(server.port, sent=request)
        with contextlib.closing(link):
            link.setblocking(True)  # noqa: FBT003 - the only way to say it
            link.settimeout(10)
            received, last = b"", PAGE
            while last:
                last = link.recv(512)
                received += last
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert len(body) == len(server.get("/page.js").body)


def test_too_many_pages_end_the_oldest(unlocked: Hooked) -> None:
    """A page that is opened is shown; nobody can keep all places for pages."""
    opened = []
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_STREAMS + 3):
            connection = stack.enter_context(contextlib.closing(unlocked.connect()))
            connection.request("GET", "/api/events")
            response = connection.getresponse()
            assert response.readline() == b"event: status\n"
            opened.append(response)
        for response in opened[:3]:
            assert response.read().endswith(b"\n\n")
        assert unlocked.post(UP).status == 202


def test_a_client_that_sends_without_listening_is_not_heard_for_long(
    locked: Hooked,
) -> None:
    """A few requests may travel ahead of their answers; then the connection ends."""
    link = connect(locked.port, sent=PAGE * 300)
    with contextlib.closing(link):
        link.setblocking(True)  # noqa: FBT003 - the only way to say it
        link.settimeout(10)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while last := link.recv(65536):
                received += last
    assert 0 < received.count(b"HTTP/1.1 200 ") <= 4


# ---- failed logins

SLOW: Final = replace(LOCKED, rate=Rate(per_second=0.01, burst=5))


def signed(path: str = UP, body: bytes = b"{}", key: str = HMAC) -> dict[str, str]:
    """Return the fields that sign a request to a path."""
    now = str(int(time.time()))
    return {TIMESTAMP: now, SIGNATURE: signature(key, now, f"POST {path}", body)}


GUESSES: Final[Mapping[str, Callable[[Hooked], int]]] = {
    "no token": lambda s: s.post(UP, {}).status,
    "a wrong token": lambda s: s.post(UP, {}, token=TOKEN[::-1]).status,
    "the operator's": lambda s: s.post(UP, {}, token=OPERATOR[:-1]).status,
    "a wrong signature": lambda s: (
        s.post(UP, b"{}", headers=signed(key="x" * 20)).status
    ),
    "a signature of nothing": lambda s: (
        s.post(UP, b"{}", headers={SIGNATURE: ""}).status
    ),
    "a wrong login": lambda s: s.post("/login", b"token=wrong").status,
    "a wrong session": lambda s: (
        s.get("/api/status", headers={"Cookie": "drainer_session=9999999999.00"}).status
    ),
    "metrics": lambda s: s.get("/metrics").status,
    "pages": lambda s: s.get("/page.js").status,
}


@pytest.mark.parametrize("guess", GUESSES.values(), ids=list(GUESSES))
def test_guesses_are_limited_and_right_logins_are_not(
    tmp_path: Path, guess: Callable[[Hooked], int]
) -> None:
    """From the same address, and before the right client has ever been there."""
    with hooked(tmp_path, SLOW).running() as server:
        found = [guess(server) for _ in range(60)]
        assert set(found) <= {200, 401, 429}
        assert found[-1] == 429
        assert 429 not in found[:5]
        assert server.post(UP, {}, token=TOKEN).status == 202
        assert server.post(DOWN, b"{}", headers=signed(DOWN)).status == 202
        assert server.get("/metrics", token=TOKEN).status == 200
        cookie = {"Cookie": server.log_in().partition(";")[0]}
        assert server.get("/api/status", headers=cookie).status == 200
        assert server.get("/api/status", token=OPERATOR).status == 200
        assert server.asks() == ["up", "down"]


def test_right_logins_are_limited_by_themselves(tmp_path: Path) -> None:
    """A monitor gone mad does not fill the ledger, and stops no other client."""
    with hooked(tmp_path, SLOW).running() as server:
        found = [server.post(UP, {}, token=TOKEN).status for _ in range(7)]
        assert found == [202] * 5 + [429] * 2
        assert server.get("/readyz").status == 200


def test_failures_of_many_addresses_are_limited_together(tmp_path: Path) -> None:
    """Ten times what one may; a right login is not among them."""
    with hooked(tmp_path, SLOW).running() as server:
        found = []
        body = HEAD + b"X-Drainer-Signature: 0\r\nContent-Length: 2\r\n\r\n{}"
        for n in range(60):
            link = connect(server.port, f"127.0.1.{1 + n}", body)
            with contextlib.closing(link):
                link.setblocking(True)  # noqa: FBT003 - the only way to say it
                link.settimeout(10)
                found.append(link.recv(12)[9:])
        assert found == [b"401"] * 50 + [b"429"] * 10
        assert server.post(UP, {}, token=TOKEN).status == 202


# ---- what a limit goes by

PATHS: Final = (
    "//healthz",
    "/healthz/",
    "/healthz/../hooks/primary-up",
    "/hooks/../healthz",
    "http://localhost/healthz",
    "http://healthz/",
    "/healthz%2F",
    "/healthz%00",
    "/HEALTHZ",
    "/readyz?/healthz",
    "/readyz#/healthz",
    "*",
)
HOSTS: Final = (
    "localhost/healthz?",
    "localhost/healthz#",
    "/healthz",
    "localhost:80/healthz?x=",
    "[::1",
    "[::1]x",
    "localhost:http",
    "localhost:999999",
    "evil@localhost",
    "localhost@evil",
    "a b",
    "\u00fc",
    ":",
    "[]",
    "x" * 5000,
)


def raw(server: Hooked, request: bytes) -> bytes:
    """Send a request, and return the status of the answer; b'' when there is none."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(request)
        return client.recv(12)[9:]


@pytest.mark.parametrize("path", PATHS)
def test_only_the_sign_of_life_itself_is_unlimited(tmp_path: Path, path: str) -> None:
    """Whatever resembles it meets the limit, as its route does not exist."""
    with hooked(tmp_path, SLOW).running() as server:
        line = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        found = [raw(server, line) for _ in range(7)]
        assert found[-1] == b"429" or set(found) == {b"400"}
        assert server.get("/healthz").status == 200


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_evades_a_limit_or_breaks_the_server(tmp_path: Path, host: str) -> None:
    """Limits go by the path that is routed, never by one that Host makes."""
    with hooked(tmp_path, SLOW).running() as server:
        field = host.encode("utf-8")
        lines = [
            b"GET %s HTTP/1.1\r\nHost: " % path for path in (b"/readyz", b"/page.js")
        ]
        found = [raw(server, line + field + b"\r\n\r\n") for line in lines * 4]
        assert set(found) <= {b"400", b"421", b"429"}
        assert found[-1] == b"429" or set(found) == {b"400"}
        assert server.post(UP, {}, token=TOKEN).status == 202


@pytest.mark.parametrize(
    "request_line",
    [
        "POST //hooks/primary-up",
        "POST /hooks/./primary-up",
        "POST /hooks/x/../primary-up",
        "POST http://localhost/hooks/primary-up",
        "CONNECT localhost:25",
        "PRI *",
        "post /hooks/primary-up",
        "POST /hooks/primary-up%00",
    ],
)
def test_no_other_spelling_of_a_path_is_a_hook(
    unlocked: Hooked, request_line: str
) -> None:
    """Not even where hooks need no token."""
    line = f"{request_line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    assert raw(unlocked, line.encode()) in (b"400", b"404", b"405")
    assert unlocked.asks() == []


def test_a_path_in_percent_signs_is_the_path(locked: Hooked) -> None:
    """Routing, doors and limits see the same one."""
    line = "POST /%68ooks/primary%2Dup HTTP/1.1\r\nHost: localhost\r\n"
    assert raw(locked, f"{line}Content-Length: 0\r\n\r\n".encode()) == b"401"
    right = f"{line}Authorization: Bearer {TOKEN}\r\nContent-Length: 0\r\n\r\n"
    assert raw(locked, right.encode()) == b"202"


def test_an_upgrade_is_not_taken(locked: Hooked) -> None:
    """A request to speak WebSocket is a request like any other."""
    fields = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert locked.get("/api/events", headers=fields).status == 401
    assert locked.post(UP, {}, headers=fields).status == 401


# ---- signatures


@pytest.mark.parametrize("path", [DOWN, "/login", "/api/pause"])
def test_a_signature_counts_at_no_other_path(locked: Hooked, path: str) -> None:
    """Captured on its way to one URL it is worth nothing at another."""
    body = b'{"reason": "captured before %s"}' % path.encode()
    fields = signed(UP, body)
    assert locked.post(path, body, headers=fields).status == 401
    assert locked.post(f"{UP}?x=1", body, headers=fields).status == 202
    assert locked.asks() == ["up"]


def test_a_signature_counts_for_no_other_method(locked: Hooked) -> None:
    """Nor is one of the body alone, which earlier versions made, good for a hook."""
    body, now = b'{"reason": "x"}', str(int(time.time()))
    for signed_as in (f"PUT {UP}", f"GET {UP}", UP, "", f"POST {UP} "):
        mac = signature(HMAC, now, signed_as, body)
        fields = {TIMESTAMP: now, SIGNATURE: mac}
        assert locked.post(UP, body, headers=fields).status == 401
    fields = {TIMESTAMP: now, SIGNATURE: grafana_signature(HMAC, now, body)}
    answer = locked.post(UP, body, headers=fields)
    assert (answer.status, "method and path" in answer.words) == (401, True)
    assert locked.asks() == []


def test_an_alert_that_grafana_signed_means_the_same_at_both_urls(
    locked: Hooked,
) -> None:
    """Sent to the wrong one it is ignored: it says itself that the primary is down."""
    body, now = b'{"orgId": 1, "status": "firing", "alerts": []}', str(int(time.time()))
    fields = {TIMESTAMP: now, SIGNATURE: grafana_signature(HMAC, now, body)}
    assert locked.post(UP, body, headers=fields).status == 200
    assert locked.post(DOWN, body, headers=fields).status == 202
    assert locked.post(DOWN, body, headers=fields).status == 401
    assert locked.asks() == ["down"]


# ---- Origin


@pytest.mark.parametrize(
    "origin",
    [
        "null", "http://[", "http://[::1", "http://", "://", "", "localhost",
        "http://localhost:http", "http://localhost/x", "http://a b", "file://",
        "javascript:alert(1)", "http://\u00fc", "http://localhost@evil", "x" * 5000,
    ],
)  # fmt: skip
def test_an_origin_that_is_none_is_a_bad_request(locked: Hooked, origin: str) -> None:
    """Never an error of ours; with the right token, too."""
    fields = {"Origin": origin.encode("utf-8").decode("latin-1")}
    for path in (UP, DOWN, "/login", "/nothing"):
        assert locked.post(path, {}, token=TOKEN, headers=fields).status == 400
    assert locked.get("/healthz", headers=fields).status == 400
    assert locked.asks() == []


def test_two_origins_are_a_bad_request(locked: Hooked) -> None:
    """A proxy that joins or adds one decides nothing."""
    line = HEAD + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
    twice = b"Origin: http://localhost\r\n" * 2 + b"Content-Length: 0\r\n\r\n"
    assert raw(locked, line + twice) == b"400"
    assert locked.asks() == []
