"""TLS that is asked for is had, or nothing is sent: attacks with real handshakes.

Each test counts what arrived in the clear. The attacks are those of somebody between
drainer and the primary: a bad certificate, STARTTLS removed, refused, answered with
noise or silence, and replies injected before the handshake.
"""

import asyncio
import contextlib
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import pytest
from cryptography import x509

from drainer.bounce.build import make_via
from drainer.config.load import load
from drainer.mail.reply import Lost
from drainer.smtp.connection import ConnectFailure, connect
from drainer.smtp.post import submit
from drainer.smtp.route import Login, Route, Timeouts
from tests.support.command.runner import Bench, Result, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import EXTENSIONS, Drop, Raw, Reset, Stall
from tests.support.tls.certificates import Certificate, authority, issue

StartPeer = Callable[..., PeerThread]
ALICE: Final = "alice@example.org"
LOOPBACK: Final = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
LOCALHOST: Final = x509.DNSName("localhost")
GO: Final = b"220 2.0.0 go ahead\r\n"
PASSWORD: Final = "open sesame"  # noqa: S105 - of the tests alone
LOGIN: Final[Mapping[str, object]] = {"username": "me", "password": PASSWORD}


@dataclass(frozen=True, slots=True)
class Certificates:
    """Good and bad ones by name; this process trusts the CA of most."""

    made: Mapping[str, Certificate]

    def server(self, name: str) -> ssl.SSLContext:
        """Return the context of a server that shows one of them."""
        return self.made[name].server_context()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make the certificates."""
    folder = tmp_path_factory.mktemp("certificates")
    ca, stranger = authority(folder), authority(folder, "stranger")
    both = [LOCALHOST, LOOPBACK]
    found = {
        "ca": ca.made,
        "good": issue(folder, "good", both, issuer=ca),
        "expired": issue(folder, "expired", both, days=(-20, -1), issuer=ca),
        "future": issue(folder, "future", both, days=(5, 50), issuer=ca),
        "self-signed": issue(folder, "self", both),
        "unknown-ca": issue(folder, "unknown", both, issuer=stranger),
        "other-name": issue(
            folder, "other", [x509.DNSName("other.example")], issuer=ca
        ),
        "common-name": issue(folder, "cn", [], common_name="localhost", issuer=ca),
        "star": issue(folder, "star", [x509.DNSName("*")], issuer=ca),
        "below": issue(folder, "below", [x509.DNSName("*.localhost")], issuer=ca),
        "mailbox": issue(
            folder,
            "mailbox",
            [x509.RFC822Name("localhost")],
            common_name="localhost",
            issuer=ca,
        ),
        "address-as-name": issue(
            folder, "text", [x509.DNSName("127.0.0.1")], issuer=ca
        ),
        "name-only": issue(folder, "name", [LOCALHOST], issuer=ca),
        "address-in-cn": issue(
            folder, "cn-address", [], common_name="127.0.0.1", issuer=ca
        ),
    }
    return Certificates(found)


class Start:
    """Starts peers that show one of the certificates."""

    def __init__(self, peer: StartPeer, made: Certificates) -> None:
        """Know how."""
        self._peer, self._made = peer, made

    def __call__(self, name: str = "good", **script: Any) -> PeerThread:
        """Start one; that a client leaves in mid-handshake is no violation here."""
        return self._peer(**{"tls": self._made.server(name), **script}, lenient=True)


@pytest.fixture
def start(peer: StartPeer, made: Certificates) -> Start:
    """Give a function that starts a peer with a certificate of this name."""
    return Start(peer, made)


@pytest.fixture
def bench(tmp_path: Path, made: Certificates, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a spool with a message, and a configuration that says nothing of TLS."""
    trusted = made.made["ca"].certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    found = Bench(tmp_path)
    found.add(ALICE)
    return found


