"""Promises P1, P2, P3, P6 and P9: each test tries to break one."""

import hashlib
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drainer.sources.common.marker import MARKER
from tests.support.command.installed import (
    Drainer,
    drain_arguments,
    maildir_message,
    write_maildir,
)
from tests.support.disk import Disk
from tests.support.scenarios.arrivals import most_over
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Delay,
    Drop,
    Script,
    Step,
    View,
    per_recipient,
)
from tests.support.spools.postfix_files import place, queue_file, record
from tests.support.spools.samples import lay_out_postfix
from tests.support.web.collector import spans_of_file

if TYPE_CHECKING:
    import subprocess

RECEIVER_STALL = 0.1
"""Seconds for which the peer's thread may not run while mail piles up before it."""


def _copies(peer: PeerThread) -> Counter[str]:
    return Counter(path for m in peer.accepted for path in m.forward_paths)


def _snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Return everything about a tree that reading must not change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            hashlib.sha256(content).digest(),
        )
    return found


def _unmarked(root: Path) -> dict[str, tuple[object, ...]]:
    """Return the same of two sources, but for the marker that names their ledger."""
    found = {
        name: facts
        for name, facts in _snapshot(root).items()
        if not name.endswith(f"/{MARKER}")
    }
    return found | {name: found[name][:4] for name in ("spool", "mail")}


# ---- P1: a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Give a small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with Disk(folder) as made:
        yield made


class Filler:
    """Answers final dots; at one of them it fills the disk first."""

    def __init__(self, disk: Disk, *, at: int) -> None:
        """Fill it at the ``at``-th final dot."""
        self.process: subprocess.Popen[str] | None = None
        #: How many final dots had come when the disk was full.
        self.seen_when_full = 0
        self._disk = disk
        self._at = at
        self._dots = 0

    def __call__(self, _: View) -> Step:
        """Accept the message."""
        self._dots += 1
        if self._dots == self._at and self.process is not None:
            self._disk.fill(self.process)
            self.seen_when_full = self._dots
        return "250 2.0.0 taken"


def _settle_doubts(drainer: Drainer, source: object, port: int) -> set[str]:
    """Run again; then let those go whom `list` names in doubt, who are returned."""
    drainer.environment["DRAINER_RETRY__UNKNOWN"] = "1h"
    again = drainer.drain(source, port, "--no-check")
    assert again.code in (0, 5), again.stderr
    doubtful = drainer.recipients("--state", "unknown")
    named = {row["forward_path"] for row in doubtful}
    assert again.code == (5 if named else 0)
    if named:
        verb = ("requeue", "--state", "unknown", "--reason", "the test may")
        assert drainer.run(*verb).code == 0
        last = drainer.drain(source, port, "--no-check")
        assert last.code == 0, last.stderr
    assert drainer.status()["balanced"]
    return named


def test_with_a_full_disk_nothing_more_is_sent_and_nothing_is_lost(
    tmp_path: Path, disk: Disk
) -> None:
    """Exit 1 and what to do; then no dot leaves without room; with room all arrive.

    What was on its way when the disk filled up may end as doubt: at most one message
    per session, by name.
    """
    sessions = 5
    expected = write_maildir(tmp_path / "spool", 120)
    traces = disk.folder / "traces.jsonl"
    drainer = Drainer(disk.folder / "ledger.db")
    drainer.environment["DRAINER_TELEMETRY__TRACES"] = f"file:{traces}"
    filler = Filler(disk, at=30)
    with PeerThread(Script(dot=filler)) as peer:
        arguments = drain_arguments(tmp_path / "spool", peer.port, "--no-check",
                                    "--connections", sessions)  # fmt: skip
        process = filler.process = drainer.start(*arguments)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        assert "was lost: database or disk is full" in stderr
        assert "make room" in stderr
        assert "Traceback" not in stderr
        sent = len(peer.messages)
        assert filler.seen_when_full < sent + 1 <= filler.seen_when_full + sessions
        if disk.folder.joinpath("ballast").exists():
            still = drainer.drain(tmp_path / "spool", peer.port, "--no-check")
            assert still.code == 1, still.stderr
            assert "Traceback" not in still.stderr
            assert len(peer.messages) == sent
        disk.free()
        named = _settle_doubts(drainer, tmp_path / "spool", peer.port)
        assert len(named) <= sessions
        copies = _copies(peer)
        assert set(copies) == set(expected)
        assert {path for path, count in copies.items() if count > 1} <= named
        assert not peer.violations
    roots = [span for span in spans_of_file(traces) if span.name == "message"]
    assert len({span.trace_id for span in roots}) == len(expected)


