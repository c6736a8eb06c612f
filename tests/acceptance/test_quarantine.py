"""What may not be bounced is kept, shown, and leaves only by a person's hand.

Each test drains to a primary that refuses some recipients, until the refusals are
confirmed; nobody is told (``[bounce] send = false``) unless a test says otherwise.
"""

import hashlib
import json
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.command.runner import Result, call, end
from tests.support.scenarios.backup import PATIENCE, Backup
from tests.support.scenarios.primaries import OK, SENDER, UNKNOWN
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Message, Script, View

StartPeer = Callable[..., PeerThread]
GONE, AWAY, WELCOME = "gone@example.org", "away@example.org", "user@example.org"
BUSY: Final = "busy@example.org"
NOT_ALL: Final = 5
OTHER: Final = "user."
"""How the addresses of mail begin that only proves that the primary is well."""
ESCAPE: Final = "\x1b"


def refuses(*paths: str, reply: str = UNKNOWN) -> Script:
    """Return a primary that knows everybody but these, and the canary's stranger."""

    def rcpt(view: View) -> str:
        if view.path in paths:
            return reply.format(view.path)
        if view.path == BUSY:
            return "450 4.2.1 busy"
        return UNKNOWN.format(view.path) if "canary" in view.path else OK

    return Script(rcpt=rcpt)


