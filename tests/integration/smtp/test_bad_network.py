"""Networks that fail on the way, for SMTP and LMTP: nothing hangs, nothing is lost.

Lost connections of SMTP at each stage are in test_greeting and test_stages; replies of
every shape in test_replies; TLS that is bad or taken away in test_tls.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.command.runner import Bench, environment
from tests.support.mta.postfix import free_port
from tests.support.scenarios.sessions import (
    ALICE,
    BOB,
    PATIENT,
    SHORT,
    SILENT,
    StartPeer,
    sent,
)
from tests.support.smtp_peer.script import Drop, Raw, Reset, Step, Trickle
from tests.support.tls.certificates import Certificate

COMMAND: Final = (sys.executable, "-m", "drainer")
STATES: Final = {
    "mail": "deferred", "rcpt": "deferred", "data": "deferred", "dot": "unknown",
}  # fmt: skip
"""What becomes of a recipient when the connection fails at a stage."""
STAGES: Final = pytest.mark.parametrize(("stage", "state"), STATES.items())
PROTOCOLS: Final = pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
SLOW: Final = Trickle(b"250-" + b"x" * 3000, 0.02)
"""A minute for a line that does not end."""


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Give a port whose queue is full, so that the kernel drops every SYN."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket(family))
            client.settimeout(0)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@PROTOCOLS
@STAGES
def test_a_reply_has_one_limit_however_slowly_it_comes(
    peer: StartPeer, bench: Bench, stage: str, state: str, protocol: str
) -> None:
    """Some bytes a second do not extend it; what they mean is not known."""
    script: dict[str, Any] = {stage: SLOW}
    server = peer(lmtp=protocol == "lmtp", **script)
    bench.port = server.port
    bench.configure(primary={"protocol": protocol, **SHORT}, **PATIENT)
    bench.add(ALICE)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: state}
    bench.assert_balanced()


@PROTOCOLS
@STAGES
def test_a_reply_of_megabytes_is_cut_off(
    peer: StartPeer, bench: Bench, stage: str, state: str, protocol: str
) -> None:
    """In many lines or in one: the connection is given up, as if it was lost."""
    is_one = stage in ("rcpt", "dot")
    data = b"250 " + b"x" * 3_000_000 if is_one else b"250-x\r\n" * 500_000
    script: dict[str, Any] = {stage: Raw(data)}
    bench.port = peer(lmtp=protocol == "lmtp", **script).port
    bench.configure(primary={"protocol": protocol}, **PATIENT)
    bench.add(ALICE)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: state}
    bench.assert_balanced()


@pytest.mark.parametrize(
    "step", [Drop(), Reset(), SILENT], ids=["dropped", "reset", "half-open"]
)
@STAGES
def test_a_connection_lost_at_a_stage_of_lmtp(
    peer: StartPeer, bench: Bench, stage: str, state: str, step: Step
) -> None:
    """As with SMTP: only behind the final dot is anybody in doubt."""
    script: dict[str, Any] = {stage: step}
    bench.port = peer(lmtp=True, **script).port
    limits = SHORT if step is SILENT else {}
    bench.configure(primary={"protocol": "lmtp", **limits}, **PATIENT)
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: state, BOB: state}


BEFORE_MAIL: Final[dict[str, tuple[str, Step]]] = {
    "reset": ("ehlo", Reset()),
    "half-open": ("banner", SILENT),
    "slow-banner": ("banner", SLOW),
    "slow-ehlo": ("ehlo", SLOW),
    "megabytes": ("banner", Raw(b"220-x\r\n" * 500_000)),
}


@pytest.mark.parametrize(("stage", "step"), BEFORE_MAIL.values(), ids=list(BEFORE_MAIL))
@PROTOCOLS
def test_a_connection_lost_before_mail_judges_nobody(
    peer: StartPeer, bench: Bench, stage: str, step: Step, protocol: str
) -> None:
    """Nothing is attempted, and the drain stops."""
    script: dict[str, Any] = {stage: step}
    server = peer(lmtp=protocol == "lmtp", **script)
    bench.port = server.port
    limits = {"banner_timeout": "150ms", "command_timeout": "150ms"}
    bench.configure(primary={"protocol": protocol, **limits})
    bench.add(ALICE)
    assert bench.drain().code == 4
    assert bench.states() == {ALICE: "pending"}
    assert server.transactions == []


@pytest.mark.parametrize(
    ("stage", "protocol"), [*((stage, "smtp") for stage in STATES), ("dot", "lmtp")]
)
def test_tls_that_ends_without_notice_says_nothing(
    peer: StartPeer, bench: Bench, certificate: Certificate, stage: str, protocol: str
) -> None:
    """No close_notify: the end may be forged (RFC 8446 6.1), and is a lost reply."""
    script: dict[str, Any] = {stage: Reset()}
    is_lmtp = protocol == "lmtp"
    server = peer(tls=certificate.server_context(), lmtp=is_lmtp, **script)
    bench.port = server.port
    bench.configure(primary={"tls": "required", "protocol": protocol}, **PATIENT)
    bench.add(ALICE)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: STATES[stage]}


@pytest.mark.parametrize("is_offered", [True, False], ids=["wrong", "stripped"])
def test_bad_tls_gets_nothing_over_lmtp_either(
    peer: StartPeer, bench: Bench, certificate: Certificate, *, is_offered: bool
) -> None:
    """`verify` is for LMTP as well: no other certificate, and nothing in the clear."""
    tls = certificate.server_context() if is_offered else None
    server = peer(lmtp=True, tls=tls, lenient=True)
    bench.port = server.port
    bench.configure(primary={"protocol": "lmtp", "tls": None, "verify": True})
    bench.add(ALICE)
    assert bench.drain().code == 4
    assert bench.states() == {ALICE: "pending"}
    assert server.transactions == []


@PROTOCOLS
def test_a_refused_connection_judges_nobody(bench: Bench, protocol: str) -> None:
    """Nothing is attempted, and the drain stops."""
    bench.port = free_port()
    bench.configure(primary={"protocol": protocol})
    bench.add(ALICE)
    assert bench.drain().code == 4
    assert bench.states() == {ALICE: "pending"}
    bench.assert_balanced()


@PROTOCOLS
def test_a_black_hole_judges_nobody(bench: Bench, protocol: str) -> None:
    """No answer to a SYN: given up after the time limit, and nothing is attempted."""
    bench.configure(primary={"protocol": protocol, "connect_timeout": "200ms"})
    bench.add(ALICE)
    with black_hole() as bench.port:
        assert bench.drain().code == 4
    assert bench.states() == {ALICE: "pending"}
    assert bench.recipients()[ALICE]["attempts"] == 0


def test_behind_a_black_hole_the_next_host_takes_the_mail(
    peer: StartPeer, bench: Bench
) -> None:
    """Of several hosts one is enough."""
    server = peer()
    with black_hole() as port:
        hosts = [f"127.0.0.1:{port}", f"127.0.0.1:{server.port}"]
        bench.configure(primary={"hosts": hosts, "connect_timeout": "200ms"})
        bench.configure(primary={"host": None, "port": None})
        bench.add(ALICE)
        assert bench.drain().code == 0
    assert sent(server) == [(ALICE,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs an /etc/hosts of its own")
def test_broken_ipv6_leads_to_ipv4(
    peer: StartPeer, bench: Bench, tmp_path: Path
) -> None:
    """A name with two addresses, of which the first answers nothing."""
    server = peer()
    bench.port = server.port
    bench.configure(primary={"host": "two.example", "connect_timeout": "200ms"})
    bench.add(ALICE)
    names = tmp_path / "hosts"
    names.write_text("::1 two.example\n127.0.0.1 two.example\n")
    drain = bench.arguments("drain", f"postfix:{bench.spool}", "--no-check")
    line = f'mount --bind {names} /etc/hosts && exec "$@"'
    with black_hole("::1", server.port):
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", line, "sh", *COMMAND, *map(str, drain)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment(),
        )
    assert done.returncode == 0, done.stderr
    assert sent(server) == [(ALICE,)]
