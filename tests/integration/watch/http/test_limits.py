"""How much, how long, how often, and where: nobody can hold the server up."""

import contextlib
import http.client
import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from drainer.errors import UsageError
from drainer.policy.pacing.rate import Rate
from drainer.watch.http.acceptor import MOST_OF_ONE
from drainer.watch.http.auth import HookKeys
from drainer.watch.http.server import listen
from drainer.watch.http.settings import HookSettings
from tests.support.paths import DATA
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
SAMPLES = DATA / "hooks"


HALF = (
    b"POST /hooks/primary-up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
)


def raw(server: Hooked, data: bytes) -> bytes:
    """Send bytes, and return what comes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := client.recv(4096):
                received += chunk
        return received


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10485760", b"Transfer-Encoding: chunked"]
)
def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(
    locked: Hooked, framing: bytes
) -> None:
    """Stated or not: the answer comes, and the connection closes."""
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n" % (UP.encode(), framing)
    chunk = b"10001\r\n" + b"x" * 0x10001 + b"\r\n" if b"chunked" in framing else b""
    received = raw(locked, head + chunk)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"65536 bytes" in received
    with contextlib.closing(locked.connect()) as connection:
        with contextlib.suppress(ConnectionError):
            connection.request("POST", UP, b"x" * 10_000_000)
        assert isinstance(connection, http.client.HTTPConnection)
    assert locked.asks() == []


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", b""),
        (b"POST /hooks/pri", b""),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n", b""),
        (HALF, b"HTTP/1.1 408 "),
        (
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
            b"HTTP/1.1 200 ",
        ),
    ],
    ids=["nothing", "half a line", "half a head", "half a body", "half of the next"],
)
def test_a_client_that_does_not_go_on_is_dropped(
    tmp_path: Path, sent: bytes, answered: bytes
) -> None:
    """In the head, in the body, and behind an answer."""
    with hooked(tmp_path, replace(LOCKED, patience=0.3)).running() as server:
        begun = time.monotonic()
        received = raw(server, sent)
        assert 0.2 < time.monotonic() - begun < 5
        assert received.startswith(answered)
        assert bool(received) is bool(answered)
        assert server.get("/healthz").status == 200


def test_a_client_that_asks_too_often_learns_when_to_ask_again(tmp_path: Path) -> None:
    """All but the sign of life, which no service manager must miss."""
    settings = replace(OPEN, rate=Rate(per_second=0.5, burst=3))
    with hooked(tmp_path, settings).running() as server:
        assert [server.post(UP).status for _ in range(5)] == [202] * 3 + [429] * 2
        refused = server.get("/readyz")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "2")
        assert server.get("/healthz").status == 200
        assert server.asks() == ["up"] * 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", UP, 405),
        ("PUT", UP, 405),
        ("DELETE", "/api/status", 405),
        ("POST", "/healthz", 405),
        ("HEAD", "/healthz", 200),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/page/index.html", 404),
        ("GET", "/hooks/primary-up/", 404),
    ],
)
def test_other_methods_and_paths_are_refused(
    unlocked: Hooked, method: str, path: str, status: int
) -> None:
    """What is not in the table of docs/hook.md does not exist."""
    assert unlocked.ask(method, path).status == status


# ---- where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_beyond_loopback_it_needs_a_secret(host: str) -> None:
    """Exit status 2; an operator's alone is none for hooks."""
    for keys in (HookKeys(), HookKeys(operator=OPERATOR)):
        with pytest.raises(UsageError, match="a token is needed") as caught:
            HookSettings(host=host, port=8025, keys=keys)
        assert caught.value.exit_code == 2
    assert HookSettings(host=host, port=8025, keys=HookKeys(hmac=HMAC)).cautions


def test_beyond_loopback_the_page_needs_an_operators_token(tmp_path: Path) -> None:
    """Strangers do not read who gets mail."""
    settings = replace(OPEN, host="0.0.0.0", keys=HookKeys(token=TOKEN))
    with hooked(tmp_path, settings).running() as server:
        for path in ("/", "/api/status"):
            assert server.get(path, token=TOKEN).status == 403
        assert server.get("/metrics").status == 401
        assert server.get("/metrics", token=TOKEN).status == 200
        assert server.post(UP, token=TOKEN).status == 202