@dataclass(slots=True)
class Kept:
    """A backup, and its primary that refuses some of its mail."""

    backup: Backup
    primary: PeerThread
    ack: str = "remove"
    #: Besides its Postfix queue.
    source: str = ""
    others: int = 0

    def run(self, *args: str | Path) -> Result:
        """Run a command of the quarantine."""
        return self.backup.run("quarantine", *args)

    def drain(self) -> Result:
        """Drain once, with other mail that is welcome; what is final leaves."""
        self.others += 1
        self.backup.add(
            f"{OTHER}{self.others}@example.org", sender=f"s@d{self.others}.example"
        )
        sources = [f"postfix:{self.backup.spool}?ack={self.ack}"]
        sources += [self.source] if self.source else []
        return self.backup.run("drain", *sources, "--json", "--no-check")

    def drain_until(self, *states: str) -> None:
        """Drain until these are the states, in the order of the addresses."""
        deadline = time.monotonic() + PATIENCE
        while tuple(self.states.values()) != states:
            assert time.monotonic() < deadline, self.states
            self.drain()
        self.backup.assert_balanced()

    @property
    def states(self) -> dict[str, str]:
        """The state of each recipient of the mail that matters."""
        found = sorted(self.backup.states().items())
        return {path: state for path, state in found if not path.startswith(OTHER)}

    @property
    def delivered(self) -> list[Message]:
        """What of the mail that matters the primary has taken."""
        return [
            message
            for message in self.primary.accepted
            if not message.forward_paths[0].startswith(OTHER)
        ]

    @property
    def folder(self) -> Path:
        """Where the copies lie."""
        return self.backup.root / "ledger.db.quarantine"

    @property
    def copies(self) -> dict[str, bytes]:
        """What lies there."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    @property
    def content(self) -> bytes:
        """The content of the one copy."""
        (path,) = self.folder.glob("*.eml")
        return path.read_bytes()

    def listed(self, *filters: str) -> list[dict[str, Any]]:
        """Return what `quarantine list --json` prints."""
        found: list[dict[str, Any]] = self.run("list", "--json", *filters).lines
        return found


@pytest.fixture
def kept(backup: Backup, peer: StartPeer) -> Kept:
    """Give a backup whose primary does not know GONE and AWAY."""
    primary = peer(refuses(GONE, AWAY))
    backup.port = primary.port
    backup.configure(bounce={"confirm_after": "50ms", "send": False})
    backup.know("known@example.org")
    return Kept(backup, primary)


def from_maildir(kept: Kept, text: bytes = b"Subject: hello\n\nbody\n") -> Path:
    """Let the spool be a Maildir with a message for GONE, removed when it is final."""
    root = kept.backup.root / "maildir"
    (root / "new").mkdir(parents=True)
    head = b"Return-Path: <a@one.example>\nDelivered-To: " + GONE.encode() + b"\n"
    (root / "new" / "1795453785.M1P1.backup").write_bytes(head + text)
    kept.source = f"maildir:{root}?ack=remove"
    return root


# ---- seeing it


def test_list_says_who_and_why_and_where_the_content_is(kept: Kept) -> None:
    """The reason in words, the reply, size and sender, for scripts and for people."""
    kept.backup.add(GONE, sender="a@one.example")
    kept.drain_until("quarantined")
    (fact,) = kept.listed()
    assert fact["forward_path"] == GONE
    assert fact["reverse_path"] == "a@one.example"
    assert fact["reason"] == "the mailbox does not exist"
    assert fact["reply"].startswith("550 5.1.1 <gone@example.org>")
    assert fact["size"] == len(kept.content)
    assert fact["decision"] is None, "nobody was to be told, so that it was not asked"
    assert fact["content"] == "copy"
    table = kept.run("list", "--domain", "example.org")
    assert "the mailbox does not exist" in table.stdout
    assert table.stderr == ""
    assert kept.listed("--domain", "example.net") == []


def test_the_bounce_decision_is_listed(kept: Kept) -> None:
    """The null sender is never told, whatever DNS says: G2.

    A recipient that is tried again keeps the drain alive until evidence was gathered.
    """
    kept.backup.configure(bounce={"send": True}, breaker={"give_up_after": "7s"})
    kept.backup.add(GONE, sender="")
    kept.backup.add(BUSY, sender="b@two.example")
    assert kept.drain().code == NOT_ALL
    kept.backup.configure(breaker={"give_up_after": "0s"})
    kept.drain_until("deferred", "quarantined")
    (fact,) = kept.listed()
    assert fact["decision"]["rule"] == "G2"
    assert fact["decision"]["about"] == "the null sender"
    assert fact["decision"]["answer"] == "never"
    assert "G2: the null sender" in kept.run("list").stdout


def test_show_has_envelope_decisions_and_the_header_but_no_body(kept: Kept) -> None:
    """Of the content only what stands above the first empty line."""
    text = b"Subject: hello\nX-Two: a\n b\n\nthe body\n"
    name = kept.backup.add(GONE, sender="a@one.example", text=text)
    kept.drain_until("quarantined")
    shown = kept.run("show", name)
    assert shown.code == 0
    for words in ("a@one.example", GONE, "bounce by enhanced-5.1.1", "X-Two: a"):
        assert words in shown.stdout
    assert "the body" not in shown.stdout
    facts = kept.run("show", name, "--json").json
    assert facts["header"][1:] == ["Subject: hello", "X-Two: a", " b"]
    assert [d["verdict"] for d in facts["decisions"] if d["kind"] == "verdict"] == [
        "bounce",
        "bounce",
    ]


def test_what_is_not_quarantined_is_not_shown_here(kept: Kept) -> None:
    """The hint says where."""
    name = kept.backup.add(WELCOME)
    kept.drain_until("delivered")
    result = kept.run("show", name)
    assert result.code == 2
    assert "drainer show" in result.stderr
    assert kept.run("list", "--state", "deferred").code == 2
    assert kept.run("list", "--state", "held").stdout.count("\n") == 1  # no scanner


def test_hostile_subjects_senders_and_replies_are_escaped(kept: Kept) -> None:
    """No escape reaches the terminal, no markup is obeyed."""
    kept.primary.script = refuses(GONE, reply="550 5.1.1 [red]no \x1b[31m\u202e")
    text = b"Subject: \x1b]0;owned\x07 [bold]x[/]\n\nbody\n"
    name = kept.backup.add(GONE, sender='"[red]a"@one.example', text=text)
    kept.drain_until("quarantined")
    for args in (("list",), ("show", name), ("list", "--json")):
        result = kept.run(*args)
        assert result.code == 0
        assert ESCAPE not in result.stdout
        assert "\u202e" not in result.stdout
        assert "[red]a" in result.stdout
    assert "\\x1b]0;owned\\x07 [bold]x[/]" in kept.run("show", name).stdout


def test_a_missing_copy_is_noticed(kept: Kept) -> None:
    """Neither a copy nor the source has it: said in the list, and on stderr."""
    name = kept.backup.add(GONE)
    kept.drain_until("quarantined")
    shutil.rmtree(kept.folder)
    (fact,) = kept.listed()
    assert fact["content"] == "missing"
    result = kept.run("list")
    assert "CONTENT MISSING" in result.stdout
    assert "the content of 1 recipients is missing on this host" in result.stderr
    shown = kept.run("show", name)
    assert shown.code == 0
    assert "cannot read the content" in shown.stderr
    out = kept.run("export", name, "--to", f"eml:{kept.backup.root}/out")
    assert out.code == NOT_ALL
    assert "neither the quarantine nor its source" in out.stderr


def test_a_source_that_still_holds_it_will_do(kept: Kept) -> None:
    """It was never acknowledged, so that the content is there."""
    name = kept.backup.add(GONE)
    kept.ack = "keep"
    kept.drain_until("quarantined")
    content = kept.content
    shutil.rmtree(kept.folder)
    (fact,) = kept.listed()
    assert fact["content"] == "source"
    assert kept.run("list").stderr == ""
    out = kept.backup.root / "out"
    assert kept.run("export", name, "--to", f"eml:{out}").code == 0
    assert [path.read_bytes() for path in out.glob("*.eml")] == [content]


# ---- release


def test_release_sends_the_copy_when_the_source_has_let_go(kept: Kept) -> None:
    """Byte for byte; then the copy goes, and nothing is left over."""
    root = from_maildir(kept)
    kept.drain_until("quarantined")
    assert list(root.glob("*/*")) == []
    content = kept.content
    kept.primary.script = Script()
    result = kept.run("release", "--reply", "5.1.1", "--reason", "table was empty")
    assert result.stdout == "1 recipients released\n"
    assert kept.copies, "it is the only one"
    kept.drain_until("delivered")
    (message,) = kept.delivered
    assert (message.content or b"").endswith(content)
    assert kept.copies == {}


def test_a_copy_stays_as_long_as_it_is_the_only_one(kept: Kept) -> None:
    """Released, refused again, confirmed again: still there, and delivered at last."""
    from_maildir(kept)
    kept.drain_until("quarantined")
    content = kept.content
    for _ in range(2):
        assert kept.run("release", "--domain", "example.org", "--reason", "x").code == 0
        assert kept.drain().code == NOT_ALL
        assert kept.states == {GONE: "bounce-pending"}
        assert kept.content == content
        kept.drain_until("quarantined")
        assert kept.content == content
    kept.primary.script = Script()
    assert kept.run("release", "--domain", "example.org", "--reason", "x").code == 0
    kept.drain_until("delivered")
    assert (kept.delivered[-1].content or b"").endswith(content)
    assert kept.copies == {}


def test_a_copy_stays_for_the_other_recipient(kept: Kept) -> None:
    """Of two in quarantine one is delivered: the other one still has its content."""
    kept.backup.add(AWAY, GONE)
    kept.drain_until("quarantined", "quarantined")
    content = kept.content
    kept.primary.script = refuses(GONE)
    assert kept.run("release", "--recipient", AWAY, "--reason", "is back").code == 0
    kept.drain_until("delivered", "quarantined")
    assert kept.content == content
    assert [fact["content"] for fact in kept.listed()] == ["copy"]
    assert kept.run("purge", "--domain", "example.org", "--reason", "x").code == 0
    assert kept.copies == {}


def test_verbs_need_a_reason_and_touch_nothing_else(kept: Kept) -> None:
    """What is held is released by `drainer release`, not here."""
    kept.backup.add(GONE)
    kept.drain_until("quarantined")
    kept.backup.add(WELCOME)
    assert kept.run("purge", "--domain", "example.org").code == 2
    assert kept.run("release", "--reason", "x").code == 2
    hold = ("hold", "--recipient", WELCOME, "--reason", "x")
    kept.primary.script = Script(rcpt="450 4.2.1 later")
    kept.drain()
    assert kept.backup.run(*hold).code == 0
    dry = kept.run("release", "--domain", "example.org", "--dry-run", "--json")
    assert dry.json == {"recipients": 1, "done": "would be released"}
    assert kept.run("release", "--state", "held", "--reason", "x").stdout.startswith(
        "0"
    )
    assert kept.states == {GONE: "quarantined", WELCOME: "held"}


# ---- purge


def test_purge_discards_removes_the_copy_and_balances(kept: Kept) -> None:
    """Only those that are old enough, each with a decision that has the reason."""
    name = kept.backup.add(GONE)
    kept.drain_until("quarantined")
    young = kept.run("purge", "--older-than", "3650d", "--reason", "old")
    assert young.stdout == "0 recipients purged\n"
    assert kept.copies
    old = kept.run("purge", "--older-than", "1s", "--reason", "old", "--json")
    assert old.json == {"recipients": 1, "done": "purged"}
    assert kept.copies == {}
    assert kept.states == {GONE: "discarded"}
    kept.backup.assert_balanced()
    (last,) = [
        d for d in kept.backup.why(name)["decisions"] if d["rule"] == "operator-purge"
    ]
    assert last["evidence"]["reason"] == "old"


@pytest.mark.parametrize("by", ["purge", "drain"])
def test_what_a_crash_left_behind_is_swept(kept: Kept, by: str) -> None:
    """The ledger knew, the copy was not removed yet; others' copies are left alone."""
    kept.backup.add(GONE)
    kept.drain_until("quarantined")
    left = kept.copies
    assert kept.run("purge", "--domain", "example.org", "--reason", "x").code == 0
    foreign = {f"{'0' * 32}.0.eml": b"another ledger's", "notes.txt": b"mine"}
    unfinished = {f".{name}": data[:10] for name, data in left.items()}
    for name, data in (left | foreign | unfinished).items():
        (kept.folder / name).write_bytes(data)
    if by == "purge":
        kept.run("purge", "--domain", "example.org", "--reason", "x")
    else:
        assert kept.drain().code == 0
    assert kept.copies == foreign