def configure(bench: Bench, host: object = "localhost", **keys: object) -> None:
    """Let [primary] have these keys about TLS, and no other."""
    given = {"host": host, "banner_timeout": "400ms", "tls": None, **keys}
    bench.settings.pop("primary", None)
    bench.configure(primary=given)


def drain(bench: Bench, host: object = "localhost", **keys: object) -> int:
    """Drain without a health check; return the exit status."""
    configure(bench, host, **keys)
    return bench.drain().code


def check(bench: Bench, *flags: str, **keys: object) -> Result:
    """Check the primary with these keys about TLS."""
    configure(bench, **keys)
    return call("check", "--config", bench.config, *flags)


def tls_of(server: PeerThread) -> list[bool]:
    """Return of each message that arrived, whether it was under TLS."""
    return [message.tls for message in server.messages]


# ---- a certificate that is not valid, and TLS that is taken away

BAD: Final = (
    "expired", "future", "self-signed", "unknown-ca", "other-name", "common-name",
    "star", "below", "mailbox",
)  # fmt: skip
TAKEN: Final[Mapping[str, Mapping[str, Any]]] = {
    "not offered": {"tls": None},
    "refused for now": {"starttls": "454 4.7.0 TLS not available"},
    "refused": {"starttls": "554 5.7.0 no TLS"},
    "unknown": {"starttls": "502 5.5.1 what?"},
    "silence": {"starttls": Stall()},
    "dropped": {"starttls": Drop()},
    "reset": {"starttls": Reset()},
    "not a reply": {"starttls": Raw(b"999 nine\r\n")},
    "positive, but not 220": {"starttls": "250 2.0.0 you are safe"},
    "no EHLO": {"ehlo": "502 5.5.1 not implemented"},
}


@pytest.mark.parametrize("bad", BAD)
def test_verify_alone_sends_nothing_to_a_bad_certificate(
    start: Start, bench: Bench, bad: str
) -> None:
    """`tls` is left out: nothing goes in the clear, nor to who is not the primary."""
    server = start(bad)
    bench.port = server.port
    assert drain(bench, verify=True) == 4
    assert tls_of(server) == []
    assert server.transactions == []


@pytest.mark.parametrize("script", TAKEN.values(), ids=list(TAKEN))
def test_verify_alone_sends_nothing_where_tls_is_taken_away(
    start: Start, bench: Bench, script: Mapping[str, Any]
) -> None:
    """As an attacker does that rewrites clear text; there is no second try without."""
    server = start(**script)
    bench.port = server.port
    code = drain(bench, verify=True)
    assert code == 4
    assert server.transactions == []


def test_verify_alone_delivers_under_tls(start: Start, bench: Bench) -> None:
    """A good certificate is good, and the ledger says that it was verified."""
    server = start("good")
    bench.port = server.port
    assert drain(bench, verify=True) == 0
    assert tls_of(server) == [True]
    assert bench.states() == {ALICE: "delivered"}


@pytest.mark.parametrize(
    ("name", "code"),
    [("good", 0), ("address-as-name", 4), ("name-only", 4), ("address-in-cn", 4)],
)
def test_an_address_needs_an_address_in_the_certificate(
    start: Start, bench: Bench, name: str, code: int
) -> None:
    """A DNS name or a common name that looks like it is not one."""
    server = start(name)
    bench.port = server.port
    assert drain(bench, "127.0.0.1", verify=True) == code
    assert tls_of(server) == [True] * (code == 0)


@pytest.mark.parametrize(
    ("name", "keys", "verified"),
    [
        ("self-signed", {}, "false"),
        ("good", {"tls": "required"}, "false"),
        ("good", {"verify": True}, "true"),
    ],
)
def test_unverified_tls_is_recorded_as_such(
    start: Start, bench: Bench, name: str, keys: dict[str, object], verified: str
) -> None:
    """Opportunistic TLS takes any certificate; the trace does not hide that."""
    server = start(name)
    bench.port = server.port
    traces = bench.root / "traces"
    bench.configure(telemetry={"traces": f"file:{traces}"})
    assert drain(bench, **keys) == 0
    assert tls_of(server) == [True]
    text = traces.read_text("utf-8").replace(" ", "")
    sign = f'"drainer.evidence.verified","value":{{"boolValue":{verified}}}'
    assert sign in text