class Killer:
    """Answers final dots; at one it kills the process that writes the ledger."""

    def __init__(self, ledger: Path, *, at: int) -> None:
        """Kill it at the ``at``-th final dot."""
        self.process: subprocess.Popen[str] | None = None
        self._ledger = ledger
        self._at = at
        self._dots = 0

    def __call__(self, _: View) -> Step:
        """Accept the message."""
        self._dots += 1
        if self._dots == self._at and self.process is not None:
            os.kill(self._writer(self.process.pid), signal.SIGKILL)
        return "250 2.0.0 taken"

    def _writer(self, parent: int) -> int:
        """Return the helper that has the lock of the ledger's owner open."""
        tasks = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in tasks:
            links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
            if any(".locks/" in link and "traces" not in link for link in links):
                return int(pid)
        msg = "no process writes the ledger"
        raise AssertionError(msg)


def test_killed_alone_the_process_that_writes_ends_the_drain_in_order(
    tmp_path: Path,
) -> None:
    """The kernel may take it for its memory: exit 1, a clear error, nothing is lost."""
    expected = write_maildir(tmp_path / "spool", 120)
    drainer = Drainer(tmp_path / "ledger.db")
    killer = Killer(tmp_path / "ledger.db", at=30)
    with PeerThread(Script(dot=killer)) as peer:
        arguments = drain_arguments(
            tmp_path / "spool", peer.port, "--no-check", "--connections", 5
        )
        process = killer.process = drainer.start(*arguments)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        assert "the process that writes the ledger ended unexpectedly" in stderr
        assert "Traceback" not in stderr
        assert "Exception" not in stderr
        assert '"exit": 1' in stdout
        named = _settle_doubts(drainer, tmp_path / "spool", peer.port)
        copies = _copies(peer)
        assert set(copies) == set(expected)
        assert {path for path, count in copies.items() if count > 1} <= named
        assert not peer.violations


def test_a_primary_that_tires_of_waiting_sessions_is_not_suspected(
    tmp_path: Path,
) -> None:
    """A slow rate keeps sessions waiting for longer than a primary keeps them.

    No token goes to a session that has gone, and nobody is blamed for that.
    """
    write_maildir(tmp_path / "spool", 8)
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread(Script(idle=1.2)) as peer:
        options = ("--no-check", "--rate", "1/second", "--connections", 5)
        begun = time.monotonic()
        result = drainer.drain(tmp_path / "spool", peer.port, *options)
        took = time.monotonic() - begun
        assert result.code == 0, result.stderr
        assert len(peer.messages) == 8
        assert not peer.violations
    assert took < 12, result.stderr  # the rate, and a start: no token was lost
    assert "no ehlo" not in result.stderr


def test_a_whole_queue_never_falls_due_in_one_second(tmp_path: Path) -> None:
    """Everything is put off at once, and is tried again over many seconds."""
    write_maildir(tmp_path / "spool", 40)
    drainer = Drainer(tmp_path / "ledger.db", {})  # with the usual waits
    with PeerThread(Script(rcpt="450 4.2.0 later")) as peer:
        process = drainer.start(
            *drain_arguments(tmp_path / "spool", peer.port, "--no-check")
        )
        peer.wait(lambda: sum(c.line[:4] == b"RCPT" for c in peer.commands) >= 40)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    due = [
        datetime.fromisoformat(row["due"])
        for row in drainer.recipients()
        if row["state"] == "deferred"
    ]
    assert len(due) >= 30
    assert max(due) - min(due) > timedelta(seconds=5)


def test_octets_leave_as_they_are_paid_for(tmp_path: Path) -> None:
    """A message of four bursts comes in four parts: no window sees more than allowed.

    Commands are not counted by the throttle, but are by the peer.
    """
    per_second, commands = 10_000, 500
    folder = tmp_path / "spool"
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True)
    content = b"Subject: x\n\n" + (b"y" * 76 + b"\n") * 500
    head = b"Return-Path: <a@example.com>\nDelivered-To: b@example.org\n"
    (folder / "new" / "1.M1P1.backup").write_bytes(head + content)
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment["DRAINER_THROTTLE__BYTES"] = "10kB/second"
    with PeerThread(Script()) as peer:
        result = drainer.drain(folder, peer.port, "--no-check")
        assert result.code == 0, result.stderr
        assert len(peer.messages) == 1
        arrived = [each for wire in peer.wires for each in wire.arrived]
    total, least = 0.0, float("inf")
    for at, size in sorted(arrived):
        least = min(least, total - per_second * at)
        total += size
        tolerance = commands + per_second * RECEIVER_STALL
        assert total - per_second * at - least <= per_second + tolerance