def test_without_room_for_a_copy_nothing_becomes_final(kept: Kept) -> None:
    """The refusal rests, the spool keeps the message, until there is room."""
    kept.folder.write_text("no folder can be made here")
    kept.backup.add(GONE)
    for _ in range(3):
        assert kept.drain().code == NOT_ALL
    assert kept.states == {GONE: "bounce-pending"}
    assert len(kept.backup.left) == 1
    kept.folder.unlink()
    deadline = time.monotonic() + PATIENCE
    while not kept.listed():
        assert time.monotonic() < deadline
        kept.drain()
    assert kept.copies


# ---- export


CONTENTS: Final = {
    "plain": b"Received: from x by backup.example; x\nSubject: hi\n\nbody\n.dot\n\n",
    "no header": b"\nbody only\n",
    "8-bit": b"Subject: \xc3\xa4\xff\n\n\x00\xe9\n",
    "long": b"Subject: x\n\n" + b"0123456789abcdef" * 20_000 + b"\n",
}


@pytest.mark.parametrize("kind", ["maildir", "eml"])
@pytest.mark.parametrize("text", CONTENTS.values(), ids=CONTENTS)
def test_an_export_reads_back_byte_for_byte(kept: Kept, kind: str, text: bytes) -> None:
    """By our own source of that kind, with the envelope; twice is refused."""
    from_maildir(kept, text)
    kept.drain_until("quarantined")
    content = kept.content
    out = kept.backup.root / "out"
    to = ("--domain", "example.org", "--to", f"{kind}:{out}")
    assert kept.run("export", *to).stdout == "messages: 1 exported, 0 left out\n"
    (read,) = call("inspect", f"{kind}:{out}", "--json").lines
    assert read["problem"] is None
    assert read["sha256"] == hashlib.sha256(content).hexdigest()
    assert read["reverse_path"] == "a@one.example"
    assert [each["forward_path"] for each in read["recipients"]] == [GONE]
    again = kept.run("export", *to, "--json")
    assert again.code == NOT_ALL
    assert again.json["left_out"] == 1
    assert "it exists already" in again.stderr
    assert kept.states == {GONE: "quarantined"}
    assert kept.content == content