def test_a_port_that_is_taken_is_reported() -> None:
    """In words, before anything is begun."""
    with listen(OPEN) as taken:
        settings = replace(OPEN, port=taken.getsockname()[1])
        with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1 port"):
            listen(settings)


def test_it_speaks_tls_with_the_certificate_of_the_settings(tmp_path: Path) -> None:
    """And then gives its cookie to TLS alone."""
    made = self_signed(tmp_path)
    settings = replace(LOCKED, tls=(made.certificate, made.key))
    with hooked(tmp_path, settings).running() as server:
        server.cafile = str(made.certificate)
        assert server.post(UP, token=TOKEN).status == 202
        assert "Secure" in server.log_in()


def test_a_certificate_that_is_renewed_is_shown_at_once(tmp_path: Path) -> None:
    """And one that does not fit its key is not: half of it lies there as yet."""
    made = self_signed(tmp_path)
    (tmp_path / "new").mkdir()
    renewed = self_signed(tmp_path / "new")
    settings = replace(OPEN, tls=(made.certificate, made.key))
    with hooked(tmp_path, settings).running() as server:
        old = tmp_path / "old.pem"
        shutil.copy(made.certificate, old)
        server.cafile = str(old)
        assert server.get("/healthz").status == 200
        shutil.copy(renewed.certificate, made.certificate)
        assert server.get("/healthz").status == 200
        shutil.copy(renewed.key, made.key)
        with pytest.raises(ssl.SSLCertVerificationError):
            server.get("/healthz")
        server.cafile = str(renewed.certificate)
        assert server.get("/healthz").status == 200


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half of it"]
)
def test_a_handshake_that_does_not_go_on_is_dropped(
    tmp_path: Path, sent: bytes
) -> None:
    """As is a request; others are served meanwhile."""
    made = self_signed(tmp_path)
    settings = replace(OPEN, tls=(made.certificate, made.key), patience=0.3)
    with hooked(tmp_path, settings).running() as server:
        server.cafile = str(made.certificate)
        begun = time.monotonic()
        assert raw(server, sent) == b""
        assert 0.2 < time.monotonic() - begun < 5
        assert server.get("/healthz").status == 200


def test_a_certificate_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    """Before anything is begun."""
    settings = replace(OPEN, tls=(tmp_path / "none.pem", tmp_path / "none.key"))
    with pytest.raises(UsageError, match="cannot be read"):
        listen(settings)


def test_it_ends_in_order_although_pages_listen(tmp_path: Path) -> None:
    """Streams end at once, with their last chunk."""
    with hooked(tmp_path, OPEN).running() as server:
        connection = server.connect()
        connection.request("GET", "/api/events")
        response = connection.getresponse()
        assert response.readline() == b"event: status\n"
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    assert response.read().endswith(b"\n\n")
    connection.close()


def test_nothing_of_a_secret_reaches_a_log(
    locked: Hooked, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong."""
    locked.post(UP, {}, token=TOKEN)
    locked.post("/api/pause", {}, token=OPERATOR)
    locked.post(UP, b"[", token=TOKEN)
    raw(
        locked,
        b"GET / HTTP/1.1\r\nAuthorization: Bearer %s\r\n:\r\n\r\n" % TOKEN.encode(),
    )
    out, err = capfd.readouterr()
    assert TOKEN not in out + err
    assert OPERATOR not in out + err


def test_more_connections_than_it_can_handle_are_dropped(locked: Hooked) -> None:
    """The drain needs open files too: the oldest give way, and new ones are served."""
    with contextlib.ExitStack() as stack:
        place = ("127.0.0.1", locked.port)
        idle = [
            stack.enter_context(socket.create_connection(place, timeout=10))
            for _ in range(MOST_OF_ONE + 4)
        ]
        for each in idle[:4]:
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(1) == b""
        assert locked.get("/healthz").status == 200


def test_what_strangers_ask_for_is_not_counted(locked: Hooked) -> None:
    """Metrics have no more lines than there are endpoints and answers."""
    for n in range(5):
        locked.post(f"/hooks/{n}", headers={"Host": "evil.example"})
        locked.post(f"/api/{n}", headers={"Origin": "http://evil.example"})
    text = locked.get("/metrics", token=TOKEN).body
    assert b"/hooks/0" not in text
    assert b"/api/0" not in text
