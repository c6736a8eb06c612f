"""The private servers do what the tests that rely on them believe they do."""

import hashlib
import shutil
import smtplib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mta.postfix import SEARCH_PATH, PrivatePostfix, group_alive, program
from tests.support.mta.roles import Primary, SmtpSink
from tests.support.rows import every_row
from tests.support.spools.samples import lay_out_postfix, postfix_samples

ALICE = "alice@example.com"
BOB = "bob@example.org"
CONTENT = b"Subject: hello\r\n\r\n.\r\n..two\r\n\r\nend\r\n"


def send(port: int, content: bytes = CONTENT, to: tuple[str, ...] = (BOB,)) -> None:
    """Send one message with a client that is not ours."""
    with smtplib.SMTP(
        "127.0.0.1", port, timeout=10, local_hostname="client.example"
    ) as client:
        client.sendmail(ALICE, to, content)


# ---- Postfix


@pytest.fixture(scope="module")
def primary(primary_postfix: Callable[..., Primary]) -> Primary:
    """Give one primary to the whole module."""
    return primary_postfix()


@pytest.fixture(scope="module")
def backup(
    primary: Primary, backup_postfix: Callable[..., PrivatePostfix]
) -> PrivatePostfix:
    """Give a backup that relays to the primary as soon as a test lets it."""
    return backup_postfix(
        relay_port=primary.port,
        parameters={
            "defer_transports": "relay",
            # A line stays one line, however long (the default is to fold at 998).
            "smtp_line_length_limit": "0",
        },
    )


CONTENTS = {
    "plain": CONTENT,
    "8-bit": b"Subject: 8\r\n\r\n" + bytes(range(128, 256)) + b"\r\n",
    "NUL": b"Subject: nul\r\n\r\na\0b\r\n",
    "long lines": b"Subject: long\r\n\r\n"
    + b"x" * 2048
    + b"\r\n"
    + b"y" * 5000
    + b"\r\n",
    "no body": b"Subject: nothing\r\n",
}


def test_the_primary_delivers_the_bytes_that_the_backup_stored(
    primary: Primary, backup: PrivatePostfix
) -> None:
    """Below the primary's own trace field nothing is altered, folded or added."""
    for content in CONTENTS.values():
        send(backup.port, content)
    files = backup.wait_queue(len(CONTENTS))
    stored = {backup.postcat(["-bh", str(path)]) for path in files}
    assert len(stored) == len(CONTENTS)
    backup.set(defer_transports="")
    backup.reload()
    backup.flush()
    received = primary.wait_received(len(CONTENTS))
    assert {each.content for each in received} == stored
    assert {(each.recipient, each.reverse_path) for each in received} == {
        (BOB.encode(), ALICE.encode())
    }
    backup.wait_queue(0, ("deferred", "active", "incoming"))


def test_a_stopped_instance_leaves_no_process(
    backup_postfix: Callable[..., PrivatePostfix],
) -> None:
    """Stop waits for every child; a killed instance starts again on its queue."""
    server = backup_postfix()
    send(server.port)
    server.wait_queue(1)
    first = server.master_pid
    server.kill()
    server.start()
    second = server.master_pid
    server.stop()
    server.stop()
    assert first
    assert second
    assert not group_alive(first)
    assert not group_alive(second)
    assert len(server.queue_files()) == 1


def test_mail_submitted_locally_is_kept_too(
    backup_postfix: Callable[..., PrivatePostfix],
) -> None:
    """The sendmail command works on the private instance, with hold and postqueue."""
    server = backup_postfix()
    server.sendmail(["-f", ALICE, BOB], b"Subject: local\n\nno newline")
    (path,) = server.wait_queue(1)
    server.postsuper(["-h", path.name])
    (held,) = server.wait_queue(1, ("hold",))
    assert held.name.encode() in server.postqueue(["-j"])


def test_the_sink_swallows_mail(smtp_sink: Callable[..., SmtpSink]) -> None:
    """Its options are passed on: here it knows no ESMTP."""
    sink = smtp_sink("-e")
    send(sink.port)
    with smtplib.SMTP("127.0.0.1", sink.port, timeout=10) as client:
        client.ehlo_or_helo_if_needed()
        assert not client.does_esmtp
    pid = sink.pid
    sink.stop()
    assert not Path(f"/proc/{pid}").exists()


# ---- the sample queue


def test_the_sample_queue_is_laid_out_with_the_modes_that_mean_something(
    tmp_path: Path,
) -> None:
    """0700 is a complete file; every message is listed, and logs lie beside."""
    queue = lay_out_postfix(tmp_path / "queue")
    modes = {name: int(sample["mode"], 8) for name, sample in postfix_samples().items()}
    assert {name: (queue / name).stat().st_mode & 0o777 for name in modes} == modes
    logs = {"bounce", "defer", "trace"}
    found = {path.relative_to(queue) for path in queue.rglob("*") if path.is_file()}
    assert {str(path) for path in found if path.parts[0] not in logs} == set(modes)
    assert {path.parts[0] for path in found} >= logs


def test_the_real_postcat_reads_the_samples_as_recorded(tmp_path: Path) -> None:
    """The files in the repository are those that the oracle was taken from."""
    if shutil.which("postcat", path=SEARCH_PATH) is None:
        pytest.skip("Postfix is not installed (no postcat)")
    queue = lay_out_postfix(tmp_path / "queue")
    for name, sample in postfix_samples().items():
        if sample["oracle"] is not None:
            command = [program("postcat"), "-bh", str(queue / name)]
            content = subprocess.run(command, check=True, capture_output=True).stdout
            assert hashlib.sha256(content).hexdigest() == sample["oracle"]["sha256"], (
                name
            )


# ---- tables


def test_a_table_names_each_row_that_fails_and_may_not_be_empty() -> None:
    """A failure does not hide the rows behind it."""

    def check(n: int) -> None:
        """Take small numbers."""
        assert n < 2

    every_row([0, 1])(check)()
    with pytest.raises(AssertionError, match=r"(?s)\(2,\).*\(3,\)") as failure:
        every_row(range(4))(check)()
    assert "(1,)" not in str(failure.value)
    with pytest.raises(AssertionError):
        every_row([])(check)()