def test_a_header_like_a_deliverys_is_exported_where_it_stays_whole(kept: Kept) -> None:
    """In a Maildir it would be taken for the envelope: left out, and said."""
    text = b"Delivered-To: victim@example.net\nSubject: hi\n\nbody\n"
    name = kept.backup.add(GONE, sender="a@one.example")
    kept.drain_until("quarantined")
    (path,) = kept.folder.glob("*.eml")
    path.write_bytes(text.replace(b"\n", b"\r\n"))
    out = kept.backup.root / "out"
    refused = kept.run("export", name, "--to", f"maildir:{out}/m")
    assert refused.code == NOT_ALL
    assert "export it to eml:" in refused.stderr
    assert list((out / "m" / "new").iterdir()) == []
    assert kept.run("export", name, "--to", f"eml:{out}/e").code == 0
    (read,) = call("inspect", f"eml:{out}/e", "--json").lines
    assert read["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [each["forward_path"] for each in read["recipients"]] == [GONE]


def test_an_export_can_be_drained(kept: Kept, peer: StartPeer) -> None:
    """Into another primary, with a ledger of its own."""
    kept.backup.add(AWAY, GONE, sender="a@one.example")
    kept.drain_until("quarantined", "quarantined")
    content = kept.content
    out = kept.backup.root / "out"
    assert kept.run("export", "--sender", "a@", "--to", f"maildir:{out}").code == 0
    other = peer(Script())
    fresh = Backup(kept.backup.root / "fresh", port=other.port)
    source = f"maildir:{out}"
    result = fresh.run("drain", source, "--json", "--no-check")
    assert result.code == 0
    (message,) = other.accepted
    assert message.forward_paths == [AWAY, GONE]
    assert message.reverse_path == "a@one.example"
    assert message.content == content


def test_an_export_without_room_leaves_nothing_half_written(kept: Kept) -> None:
    """Exit 2 and a hint; run again with room it completes."""
    kept.backup.add(GONE, text=b"Subject: x\n\n" + b"0123456789abcde\n" * 30_000)
    kept.drain_until("quarantined")
    out = kept.backup.root / "out"
    args = ("quarantine", "export", "--domain", "example.org", "--to", f"maildir:{out}")
    few = 200_000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (few, few))

    result = end(kept.backup.start(*args, preexec_fn=limit))
    assert result.code == 2
    assert "0 messages were exported" in result.stderr
    assert [path for path in out.rglob("*") if path.is_file()] == []
    assert kept.backup.run(*args).code == 0