# ---- P2: identity


def _queue(root: Path, count: int) -> list[str]:
    """Write a Postfix queue; return the forward-paths."""
    paths = []
    for n in range(count):
        path = f"user{n}@example.org"
        data = queue_file(
            sender=f"s{n}@example.com".encode(),
            envelope=(record("R", path),),
            text=f"Subject: {n}\n\nbody of {n}\n".encode(),
        )
        place(root, data, f"2878E21E2F{n:X}", ("deferred", f"{n:X}"))
        paths.append(path)
    return paths


def test_a_renamed_queue_file_and_a_copied_spool_are_known(tmp_path: Path) -> None:
    """Neither names nor places identify a message: a second drain sends nothing."""
    expected = _queue(tmp_path / "spool", 8)
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread() as peer:
        first = drainer.drain(f"postfix:{tmp_path}/spool", peer.port, "--no-check")
        assert first.code == 0, first.stderr
        # As `postsuper -s` and a repaired file system do.
        for n, path in enumerate(sorted((tmp_path / "spool").rglob("2878E*"))):
            folder = tmp_path / "spool" / ("incoming" if n % 2 else "deferred")
            folder.mkdir(exist_ok=True)
            path.rename(folder / f"4AB37C1F{n:02X}")
        renamed = drainer.drain(f"postfix:{tmp_path}/spool", peer.port, "--no-check")
        assert renamed.code == 0, renamed.stderr
        assert renamed.objects[-1]["sent_messages"] == 0
        shutil.copytree(tmp_path / "spool", tmp_path / "elsewhere" / "copy")
        copied = drainer.drain(
            f"postfix:{tmp_path}/elsewhere/copy", peer.port, "--no-check"
        )
        assert copied.code == 0, copied.stderr
        assert copied.objects[-1]["sent_messages"] == 0
        assert _copies(peer) == Counter(expected)


def test_a_message_that_a_reader_moves_and_flags_is_the_same(tmp_path: Path) -> None:
    """From new to cur with flags: what was sent stays so, the rest goes on."""
    expected = write_maildir(tmp_path / "spool", 6)
    source = f"maildir:{tmp_path}/spool?ack=keep"
    late = expected[3]
    drainer = Drainer(tmp_path / "ledger.db")
    script = Script(rcpt=per_recipient({late: "451 4.7.1 later"}))
    with PeerThread(script) as peer:
        first = drainer.drain(source, peer.port, "--no-check", "--give-up-after", "1ms")
        assert first.code == 5, first.stderr
        for path in sorted((tmp_path / "spool" / "new").iterdir()):
            path.rename(tmp_path / "spool" / "cur" / f"{path.name}:2,RS")
        peer.script = Script()
        again = drainer.drain(source, peer.port, "--no-check")
        assert again.code == 0, again.stderr
        assert _copies(peer) == Counter(expected)
        assert len(list((tmp_path / "spool" / "cur").iterdir())) == len(expected)


@pytest.mark.parametrize("second_after", [0, 20])
def test_two_drains_of_one_spool_share_it(tmp_path: Path, second_after: int) -> None:
    """Started together, or one later: nothing twice, nothing lost, documented ends."""
    expected = write_maildir(tmp_path / "spool", 150)
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread(Script(dot=Delay(0.01, "250 2.0.0 taken"))) as peer:
        arguments = drain_arguments(tmp_path / "spool", peer.port, "--no-check",
                                    "--connections", 2)  # fmt: skip
        one = drainer.start(*arguments)
        peer.wait(lambda: len(peer.messages) >= second_after, timeout=30)
        two = drainer.start(*arguments)
        for process in (one, two):
            _, stderr = process.communicate(timeout=60)
            assert process.returncode in (0, 5, 6), stderr
            assert "Traceback" not in stderr
        last = drainer.drain(tmp_path / "spool", peer.port, "--no-check")
        assert last.code == 0, last.stderr
        assert _copies(peer) == Counter(expected)
        assert drainer.status()["balanced"]
        assert not list((tmp_path / "spool" / "new").iterdir())


# ---- P3: the rate