# ---- noise where the handshake should be


class Noise:
    """A server that offers STARTTLS, and answers a ClientHello with what is no TLS."""

    def __init__(self, noise: bytes) -> None:
        """Listen on a free port."""
        self._noise = noise
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Everything that arrived in the clear, but for the ClientHello.
        self.lines: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(5)
                with client, contextlib.suppress(OSError):
                    self._converse(client)

    def _converse(self, client: socket.socket) -> None:
        client.sendall(b"220 peer.example ESMTP\r\n")
        while line := client.recv(4096):
            self.lines.append(line)
            if line.upper().startswith(b"STARTTLS"):
                client.sendall(GO)
                assert client.recv(4096)
                client.sendall(self._noise)
            elif line.upper().startswith((b"EHLO", b"HELO")):
                client.sendall(
                    b"250-peer.example\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"
                )
            elif line.upper().startswith(b"DATA"):
                client.sendall(b"354 go\r\n")
            else:
                client.sendall(b"250 2.0.0 ok\r\n")


NOISE: Final = {
    "every byte": bytes(range(256)),
    "SMTP goes on": b"250 2.0.0 fine\r\n" * 3,
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "half a record": b"\x16\x03\x03\x40\x00\x02",
    "nothing": b"",
}


VERIFY: Final[Mapping[str, object]] = {"verify": True}


@pytest.mark.parametrize(
    ("noise", "keys"),
    [
        *((noise, VERIFY) for noise in NOISE),
        ("SMTP goes on", LOGIN),
        ("every byte", {"tls": "required"}),
    ],
)
def test_noise_instead_of_a_handshake_gets_no_message(
    bench: Bench, noise: str, keys: Mapping[str, object]
) -> None:
    """Nor a password: what was asked for is not given up."""
    with Noise(NOISE[noise]) as server:
        bench.port = server.port
        assert drain(bench, **keys) == 4
        verbs = {line.split()[0].upper() for line in server.lines}
    assert verbs == {b"EHLO", b"STARTTLS"}


# ---- a login

OFFERS: Final = (*EXTENSIONS, "AUTH PLAIN LOGIN CRAM-MD5")


@pytest.mark.parametrize("bad", ["expired", "self-signed", "other-name", "common-name"])
def test_a_password_goes_to_no_bad_certificate(
    start: Start, bench: Bench, bad: str
) -> None:
    """AUTH is offered before STARTTLS as well."""
    server = start(bad, extensions=OFFERS)
    bench.port = server.port
    assert drain(bench, **LOGIN) == 4
    assert server.logins == []
    assert server.transactions == []


@pytest.mark.parametrize("script", TAKEN.values(), ids=list(TAKEN))
def test_a_password_never_goes_in_the_clear(
    start: Start, script: Mapping[str, Any]
) -> None:
    """Not even for a route that says "off": whoever builds one cannot forget it."""
    server = start(extensions=OFFERS, **script)
    for tls in ("off", "opportunistic", "required"):
        route = Route(
            host="localhost",
            port=server.port,
            tls=tls,
            login=Login(username="me", password=PASSWORD),
            timeouts=Timeouts(banner=0.4, ehlo=0.4),
        )
        assert isinstance(asyncio.run(connect(route)), ConnectFailure)
    assert server.logins == []
    assert not [c.line for c in server.commands if c.line.upper().startswith(b"AUTH")]


# ---- what is said before the handshake

INJECTED: Final = {
    "EHLO": b"250-evil.example\r\n250-SIZE 1\r\n250-AUTH PLAIN\r\n250 X\r\n",
    "refusals": b"550 5.1.1 unknown\r\n" * 4,
    "acceptance": b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n250 2.0.0 taken\r\n",
    "half a reply": b"250-evil.example",
}