@pytest.mark.parametrize(
    "target", ["", "mbox:/tmp/x", "maildir:", "eml:{folder}", "eml:{folder}/below"]
)
def test_a_target_that_makes_no_sense_is_refused(kept: Kept, target: str) -> None:
    """Also the quarantine itself."""
    kept.backup.add(GONE)
    kept.drain_until("quarantined")
    before = kept.copies
    to = target.format(folder=kept.folder)
    result = kept.run("export", "--domain", "example.org", "--to", to)
    assert result.code == 2
    assert "maildir:DIR" in result.stderr or "another folder" in result.stderr
    assert kept.copies == before


def test_the_copy_is_a_spool_of_its_own(kept: Kept) -> None:
    """Envelope and content as they were, should the ledger be lost."""
    kept.backup.add(
        GONE, sender="a@one.example", text=b"Delivered-To: x@y.example\n\nb\n"
    )
    kept.drain_until("quarantined")
    (read,) = call("inspect", f"eml:{kept.folder}", "--json").lines
    assert read["sha256"] == hashlib.sha256(kept.content).hexdigest()
    (path,) = kept.folder.glob("*.json")
    assert json.loads(path.read_bytes())["whole"] is True
    assert {p.stat().st_mode & 0o777 for p in kept.folder.iterdir()} == {0o600}
    assert SENDER not in path.read_text()
