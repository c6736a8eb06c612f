"""`-q` and `-v`, which every command has; and what a journal gets."""

import os
import re
from base64 import b64encode
from pathlib import Path

import pytest

from drainer.cli import COMMANDS
from tests.support.command.runner import Bench, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import EXTENSIONS, Script
from tests.support.tls.certificates import self_signed


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a backup with one message."""
    made = Bench(tmp_path)
    made.add("anna@example.org")
    return made


def test_quiet_prints_warnings_and_results_alone(bench: Bench) -> None:
    """The summary is a result, on stdout."""
    with PeerThread() as peer:
        bench.port = peer.port
        result = bench.drain("-q")
    assert result.code == 0
    assert "warning: " in result.stderr, "no known-good recipient is configured"
    assert "draining to" not in result.stderr
    assert result.stdout


def test_verbose_prints_connections_and_results_of_messages(bench: Bench) -> None:
    """Each recipient with its state and the reply; addresses as traces show them."""
    with PeerThread(Script(dot="250 2.0.0 delivered to mailbox Anna")) as peer:
        bench.port = peer.port
        hashed = bench.drain("--verbose").stderr
        bench.configure(telemetry={"addresses": "plain"})
        bench.add("bob@example.org")
        plain = bench.drain("--verbose").stderr
    assert f"connected to 127.0.0.1:{bench.port}" in hashed
    assert re.search(r"to [0-9a-f]{16}: delivered by .* mailbox [0-9a-f]{16}", hashed)
    assert "anna" not in hashed.lower()
    assert "to bob@example.org: delivered by " in plain
    assert "draining to" in plain


@pytest.mark.parametrize("option", ["-vv", "--debug"])
def test_twice_verbose_prints_the_smtp_dialogue(bench: Bench, option: str) -> None:
    """Without content; addresses as the traces show them."""
    with PeerThread(Script(rcpt="250 2.1.5 <anna@example.org> \x1b[2Jok")) as peer:
        bench.port = peer.port
        hashed = bench.drain(option).stderr
        bench.configure(telemetry={"addresses": "plain"})
        bench.add("bob@example.org")
        plain = bench.drain(option).stderr
        usual = bench.drain("-v").stderr
    assert "] > EHLO backup.example\n" in hashed
    assert "] > MAIL FROM:<" in hashed
    assert "] < 354 " in hashed
    assert " bytes of content)\n" in hashed
    assert "hello" not in hashed, "the subject"
    assert "anna@" not in hashed
    assert "] > RCPT TO:<bob@example.org>" in plain
    assert "\x1b" not in plain
    assert "] > " not in usual


def test_the_dialogue_shows_no_secret(bench: Bench) -> None:
    """A login is one line."""
    certificate = self_signed(bench.root)
    script = Script(
        extensions=(*EXTENSIONS, "AUTH PLAIN"), tls=certificate.server_context()
    )
    with PeerThread(script) as peer:
        bench.port = peer.port
        login = {"username": "backup", "password": "very secret"}
        trust = {"tls": "required", "tls_ca": str(certificate.certificate)}
        bench.configure(primary=login | trust)
        result = bench.drain("-vv")
    assert peer.logins == [("backup", "very secret")]
    assert "] > STARTTLS\n" in result.stderr
    assert "] > AUTH ***\n" in result.stderr
    assert b64encode(b"\0backup\0very secret").decode() not in result.stderr
    assert "very secret" not in result.stderr


def test_a_command_before_changes_nothing(bench: Bench) -> None:
    """Each command starts with the usual amount."""
    with PeerThread() as peer:
        bench.port = peer.port
        bench.drain("-q")
        assert "draining to" in bench.drain().stderr


def test_a_journal_gets_priorities(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd reads them: 4 is a warning, 6 information."""
    monkeypatch.setitem(os.environ, "JOURNAL_STREAM", "8:1")
    with PeerThread() as peer:
        bench.port = peer.port
        lines = bench.drain().stderr.splitlines()
    assert any(line.startswith("<6>draining to") for line in lines)
    assert any(line.startswith("<4>") for line in lines)


def test_a_journal_gets_no_address_that_is_hashed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in messages nor in the summary, however the primary writes it."""
    monkeypatch.setitem(os.environ, "JOURNAL_STREAM", "8:1")
    refusal = "554 5.7.1 <anna@example.org>: Relay access denied for anna"
    with PeerThread(Script(rcpt=refusal)) as peer:
        bench.port = peer.port
        bench.configure(health={"accept": ["anna@example.org"]})
        drain = "drain", f"postfix:{bench.spool}"
        refused, not_ready = bench.run(*drain, "--no-check", "-vv"), bench.run(*drain)
    for result in (refused, not_ready):
        assert "5.7.1" in result.stderr + result.stdout
        assert "anna" not in (result.stderr + result.stdout).lower()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_both(command: str) -> None:
    """So have the commands below a group."""
    text = call(command, "--help").stdout
    assert ("--quiet" in text and "--verbose" in text) or "Commands" in text
