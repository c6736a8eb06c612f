"""Networks that fail on the way, for SMTP and LMTP: nothing hangs, nothing is lost.

Refused and lost connections of SMTP at each stage are in test_greeting and test_stages;
replies of every shape in test_replies; TLS that is bad or taken away in test_tls.
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
from tests.support.scenarios.sessions import ALICE, BOB, PATIENT, SHORT, StartPeer, sent
from tests.support.smtp_peer.script import Drop, Reset, Step, Trickle
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


@pytest.mark.parametrize("step", [Drop(), Reset()], ids=["dropped", "reset"])
@STAGES
def test_a_connection_lost_at_a_stage_of_lmtp(
    peer: StartPeer, bench: Bench, stage: str, state: str, step: Step
) -> None:
    """As with SMTP: only behind the final dot is anybody in doubt."""
    script: dict[str, Any] = {stage: step}
    bench.port = peer(lmtp=True, **script).port
    bench.configure(primary={"protocol": "lmtp"}, **PATIENT)
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: state, BOB: state}


@STAGES
def test_tls_that_ends_without_notice_says_nothing(
    peer: StartPeer, bench: Bench, certificate: Certificate, stage: str, state: str
) -> None:
    """No close_notify: the end may be forged (RFC 8446 6.1), and is a lost reply."""
    script: dict[str, Any] = {stage: Reset()}
    server = peer(tls=certificate.server_context(), **script)
    bench.port = server.port
    bench.configure(primary={"tls": "required"}, **PATIENT)
    bench.add(ALICE)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: state}


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