@pytest.mark.alone
@pytest.mark.parametrize(
    ("rate", "per_second", "burst", "kills"),
    [("20/second", 20, 4, [25, 20, 15]), ("60/minute", 1, 1, [1, 1, 2])],
)
def test_no_window_sees_more_than_the_rate_allows_restarts_included(
    tmp_path: Path, rate: str, per_second: float, burst: float, kills: Sequence[int]
) -> None:
    """Ten sessions, killed and started again at once, over and over.

    The times are the receiver's, so what piled up before it for a moment counts as
    come at once: that is the only tolerance.
    """
    write_maildir(tmp_path / "spool", sum(kills) + 40)
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread(Script(dot=Delay(0.05, "250 2.0.0 taken"))) as peer:
        for more in kills:
            wanted = len(peer.transactions) + more
            options = ("--no-check", "--rate", rate, "--connections", 10)
            arguments = drain_arguments(tmp_path / "spool", peer.port, *options)
            process = drainer.start(*arguments)
            peer.wait(lambda n=wanted: len(peer.transactions) >= n, timeout=30)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.communicate()
        times = [message.mail_at for message in peer.transactions]
    assert most_over(times, per_second) <= burst + per_second * RECEIVER_STALL
    assert len(times) >= sum(kills)


@pytest.mark.alone
@pytest.mark.parametrize("second_after", [0, 25], ids=["together", "one-later"])
def test_drains_of_one_primary_share_its_rate(
    tmp_path: Path, second_after: int
) -> None:
    """Two spools, one ledger: together they send no more than one may, and no less."""
    drainer = Drainer(tmp_path / "ledger.db")
    for name in ("one", "two"):
        write_maildir(tmp_path / name, 60, domain=f"{name}.example")
    with PeerThread(Script(dot=Delay(0.02, "250 2.0.0 taken"))) as peer:
        processes = []
        for name in ("one", "two"):
            options = ("--no-check", "--rate", "20/second", "--connections", 4)
            arguments = drain_arguments(tmp_path / name, peer.port, *options)
            processes.append(drainer.start(*arguments))
            peer.wait(lambda: len(peer.transactions) >= second_after, timeout=30)
        for process in processes:
            _, stderr = process.communicate(timeout=60)
            assert process.returncode == 0, stderr
        times = [message.mail_at for message in peer.transactions]
    assert len(times) == 120
    assert most_over(times, 20) <= 4 + 20 * RECEIVER_STALL
    assert max(times) - min(times) < 1.5 * 120 / 20


# ---- P6: bytes

CONTENTS = {
    "NUL": b"Subject: nul\n\na\0b\0\n\0\n",
    "8-bit": "Subject: 8bit\n\nGrüße\n".encode() + b"\xff\xfe\x80\n",
    "8-bit header": b"Subject: \xe4\xf6\n\nbody\n",
    "dots": b"Subject: dots\n\n.\n..\n...a\n.\n",
    "a long line": b"Subject: long\n\n" + b"x" * 70_000 + b"\n",
    "no last newline": b"Subject: unfinished\n\nend",
    "CRLF": b"Subject: crlf\r\n\r\nbody\r\n.\r\n",
    "trace-like body": b"Subject: t\n\nReturn-Path: <a@b.example>\nDelivered-To: c\n",
    "inner trace": b"X-Original-To: forged@example.org\nSubject: inner\n\nbody\n",
    "blanks": b"Subject: blanks  \n\n  \n\t\nx \n\n\n",
    "no body": b"Subject: none\n",
    "mixed case, folded": b"sUBJECT:a\n b\n\tc\nX-Empty:\n\nbody\n",
}


def _maildir_of(root: Path, contents: dict[str, bytes]) -> dict[str, bytes]:
    """Write a Maildir; return, by recipient, what must arrive."""
    for name in ("tmp", "new", "cur"):
        (root / name).mkdir(parents=True)
    wanted = {}
    for n, text in enumerate(contents.values()):
        recipient = f"user{n}@example.org"
        block = (
            f"Return-Path: <s{n}@example.com>\n"
            f"X-Original-To: {recipient}\nDelivered-To: {recipient}\n"
        ).encode()
        received = (
            f"Received: from client.example (client.example [192.0.2.1])\n"
            f"\tby backup.example (Postfix) with ESMTP id {n:08X}\n"
            f"\tfor <{recipient}>; Mon, 23 Nov 2026 17:06:59 +0000 (UTC)\n"
        ).encode()
        eol = b"\r\n" if b"\r\n" in text else b"\n"
        data = (block + received).replace(b"\n", eol) + text
        (root / "new" / f"1795453785.M{n:06}P1.backup").write_bytes(data)
        body = data.split(eol, 3)[3].replace(b"\r\n", b"\n")
        body += b"" if body.endswith(b"\n") else b"\n"
        wanted[recipient] = body.replace(b"\n", b"\r\n")
    return wanted


