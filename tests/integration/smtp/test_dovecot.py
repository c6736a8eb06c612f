"""A real Dovecot takes mail by LMTP, over TCP and over a Unix socket."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.command.runner import Bench, call
from tests.support.mta import dovecot
from tests.support.mta.dovecot import PrivateDovecot
from tests.support.mta.postfix import instance_directory
from tests.support.scenarios.sessions import ALICE, BOB, CAROL, PATIENT
from tests.support.spools.postfix_files import record
from tests.support.tls.certificates import Certificate

DAVE, NOBODY = "dave@example.org", "nobody@example.org"
TEXT = b"Subject: hello\n\n.a line that starts with a dot\nbody\n"


@pytest.fixture(scope="module")
def mailboxes(certificate: Certificate) -> Iterator[PrivateDovecot]:
    """Give a Dovecot with two mailboxes, and a full one."""
    reason = dovecot.missing_reason()
    if reason:
        pytest.skip(reason)
    users = {"alice": 0, "bob": 1, "carol": 0, "dave": 0}
    with (
        instance_directory() as base,
        PrivateDovecot(base, users, certificate) as running,
    ):
        yield running


def configure(bench: Bench, server: PrivateDovecot, way: str, **more: Any) -> None:
    """Let the bench deliver to it over a way."""
    over = (
        {"host": server.socket}
        if way == "unix"
        else {"protocol": "lmtp", "port": server.port}
    )
    bench.configure(primary=over | more, **PATIENT)


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_one_recipient_over_quota_does_not_touch_the_others(
    mailboxes: PrivateDovecot, bench: Bench, way: str
) -> None:
    """Each gets what Dovecot says for it after the dot; the content is unchanged."""
    configure(bench, mailboxes, way)
    before = len(mailboxes.received("alice"))
    bench.add(ALICE, BOB, NOBODY, CAROL, text=TEXT)
    bench.add(DAVE, text=TEXT)
    assert bench.drain().code == 5
    found = bench.recipients()
    assert {path: (fact["state"], fact["rule"]) for path, fact in found.items()} == {
        ALICE: ("delivered", "dot-accepted"),
        BOB: ("deferred", "enhanced-5.2.2"),
        CAROL: ("delivered", "dot-accepted"),
        DAVE: ("delivered", "dot-accepted"),
        NOBODY: ("bounce-pending", "enhanced-5.1.1"),
    }
    assert f"<{BOB}> Quota exceeded" in found[BOB]["reply"]
    stored = mailboxes.received("alice")
    assert len(stored) == before + 1
    assert all(message.endswith(TEXT) for message in stored)
    assert mailboxes.received("bob") == []
    bench.assert_balanced()


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_check_finds_it_ready_and_names_the_filters_it_bypasses(
    mailboxes: PrivateDovecot, bench: Bench, way: str
) -> None:
    """It accepts the known-good recipient, refuses a random one, and takes RSET."""
    configure(bench, mailboxes, way)
    bench.configure(health={"accept": [ALICE]})
    result = call("check", "--config", bench.config, "--json")
    assert result.code == 0
    verdicts = {each["stage"]: each["verdict"] for each in result.json["stages"]}
    assert [stage for stage in verdicts if verdicts[stage] != "ok"] == ["lmtp"]
    assert {"ehlo", "mail", f"rcpt {ALICE}", "rcpt random", "rset"} <= set(verdicts)


def test_mail_goes_to_it_under_tls(
    mailboxes: PrivateDovecot, bench: Bench, certificate: Certificate
) -> None:
    """LHLO, STARTTLS and a verified certificate, over TCP."""
    tls = {"host": "localhost", "tls": "required", "verify": True}
    ca = {"tls_ca": str(certificate.certificate)}
    configure(bench, mailboxes, "tcp", **tls, **ca)
    bench.add(ALICE, DAVE)
    assert bench.drain().code == 0
    assert set(bench.states().values()) == {"delivered"}


def test_a_session_that_xclient_renews_starts_with_lhlo_again(
    mailboxes: PrivateDovecot, bench: Bench
) -> None:
    """The client of the message is in Dovecot's trace field."""
    configure(bench, mailboxes, "tcp", forward_client="xclient")
    client = record("A", "client_address=198.51.100.7")
    bench.add(CAROL, DAVE, envelope=[client])
    assert bench.drain().code == 0
    assert any(b"[198.51.100.7]" in each for each in mailboxes.received("carol"))
