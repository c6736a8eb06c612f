"""Our reading of a real sendmail's queue, and of damaged ones."""

import fcntl
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from drainer.errors import MessageUnreadable, UsageError
from drainer.sources.sendmail.source import SendmailQueue
from tests.support.spools.queue_kits import HEADER, SendmailKit, control_file
from tests.support.spools.queue_oracle import delivered, lay_out, read

KIT = SendmailKit()


def codes(root: Path) -> dict[str, str]:
    """Return the problem of every message, '' for none."""
    return {
        each.message.native_id: each.message.problem.code
        if each.message.problem
        else ""
        for each in SendmailQueue(root).scan()
    }


def test_what_we_read_is_what_sendmail_sent(tmp_path: Path) -> None:
    """Envelope, DSN parameters and content; but an emptied Bcc stays as it was."""
    ours = read(SendmailQueue(lay_out("sendmail", tmp_path / "mqueue")))
    theirs = delivered("sendmail")
    content = theirs["dots"]["content"]
    theirs["dots"]["content"] = content.replace("Bcc:", "Bcc: someone@example.com")
    assert ours == theirs


def test_client_and_flags_are_read(tmp_path: Path) -> None:
    """What the macros of the control file say."""
    source = SendmailQueue(lay_out("sendmail", tmp_path / "mqueue"))
    for spooled in source.scan():
        client = spooled.message.client
        assert (client.address, client.name) == ("127.0.0.1", "localhost")
        assert client.helo == "mail.example.com"
        assert spooled.message.message_id.endswith("@example.com>")


@pytest.mark.parametrize(
    ("prefix", "change", "code"),
    [
        ("qf", lambda _: "", "incomplete"),
        ("qf", lambda text: text[:100], "corrupt"),
        ("qf", lambda text: text.replace("V8\n", "V9\n"), "corrupt"),
        ("qf", lambda text: text.replace("T1795453619\n", ""), "corrupt"),
        ("qf", lambda text: text.replace("T1795453619", "T9" + "9" * 30), "corrupt"),
        ("qf", lambda text: text.replace("<s@example.com>", "|prog"), "bad-address"),
        (
            "qf",
            lambda text: text.replace("RPFD:<r@", "r<r@"),
            "done-by-backup",
        ),
        ("qf", lambda text: f"{text}\nRPFD:<x@y>\n", "corrupt"),
        ("qf", lambda text: text.replace("K0", "K\0"), "corrupt"),
        ("hf", lambda text: text.replace("K0", "qmilter said so\nK0"), "quarantined"),
        ("Qf", lambda text: text, "marked-corrupt"),
    ],
)
def test_damage_is_listed_by_name_and_the_rest_goes_on(
    tmp_path: Path, prefix: str, change: Callable[[str], str], code: str
) -> None:
    """No exception, no silence."""
    KIT.write(tmp_path, b"GOOD", "x")
    path = KIT.write(tmp_path, b"BAD", "x")
    text = change(path.read_text("latin-1"))
    path.unlink()
    path.with_name(f"{prefix}BAD").write_text(text, "latin-1")
    assert codes(tmp_path) == {"GOOD": "", "BAD": code}


def test_bodies_and_control_files_belong_together(tmp_path: Path) -> None:
    """Either alone is told; a body's place may be told by the control file."""
    KIT.write(tmp_path, b"LONELY", "x").unlink()
    KIT.write(tmp_path, b"BODILESS", "x").with_name("dfBODILESS").unlink()
    path = KIT.write(tmp_path, b"APART", "x")
    (tmp_path / "q3").mkdir()
    path.with_name("dfAPART").rename(tmp_path / "q3" / "dfAPART")
    path.write_text(path.read_text("latin-1").replace("K0", "d/var/q3\nK0"), "latin-1")
    (tmp_path / "xfAPART").write_text("a transcript")
    assert codes(tmp_path) == {
        "LONELY": "incomplete",
        "BODILESS": "corrupt",
        "APART": "",
    }
    for spooled in SendmailQueue(tmp_path).scan():
        message = spooled.message
        if message.problem and message.problem.code == "corrupt":
            with pytest.raises(MessageUnreadable, match="missing"):
                list(spooled.content.chunks())


def test_only_conditional_fields_of_smtp_are_sent(tmp_path: Path) -> None:
    """Return-Path belongs to local delivery; a macro must have a value."""
    path = KIT.write(tmp_path, b"X", "x")
    fields = "H?D?Date: d\nH?x?Full-Name: n\nH?${a}?A: a\nH?${b}?B: b\n"
    text = control_file(f"{HEADER.format('x')}{fields}").replace("K0", "K0\n${a}1")
    path.write_text(text, "latin-1")
    (spooled,) = SendmailQueue(tmp_path).scan()
    content = b"".join(spooled.content.chunks())
    assert content.endswith(b"Date: d\r\nA: a\r\n\r\nbody\r\n")
    assert b"Return-Path" not in content


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf])
def test_a_locked_message_is_not_removed(
    tmp_path: Path, lock: Callable[[int, int], None]
) -> None:
    """Another process holds the lock on the control file, in either way."""
    path = KIT.write(tmp_path, b"X", "x")
    source = KIT.open(tmp_path, drops=True)
    (spooled,) = source.scan()
    reading, writing = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # other tests' threads are idle
        child = os.fork()
    if child == 0:
        with path.open("r+b") as file:
            lock(file.fileno(), fcntl.LOCK_EX)
            os.write(writing, b"x")
            signal.pause()
    try:
        os.read(reading, 1)
        assert source.acknowledge([spooled.message]) == []
        assert path.exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    assert list(tmp_path.iterdir()) == []


def test_a_running_sendmail_is_noticed(tmp_path: Path) -> None:
    """Its current directory is the queue."""
    KIT.write(tmp_path, b"X", "x")
    source = SendmailQueue(tmp_path)
    source.refuse_if_live()
    (tmp_path / "sendmail-mta").symlink_to("/bin/sleep")
    with subprocess.Popen([tmp_path / "sendmail-mta", "60"], cwd=tmp_path) as server:
        try:
            wait_for_name(server.pid)
            with pytest.raises(UsageError, match=str(server.pid)) as caught:
                source.refuse_if_live()
            assert "stop it first. Draining a copy does not help" in caught.value.hint
        finally:
            server.kill()


def wait_for_name(process: int) -> None:
    """Wait until a new process is its own program."""
    while "send" not in Path(f"/proc/{process}/comm").read_text():
        time.sleep(0.01)