def test_a_maildir_message_arrives_byte_for_byte_without_its_trace_block(
    tmp_path: Path,
) -> None:
    """Every octet below what the delivery put on top, and lines end in CRLF."""
    wanted = _maildir_of(tmp_path / "spool", CONTENTS)
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread() as peer:
        result = drainer.drain(tmp_path / "spool", peer.port, "--no-check")
        assert result.code == 0, result.stderr + str(drainer.recipients())
        got = {m.forward_paths[0]: m for m in peer.accepted}
        assert set(got) == set(wanted)
        for n, (name, recipient) in enumerate(zip(CONTENTS, wanted, strict=True)):
            assert got[recipient].content == wanted[recipient], name
            assert got[recipient].reverse_path == f"s{n}@example.com"
        for name in ("8-bit", "8-bit header"):
            parameters = got[f"user{list(CONTENTS).index(name)}@example.org"].parameters
            assert parameters["BODY"] == "8BITMIME"
        assert not peer.violations


# ---- P9: reading


@pytest.mark.parametrize("command", ["inspect", "plan", "check", "dry run"])
def test_commands_that_look_write_nothing_anywhere(
    tmp_path: Path, command: str
) -> None:
    """The spools stay as they are, no ledger comes to be, no message is begun."""
    postfix = lay_out_postfix(tmp_path / "spool")
    write_maildir(tmp_path / "mail", 3)
    before = _snapshot(tmp_path)
    drainer = Drainer(tmp_path / "ledger.db")
    sources = [f"postfix:{postfix}", f"maildir:{tmp_path}/mail"]
    with PeerThread() as peer:
        to = ("--to", f"127.0.0.1:{peer.port}")
        arguments: dict[str, Sequence[object]] = {
            "inspect": ("inspect", *sources, "--json"),
            "plan": ("plan", *sources, *to),
            "check": ("check", *to),
            "dry run": ("drain", *sources, *to, "--dry-run"),
        }
        result = drainer.run(*arguments[command])
        assert result.code == 0, result.stderr
        assert result.stdout
        assert b"DATA" not in {seen.line for seen in peer.commands}
        assert bool(peer.commands) == (command == "check")
    assert _snapshot(tmp_path) == before


def test_a_drain_changes_nothing_in_a_spool_that_it_keeps(tmp_path: Path) -> None:
    """A Postfix copy by default, a Maildir with ack=keep: modes, times, names, bytes.

    The ledger remembers instead: a second drain sends nothing.
    """
    postfix = lay_out_postfix(tmp_path / "both" / "spool")
    write_maildir(tmp_path / "both" / "mail", 5)
    before = _unmarked(tmp_path / "both")
    drainer = Drainer(tmp_path / "ledger.db")
    sources = (f"postfix:{postfix}", f"maildir:{tmp_path}/both/mail?ack=keep")
    with PeerThread() as peer:
        to = ("--to", f"127.0.0.1:{peer.port}", "--rate", "unlimited", "--no-check")
        result = drainer.run("drain", *sources, *to, "--json")
        assert result.code == 5, result.stderr  # some samples cannot be replayed
        assert _unmarked(tmp_path / "both") == before
        sent = len(peer.messages)
        assert sent > 5
        again = drainer.run("drain", *sources, *to, "--json")
        assert again.objects[-1]["sent_messages"] == 0
        assert len(peer.messages) == sent
    assert _unmarked(tmp_path / "both") == before