@pytest.mark.parametrize("injected", INJECTED.values(), ids=list(INJECTED))
def test_replies_injected_behind_220_answer_nothing(
    start: Start, bench: Bench, injected: bytes
) -> None:
    """RFC 3207 4.2: what was said in the clear is void once TLS is there."""
    server = start("good", starttls=Raw(GO + injected))
    bench.port = server.port
    assert drain(bench, verify=True) == 0
    assert tls_of(server) == [True]
    assert bench.states() == {ALICE: "delivered"}


# ---- contradictions

Contradiction: TypeAlias = tuple[str, Mapping[str, object], tuple[str, str]]
CONTRADICTIONS: Final[Mapping[str, Contradiction]] = {
    "verify and off": ("primary", {"verify": True, "tls": "off"}, ("verify", "tls")),
    "verify and opportunistic": (
        "primary",
        {"verify": True, "tls": "opportunistic"},
        ("verify", "tls"),
    ),
    "login and off": ("primary", {**LOGIN, "tls": "off"}, ("username", "tls")),
    "login and opportunistic": (
        "primary",
        {**LOGIN, "tls": "opportunistic"},
        ("username", "tls"),
    ),
    "login and verify = false": (
        "primary",
        {**LOGIN, "verify": False},
        ("username", "verify"),
    ),
    "login, required, verify = false": (
        "primary",
        {**LOGIN, "verify": False, "tls": "required"},
        ("username", "verify"),
    ),
    "relay, verify and off": (
        "bounce",
        {"via_verify": True, "via_tls": "off"},
        ("via_verify", "via_tls"),
    ),
    "relay, verify and opportunistic": (
        "bounce",
        {"via_verify": True, "via_tls": "opportunistic"},
        ("via_verify", "via_tls"),
    ),
    "relay, login and opportunistic": (
        "bounce",
        {"via_username": "me", "via_password": "x", "via_tls": "opportunistic"},
        ("via_username", "via_tls"),
    ),
    "relay, login and verify = false": (
        "bounce",
        {"via_username": "me", "via_password": "x", "via_verify": False},
        ("via_username", "via_verify"),
    ),
    "no relay to verify": (
        "bounce",
        {"via_verify": True, "via": "mx"},
        ("via_verify", "via"),
    ),
}


@pytest.mark.parametrize("place", ["file", "environment"])
@pytest.mark.parametrize(
    "contradiction", CONTRADICTIONS.values(), ids=list(CONTRADICTIONS)
)
def test_a_contradiction_is_exit_2_and_names_both_keys(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    contradiction: Contradiction,
    place: str,
) -> None:
    """Wherever they are set; no command starts with them."""
    section, keys, named = contradiction
    path = tmp_path / "drainer.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    if place == "environment":
        for key, value in keys.items():
            text = value if isinstance(value, str) else json.dumps(value)
            monkeypatch.setenv(f"DRAINER_{section}__{key}".upper(), text)
        lines = []
    path.write_text("\n".join([f"[{section}]", *lines, ""]), "utf-8")
    for command in ("config", "check"):
        result = call(command, "--config", path)
        assert result.code == 2, result
        assert all(key in result.stderr for key in named)
        assert "contradict" in result.stderr or "names none" in result.stderr
        assert PASSWORD not in result.stderr


