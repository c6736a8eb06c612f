"""A real Postfix as the backup, another one as the primary, drainer between them."""

import hashlib
import smtplib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from drainer.sources.common.marker import MARKER
from tests.support.command.installed import Drainer
from tests.support.mta.postfix import PrivatePostfix
from tests.support.mta.roles import Primary, Received
from tests.support.spools.samples import Sample, lay_out_postfix, postfix_samples

DOMAINS = (
    "example.org", "example.net", "example.com", "partial.example.net",
    "stall.example.net", "例え.example.org",
)  # fmt: skip
QUEUES = ("incoming", "active", "deferred", "hold")
NOT_REPLAYED = ("filter",)
"""Samples that must be held as they stand."""


def _expected() -> tuple[Counter[tuple[str, str, str]], list[Sample]]:
    """Return (sender, recipient, content digest) of what the primary must get."""
    wanted: Counter[tuple[str, str, str]] = Counter()
    held = []
    for path, sample in postfix_samples().items():
        oracle = sample["oracle"]
        if path.split("/")[0] not in QUEUES:
            continue
        if oracle is None or "content_filter" in oracle:
            held.append(sample)
            continue
        pending = [recipient["address"] for recipient in oracle["recipients"]]
        if redirect := oracle.get("redirect_to"):
            pending = [redirect] if pending else []
        for address in dict.fromkeys(pending):
            wanted[_sender(oracle, address), address, oracle["sha256"]] += 1
    return wanted, held


def _sender(oracle: Mapping[str, Any], recipient: str) -> str:
    """Return the reverse-path; VERP names the recipient in it (VERP_README)."""
    sender: str = oracle["sender"]
    if not (verp := oracle.get("verp_delimiters")):
        return sender
    local, _, domain = sender.rpartition("@")
    return f"{local}{verp[0]}{recipient.replace('@', verp[1])}@{domain}"


def _unquoted(address: bytes) -> str:
    if not address:
        return ""
    local, _, domain = address.decode().rpartition("@")
    if local.startswith('"'):
        local = local[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return f"{local}@{domain}"


def _got(received: list[Received]) -> Counter[tuple[str, str, str]]:
    return Counter(
        (_unquoted(r.reverse_path), _unquoted(r.recipient), _digest(r.content))
        for r in received
    )


def _without_reports(received: list[Received]) -> list[Received]:
    """Leave out the primary's own success reports (some samples ask for them)."""
    own = b"Reporting-MTA: dns; primary.example"
    return [r for r in received if own not in r.content]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_real_queue_arrives_byte_for_byte_for_its_pending_recipients(
    tmp_path: Path, primary_postfix: Callable[..., Primary]
) -> None:
    """Below the primary's trace field stands what `postcat -bh` shows, no more."""
    spool = lay_out_postfix(tmp_path / "spool")
    before = _snapshot(spool)
    primary = primary_postfix(domains=DOMAINS)
    drainer = Drainer(tmp_path / "ledger.db")
    queues = [word for queue in QUEUES for word in ("--queue", queue)]
    result = drainer.drain(f"postfix:{spool}", primary.port, "--no-check", *queues)
    wanted, held = _expected()
    assert result.code == 5, result.stderr  # what is held remains
    primary.wait_queue(0, ("incoming", "active"))
    assert _got(_without_reports(primary.received())) == wanted
    states = Counter(row["state"] for row in drainer.recipients())
    assert states["delivered"] == wanted.total()
    assert states["held"] >= len(held)
    assert drainer.status()["balanced"]
    assert _snapshot(spool) == before, "a kept copy is not touched"
    again = drainer.drain(f"postfix:{spool}", primary.port, "--no-check", *queues)
    assert again.objects[-1]["sent_messages"] == 0, "a second drain sends nothing"


def _snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mode, path.stat().st_size)
        for path in root.rglob("*")
        if path.name != MARKER  # it names the ledger that drains the queue
    }


CONTENTS = {
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nend\r\n",
    "8-bit": b"Subject: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe \xff\r\n",
    "long line": b"Subject: long\r\n\r\n" + b"x" * 900 + b"\r\n",
    "NUL": b"Subject: nul\r\n\r\na\0b\r\n",
    "empty body": b"Subject: empty\r\n\r\n",
    "no body": b"Subject: none\r\n",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_a_live_backup_took_in_arrives_unchanged(
    tmp_path: Path,
    name: str,
    backup_postfix: Callable[..., PrivatePostfix],
    primary_postfix: Callable[..., Primary],
) -> None:
    """Filled through SMTP, stopped, drained: identical to `postcat -bh`."""
    backup = backup_postfix(domains=("example.org",))
    with smtplib.SMTP("127.0.0.1", backup.port) as client:
        client.ehlo("client.example")
        client.mail("alice@example.com", ["BODY=8BITMIME"])
        client.rcpt("bob@example.org")
        client.docmd("DATA")
        stuffed = CONTENTS[name].replace(b"\r\n.", b"\r\n..")
        client.send(stuffed + b".\r\n")
        assert client.getreply()[0] == 250
    [path] = backup.wait_queue(1)
    backup.stop()
    expected = backup.postcat(["-bh", str(path)])
    primary = primary_postfix(domains=("example.org",))
    drainer = Drainer(tmp_path / "ledger.db")
    result = drainer.drain(f"postfix:{backup.queue_dir}", primary.port)
    assert result.code == 0, result.stderr
    [received] = primary.wait_received(1)
    assert received.content == expected
    assert received.recipient == b"bob@example.org"
    assert received.reverse_path == b"alice@example.com"


def test_a_running_backup_is_refused_and_told_what_to_do(
    tmp_path: Path, backup_postfix: Callable[..., PrivatePostfix]
) -> None:
    """Its queue manager would deliver the same messages: exit 2, nothing read."""
    backup = backup_postfix(domains=("example.org",))
    drainer = Drainer(tmp_path / "ledger.db")
    result = drainer.drain(f"postfix:{backup.queue_dir}", 9)
    assert result.code == 2
    assert "postfix:live" in result.stderr
    assert drainer.run("inspect", f"postfix:{backup.queue_dir}").code == 0