# ---- acknowledging


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_finished_messages_move_aside_and_held_ones_stay(tmp_path: Path) -> None:
    """They lie in NAME.drained as they were; what waits for a person stays."""
    spool, drained = tmp_path / "spool", tmp_path / "spool.drained"
    write_maildir(spool, 4)
    orphan = spool / "new" / "1795453786.M000009P1.backup"
    orphan.write_bytes(b"Subject: for whom?\nTo: someone@example.org\n\nbody\n")
    contents = {path.name: path.read_bytes() for path in (spool / "new").iterdir()}
    drainer = Drainer(tmp_path / "ledger.db")
    script = Script(rcpt=per_recipient({"user2@example.org": "550 5.1.1 unknown"}))
    with PeerThread(script) as peer:
        result = drainer.drain(spool, peer.port, "--no-check")
        assert result.code == 5, result.stderr
        assert len(peer.accepted) == 3
    refused = "1795453785.M000002P1.backup"
    assert _names(spool / "new") == {orphan.name, refused}
    assert _names(drained / "new") == set(contents) - {orphan.name, refused}
    for place_ in (spool / "new", drained / "new"):
        for path in place_.iterdir():
            assert path.read_bytes() == contents[path.name]
    states = Counter(row["state"] for row in drainer.recipients())
    assert states == {"delivered": 3, "bounce-pending": 1, "held": 1}
    assert drainer.status()["messages"]["acknowledged"] == 3


def test_a_spool_that_did_not_let_go_is_told_again_by_the_next_drain(
    tmp_path: Path,
) -> None:
    """Final in the ledger, still in the spool: acknowledged later, never sent again."""
    spool, drained = tmp_path / "spool", tmp_path / "spool.drained"
    expected = write_maildir(spool, 5)
    names = _names(spool / "new")
    drained.write_text("in the way")
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread() as peer:
        first = drainer.drain(spool, peer.port, "--no-check")
        assert first.code == 0, first.stderr
        assert "keeps what is finished" in first.stderr
        assert _names(spool / "new") == names
        drained.unlink()
        again = drainer.drain(spool, peer.port, "--no-check")
        assert again.code == 0, again.stderr
        assert again.objects[-1]["sent_messages"] == 0
        assert _copies(peer) == Counter(expected)
    assert not _names(spool / "new")
    assert _names(drained / "new") == names
    assert drainer.status()["messages"]["acknowledged"] == 5


def test_killed_before_it_acknowledged_the_rerun_does(tmp_path: Path) -> None:
    """Killed at a final dot: what was final before is moved, and the doubtful stays."""
    spool, drained = tmp_path / "spool", tmp_path / "spool.drained"
    expected = write_maildir(spool, 40)
    names = _names(spool / "new")
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment["DRAINER_RETRY__UNKNOWN"] = "1h"
    kill: list[Callable[[], None]] = []
    left = iter(range(25))

    def dot(_: View) -> Step:
        if next(left, None) is None and kill:
            kill.pop()()
            return Drop()
        return "250 2.0.0 taken"

    with PeerThread(Script(dot=dot)) as peer:
        arguments = drain_arguments(spool, peer.port, "--no-check", "--connections", 1)
        process = drainer.start(*arguments)
        kill.append(lambda: _end(process))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        final = {p for p, state in drainer.states().items() if state == "delivered"}
        assert len(final) == 25, "the 26th dot left after 25 outcomes were durable"
        again = drainer.drain(spool, peer.port, "--no-check")
        assert again.code == 5, again.stderr
        [doubtful] = drainer.recipients("--state", "unknown")
        assert _names(spool / "new") == {doubtful["native_id"]}
        assert _names(drained / "new") == names - {doubtful["native_id"]}
        assert set(_copies(peer)) == set(expected) - {doubtful["forward_path"]}
        assert set(_copies(peer).values()) == {1}


def _end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_shared_message_is_acknowledged_when_its_last_recipient_is_final(
    tmp_path: Path,
) -> None:
    """One of three recipients is refused for now: the file stays until he has it."""
    spool = tmp_path / "spool"
    write_maildir(spool, 1)
    [path] = (spool / "new").iterdir()
    text = maildir_message(0, "user0@example.org")
    more = b"X-Original-To: b@example.org\nX-Original-To: c@example.org\n"
    path.write_bytes(text.replace(b"Delivered-To:", more + b"Delivered-To:", 1))
    drainer = Drainer(tmp_path / "ledger.db")
    script = Script(rcpt=per_recipient({"b@example.org": "451 4.7.1 later"}))
    with PeerThread(script) as peer:
        first = drainer.drain(spool, peer.port, "--no-check", "--give-up-after", "1ms")
        assert first.code == 5, first.stderr
        assert _names(spool / "new") == {path.name}
        peer.script = Script()
        assert drainer.drain(spool, peer.port, "--no-check").code == 0
        wanted = Counter(("user0@example.org", "b@example.org", "c@example.org"))
        assert _copies(peer) == wanted
    assert not _names(spool / "new")
    assert _names(tmp_path / "spool.drained" / "new") == {path.name}
