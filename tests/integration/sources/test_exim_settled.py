"""A drained Exim spool, settled, and then given to a real Exim: nothing goes twice."""

import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from drainer.cli import spool_advice
from drainer.sources.exim.locks import lock
from tests.deploy.test_exim import EXIM, Exim, need_exim
from tests.support.command.runner import Bench, Result
from tests.support.mta.postfix import instance_directory, wait_until
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Step, per_recipient

StartPeer = Callable[..., PeerThread]
CONFIGURATION: Final = """\
primary_hostname = backup.example
exim_path = {exim}
deliver_drop_privilege
ignore_bounce_errors_after = 30d
split_spool_directory = {split}
begin routers
primary:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = to_primary
begin transports
to_primary:
  driver = smtp
  port = {port}
  allow_localhost
begin retry
* * F,5d,1m
"""
REPLIES: Final = {"no@example.org": "550 5.1.1 no", "late@example.org": "450 4.2.0 no"}


class Backup:
    """An Exim that queues, a drainer, and their primary."""

    replies: dict[str, Step]

    def __init__(
        self, base: Path, bench: Bench, primary: PeerThread, split: str
    ) -> None:
        """Configure both."""
        source = base / "ours" / "backup" / "exim"
        source.mkdir(parents=True)
        text = CONFIGURATION.format(exim=EXIM, port=primary.port, split=split)
        (source / "exim4.conf").write_text(text, "utf-8")
        self.exim, self.primary = Exim(base, source), primary
        self.url = f"exim:{base / 'spool'}"
        self.bench = bench

    def submit(self, *recipients: str) -> str:
        """Queue a message; return its id."""
        before = set(self.queued)
        self.exim.run(
            "-f", "s@sender.example", *recipients, told="Subject: x\n\nhello\n"
        )
        (new,) = set(self.queued) - before
        return new

    @property
    def queued(self) -> dict[str, Path]:
        """The ``-H`` files by message id."""
        found = (self.exim.base / "spool" / "input").rglob("*-H")
        return {path.name.removesuffix("-H"): path for path in found}

    @property
    def frozen(self) -> set[str]:
        """The ids of frozen messages, as Exim itself lists them."""
        listed = self.exim.run("-bp")
        return set(
            re.findall(r"^ *\S+ +\S+ (\S+) <.*\*\*\* frozen", listed, re.MULTILINE)
        )

    @property
    def copies(self) -> Counter[str]:
        """How often the primary took each recipient."""
        return Counter(p for m in self.primary.accepted for p in m.forward_paths)

    def drain(self) -> Result:
        """Drain the spool, which is in place."""
        return self.bench.run("drain", self.url, "--no-check")

    def settle(self, result: Result) -> Result:
        """Run the line that a drain printed last."""
        line = result.stdout.splitlines()[-1]
        program, *words = shlex.split(line)
        assert (program, words[:2]) == ("drainer", ["spool", "settle"])
        return self.bench.run("spool", "settle", words[2], "--json")


@pytest.fixture
def backup(
    request: pytest.FixtureRequest, peer: StartPeer, tmp_path: Path
) -> Iterator[Backup]:
    """Give a backup whose primary refuses one recipient and defers another."""
    need_exim()
    with instance_directory() as base:
        replies: dict[str, Step] = dict(REPLIES)
        primary = peer(rcpt=per_recipient(replies))
        made = Backup(
            base,
            Bench(tmp_path, primary.port),
            primary,
            getattr(request, "param", "false"),
        )
        made.replies = replies
        yield made


@pytest.mark.parametrize(
    "backup", ["false", "true"], ids=["flat", "split"], indirect=True
)
def test_exim_starts_on_a_settled_spool_and_sends_only_what_is_left(
    backup: Backup,
) -> None:
    """Finished mail is gone, done recipients are in the journal, tried mail frozen."""
    backup.submit("anna@example.org")
    mixed = backup.submit("one@example.org", "no@example.org", "Two@EXAMPLE.org")
    late = backup.submit("late@example.org")
    other = backup.submit("three@example.org", "x@elsewhere.example")
    drained = backup.drain()
    assert drained.code == 5, drained.stderr
    sent = backup.copies
    settled = backup.settle(drained)
    assert settled.code == 0, settled.stderr
    counts = {"removed": 1, "waiting": 2, "released": 1, "unlike": 0}
    assert counts.items() <= settled.json.items()
    assert set(backup.queued) == {mixed, late, other}
    assert backup.frozen == {mixed, late}
    backup.exim.run("-qf")
    assert backup.copies - sent == Counter(["x@elsewhere.example"])
    assert set(backup.queued) == {mixed, late}
    backup.replies.clear()  # the primary is well, and an operator gives up on drainer
    backup.exim.run("-Mt", mixed, late)
    backup.exim.run("-qf")
    left = ["x@elsewhere.example", "no@example.org", "late@example.org"]
    assert backup.copies - sent == Counter(left)
    assert backup.queued == {}
    assert max(backup.copies.values()) == 1


def test_the_next_drain_continues_with_what_is_frozen(backup: Backup) -> None:
    """It is settled again, and Exim has nothing left to do."""
    mixed = backup.submit("one@example.org", "late@example.org")
    drained = backup.drain()
    plan = backup.bench.run("spool", "settle", backup.url, "--dry-run", "--json")
    assert (plan.json["waiting"], backup.frozen) == (1, set())
    for _ in range(2):  # the second time changes nothing
        assert backup.settle(drained).json["waiting"] == 1
    assert backup.frozen == {mixed}
    backup.exim.run("-qf")
    assert backup.copies == Counter(["one@example.org"])
    backup.replies.clear()
    wait_until(lambda: backup.drain().code == 0, timeout=30, what="the second attempt")
    assert backup.settle(backup.drain()).json["removed"] == 1
    assert backup.queued == {}
    assert backup.copies == Counter(["one@example.org", "late@example.org"])


def test_after_a_drain_of_a_copy_the_original_is_settled(
    backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain finds it by its mail, where a host has its spool."""
    backup.submit("anna@example.org")
    backup.submit("one@example.org", "late@example.org")
    original = backup.exim.base / "spool"
    monkeypatch.setattr(spool_advice, "USUAL_EXIM", (str(original),))
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    drained = backup.bench.run("drain", f"exim:{copy}", "--no-check")
    settled = backup.settle(drained)
    assert settled.json["source"] == backup.url
    assert (settled.json["removed"], settled.json["waiting"]) == (1, 1)
    backup.exim.run("-qf")
    assert max(backup.copies.values()) == 1


def test_a_message_that_exim_has_taken_since_is_left_alone(backup: Backup) -> None:
    """Its lock says so; the exit status, too."""
    mixed = backup.submit("one@example.org", "late@example.org")
    drained = backup.drain()
    header = backup.queued[mixed]
    before = header.read_bytes()
    body = header.with_name(f"{mixed}-D")
    with body.open("r+b") as file:
        assert lock(file.fileno(), len(body.name) + 1)
        settled = backup.settle(drained)
    assert (settled.code, settled.json["unlike"]) == (5, 1)
    assert header.read_bytes() == before
    assert not header.with_name(f"{mixed}-J").exists()
