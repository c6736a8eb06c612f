"""Copies of what may become final: durable, private, and a spool that drainer reads."""

import json
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drainer.bounce.quarantine.store import Quarantine
from drainer.errors import MessageUnreadable
from drainer.mail.content import HeldContent
from drainer.mail.envelope import Client, Envelope, Recipient
from drainer.mail.message import Message, SpooledMessage
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.sources.eml.source import EmlDirectory
from tests.support.command.runner import Bench, call
from tests.support.scenarios.primaries import REMAIN
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import View, per_recipient

StartPeer = Callable[..., PeerThread]
ID = "0123456789abcdef0123456789abcdef"
BOB = Recipient(
    forward_path="Bob@Example.org",
    orcpt="rfc822;Old.Bob@example.org",
    notify=("FAILURE", "DELAY"),
)
AMY = Recipient(forward_path='"a b"@example.org')
ENVELOPE = Envelope(
    reverse_path="list+tag@example.com",
    recipients=(BOB, AMY),
    body="8bit",
    smtputf8=True,
    envid="ab cd+1",
    ret="HDRS",
    verp="+=",
)
CONTENT = (
    b"Return-Path: <forged@evil.example>\r\nX-Envelope-To: victim@example.org\r\n"
    b"Subject: \xfc\r\n\r\n.dot\r\n\x00\r\nFrom there\r\n"
)


class Unreadable:
    """A content whose spool file is damaged in the middle."""

    def chunks(self) -> Iterator[bytes]:
        """Yield some of it."""
        yield CONTENT
        code, detail = "corrupt", "it ends in the middle"
        raise MessageUnreadable(code, detail)


def spooled(content: bytes = CONTENT, envelope: Envelope = ENVELOPE) -> SpooledMessage:
    """Return a message of some spool."""
    message = Message(
        identity=ID,
        source="postfix:/spool",
        native_id="4A",
        queue="deferred",
        locator="deferred/4/4A",
        arrived=datetime(2026, 11, 23, 17, 6, 59, tzinfo=UTC),
        envelope=envelope,
        client=Client(address="192.0.2.7", name="mail.example.com", helo="mail"),
        login="amy",
    )
    return SpooledMessage(message=message, content=HeldContent(content))


def claims(*recipients: Recipient, first: int = 0) -> list[ClaimedRecipient]:
    """Claim these recipients."""
    return [
        ClaimedRecipient(n=n, recipient=each)
        for n, each in enumerate(recipients, first)
    ]


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    """Give a quarantine whose folder is not there yet."""
    return Quarantine(tmp_path / "below" / "quarantine")