@pytest.mark.parametrize(
    "keys",
    [{"verify": True}, LOGIN, {**LOGIN, "verify": True}, {"verify": "yes"}],
    ids=["verify", "login", "both", "a word for true"],
)
@pytest.mark.parametrize("prefix", ["", "via_"])
def test_the_configuration_in_force_says_required_and_verified(
    tmp_path: Path, keys: Mapping[str, object], prefix: str
) -> None:
    """`drainer config` shows what will be done, not what was typed."""
    path = tmp_path / "drainer.toml"
    section = "bounce" if prefix else "primary"
    lines = [f"{prefix}{key} = {json.dumps(value)}" for key, value in keys.items()]
    path.write_text("\n".join([f"[{section}]", *lines, ""]), "utf-8")
    found = call("config", "--json", "--config", path).json[section]
    assert found[f"{prefix}tls"] == "required"
    assert found[f"{prefix}verify"] is True
    assert call("config", "--json").json["primary"]["tls"] == "opportunistic"


# ---- the relay of reports


@pytest.mark.parametrize("keys", [{"via_verify": True}, {"via_username": "me"}])
def test_no_report_goes_in_the_clear_when_the_relay_is_to_be_verified(
    start: Start,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, object],
) -> None:
    """As for mail: nothing to a bad certificate, nothing where TLS is taken away."""
    monkeypatch.setenv("DRAINER_BOUNCE__VIA_PASSWORD", PASSWORD)
    quick = [script for script in TAKEN.values() if script != TAKEN["silence"]]
    servers = [start(bad, extensions=OFFERS) for bad in BAD]
    servers += [start(extensions=OFFERS, **script) for script in quick]
    for server in servers:
        bench.configure(bounce={"via": f"localhost:{server.port}", **keys})
        route = make_via(load(bench.config, {}))
        answer = asyncio.run(submit(route, ALICE, b"Subject: x\r\n\r\n"))
        assert isinstance(answer, Lost) or answer.code != 250
        assert server.transactions == []
        assert server.logins == []


# ---- what the check says

CAUSES: Final = {
    "expired": "expired",
    "future": "not valid yet",
    "other-name": "does not name [primary] host",
    "star": "does not name [primary] host",
    "self-signed": "self-signed",
    "unknown-ca": "does not know the issuer",
    "common-name": "no subjectAltName",
}


@pytest.mark.parametrize(("bad", "words"), CAUSES.items(), ids=list(CAUSES))
def test_the_check_names_what_is_wrong_with_a_certificate(
    start: Start, bench: Bench, bad: str, words: str
) -> None:
    """With a remedy, and what the certificate says; it sends no message."""
    server = start(bad)
    bench.port = server.port
    result = check(bench, "--json", verify=True)
    assert result.code == 3
    (starttls,) = (s for s in result.json["stages"] if s["stage"] == "starttls")
    assert words in starttls["hint"]
    assert "certificate verify failed" in starttls["reply"]
    assert starttls["certificate"]["subject"].startswith("CN=")
    assert starttls["verified"] is False
    assert server.transactions == []
    assert (starttls["certificate"]["names"] == []) is (bad == "common-name")
    table = check(bench, verify=True).stdout
    assert "NOT VERIFIED" in table
    assert words in table


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ("not offered", "removes STARTTLS"),
        ("refused for now", "refused TLS"),
        ("refused", "refused TLS"),
        ("silence", "no answer in time"),
        ("dropped", "ended the connection"),
        ("no EHLO", "takes EHLO, and with it TLS, away"),
    ],
)
def test_the_check_names_how_tls_was_taken_away(
    start: Start, bench: Bench, taken: str, words: str
) -> None:
    """The stage that failed is the last: nothing follows it in the clear."""
    server = start(**TAKEN[taken])
    bench.port = server.port
    result = check(bench, "--json", verify=True)
    assert result.code == 3
    assert words in result.json["stages"][-1]["hint"]
    assert server.transactions == []


def test_the_check_says_what_was_verified(start: Start, bench: Bench) -> None:
    """An encrypted session to anyone is not one to the primary."""
    server = start("good")
    bench.port = server.port
    for keys, words in (
        ({}, "NOT VERIFIED"),
        ({"tls": "required"}, "NOT VERIFIED"),
        ({"verify": True}, "; verified"),
    ):
        assert words in check(bench, **keys).stdout