@contextmanager
def little_room(octets: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- a copy


def test_a_copy_is_private(quarantine: Quarantine) -> None:
    """0600 in a folder that only we can enter; nothing else is left there."""
    quarantine.keep(spooled(), claims(BOB, AMY))
    assert names(quarantine.folder) == [f"{ID}.0.eml", f"{ID}.0.json"]
    assert {mode(path) for path in quarantine.folder.iterdir()} == {0o600}
    assert mode(quarantine.folder) == 0o700
    assert mode(quarantine.folder.parent) == 0o700


@pytest.mark.parametrize(
    "content",
    [
        CONTENT,
        b"\r\n",
        b"From x Mon\r\nDelivered-To: y@example.org\r\n\r\nbody\r\n",
        b"Subject: x\r\n\r\n" + bytes(range(1, 10)) * 9 + b"\xff\r\n",
    ],
)
def test_a_copy_reads_back_byte_for_byte(
    quarantine: Quarantine, content: bytes
) -> None:
    """With its envelope; no field of the message is taken for one, or taken off."""
    quarantine.keep(spooled(content), claims(BOB, AMY))
    source = EmlDirectory(quarantine.folder)
    (found,) = source.scan()
    again = source.open(found.message)
    assert b"".join(again.content.chunks()) == content
    message, original = again.message, spooled(content).message
    assert message.envelope == original.envelope
    assert (message.client, message.login) == (original.client, original.login)
    assert message.arrived == original.arrived
    assert message.problem is None


def test_a_copy_names_those_whom_it_is_for(quarantine: Quarantine) -> None:
    """Each part of a message has its own, and all of them go together."""
    quarantine.keep(spooled(), claims(BOB))
    quarantine.keep(spooled(), claims(AMY, first=1))
    found = {
        each.message.envelope.recipients
        for each in EmlDirectory(quarantine.folder).scan()
    }
    assert found == {(BOB,), (AMY,)}
    other = quarantine.folder / f"{'0' * 32}.0.eml"
    other.write_bytes(CONTENT)
    assert quarantine.messages() == quarantine.copied() == {ID, "0" * 32}
    quarantine.forget([ID])
    assert names(quarantine.folder) == [other.name]


def test_a_bare_envelope_reads_back_too(quarantine: Quarantine) -> None:
    """The null sender, and no parameters at all."""
    plain = Recipient(forward_path="postmaster@example.org")
    envelope = Envelope(recipients=(plain,))
    quarantine.keep(spooled(envelope=envelope), claims(plain))
    (found,) = EmlDirectory(quarantine.folder).scan()
    assert found.message.envelope == envelope


def test_a_copy_is_made_anew_and_removed_more_than_once(
    quarantine: Quarantine,
) -> None:
    """Each confirming attempt makes one; a crash may come between."""
    for content in (CONTENT, b"Subject: y\r\n\r\n"):
        quarantine.keep(spooled(content), claims(BOB))
    assert (quarantine.folder / f"{ID}.0.eml").read_bytes() == b"Subject: y\r\n\r\n"
    for _ in range(2):
        quarantine.forget([ID])
    assert names(quarantine.folder) == []


def test_a_copy_is_never_made_of_itself(quarantine: Quarantine) -> None:
    """It may be the only one: who opened it there does not write it again."""
    quarantine.keep(spooled(), claims(BOB, AMY))
    before = {p.name: p.stat().st_ino for p in quarantine.folder.iterdir()}
    copy = quarantine.open(spooled().message)
    assert copy is not None
    quarantine.keep(copy, claims(AMY, first=1))
    assert {p.name: p.stat().st_ino for p in quarantine.folder.iterdir()} == before


# ---- what may go wrong


@pytest.mark.parametrize("suffix", [".eml", ".json"])
@pytest.mark.parametrize("hidden", [True, False])
def test_no_link_is_followed(
    quarantine: Quarantine, tmp_path: Path, suffix: str, *, hidden: bool
) -> None:
    """Whoever put it there, what it points to stays as it is."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    quarantine.folder.mkdir(parents=True)
    name = f"{ID}.0{suffix}"
    link = quarantine.folder / (f".{name}" if hidden else name)
    link.symlink_to(victim)
    if hidden:
        with pytest.raises(OSError, match="symbolic links"):
            quarantine.keep(spooled(), claims(BOB))
    else:
        quarantine.keep(spooled(), claims(BOB))
        assert not link.is_symlink()
    assert victim.read_text() == "precious"


def test_without_room_nothing_is_left_that_could_be_taken_for_a_copy(
    quarantine: Quarantine,
) -> None:
    """The file is not there, whole or in part; an envelope alone is no message."""
    with little_room(4096), pytest.raises(OSError, match="too large"):
        quarantine.keep(spooled(b"x" * 8192), claims(BOB))
    assert names(quarantine.folder) == [f"{ID}.0.json"]
    assert list(EmlDirectory(quarantine.folder).scan()) == []


def test_a_content_that_cannot_be_read_leaves_nothing_either(
    quarantine: Quarantine,
) -> None:
    """It is no copy; one that was there before stays."""
    quarantine.keep(spooled(), claims(BOB))
    damaged = SpooledMessage(message=spooled().message, content=Unreadable())
    with pytest.raises(MessageUnreadable):
        quarantine.keep(damaged, claims(BOB))
    assert (quarantine.folder / f"{ID}.0.eml").read_bytes() == CONTENT
    assert names(quarantine.folder) == [f"{ID}.0.eml", f"{ID}.0.json"]


# ---- in a drain


GOOD, GONE, LATE = "good@example.org", "gone@example.org", "late@example.org"
UNKNOWN = "550 5.1.1 User unknown"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a spool with mail for one that is gone and one that is there again soon."""
    made = Bench(tmp_path)
    made.configure(
        bounce={"confirm_after": "1ms", "send": False}, health={"accept": [GOOD]}
    )
    for to in (GONE, LATE):
        made.add(to, text=f"Subject: for {to}\n\nbody\n".encode())
    return made


def copies(bench: Bench) -> Path:
    """Return the folder of the copies."""
    return Path(f"{bench.ledger}.quarantine")


def refused_once(bench: Bench, start: StartPeer) -> PeerThread:
    """Let both be refused; nothing is copied for that."""
    primary = start(rcpt=per_recipient({GOOD: "250 ok"}, UNKNOWN))
    bench.port = primary.port
    assert bench.drain().code == REMAIN
    assert set(bench.states().values()) == {"bounce-pending"}
    assert not copies(bench).exists()
    return primary


def only_gone(view: View) -> str:
    """Refuse one, and the canary's stranger."""
    return "250 ok" if view.path in (GOOD, LATE) else UNKNOWN


def test_what_is_refused_for_good_is_kept_and_what_is_delivered_is_not(
    peer: StartPeer, bench: Bench
) -> None:
    """The copy can be drained again, to the same recipient, byte for byte."""
    primary = refused_once(bench, peer)
    sent = len(primary.messages)
    primary.script = type(primary.script)(rcpt=only_gone)
    bench.drain()
    assert bench.states() == {GONE: "quarantined", LATE: "delivered"}
    eml, sidecar = sorted(copies(bench).iterdir())
    assert [
        r["forward_path"] for r in json.loads(sidecar.read_text())["recipients"]
    ] == [GONE]
    listed = call("inspect", f"eml:{copies(bench)}", "--json").lines
    assert GONE in json.dumps(listed)
    content = eml.read_bytes()
    assert f"Subject: for {GONE}\r\n".encode() in content
    bench.run(
        "drain", f"eml:{copies(bench)}", "--json", "--no-check", "--ledger",
        bench.root / "another.db",
    )  # fmt: skip
    assert len(primary.messages) == sent + 1
    bench.assert_balanced()


def test_without_room_for_a_copy_no_refusal_becomes_final(
    peer: StartPeer, bench: Bench
) -> None:
    """It rests again, and the drain goes on."""
    primary = refused_once(bench, peer)
    copies(bench).write_text("no folder")
    primary.script = type(primary.script)(rcpt=only_gone)
    assert bench.drain().code == REMAIN
    assert bench.states() == {GONE: "bounce-pending", LATE: "delivered"}
    copies(bench).unlink()
    assert bench.drain().code in (0, REMAIN)
    assert bench.states()[GONE] == "quarantined"
    bench.assert_balanced()
