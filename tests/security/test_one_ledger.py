"""Attack: the same spool is drained with several ledgers. Nobody gets a message twice.

Each ledger is complete for itself, so that only the spool can tell them apart. Copies
are counted at a peer that every drain delivers to.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from drainer.config import load as config_file
from drainer.config.build.paths import ledger_name, ledger_url
from drainer.delivery.source_claims import SourceClaims
from drainer.sources.registry import open_source
from tests.support.command.installed import write_maildir
from tests.support.command.runner import Bench, Result, call, end, environment, start
from tests.support.command.watch import prepare, watching
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script, Stall, per_recipient
from tests.support.spools.store_kits import FROM, pack, text

StartPeer = Callable[..., PeerThread]

NOBODY: Final = 65534
COUNT: Final = 6
NAMES: Final = (".drainer", "spool.drainer", "spool.tar.drainer")
TAKE_OVER: Final = "--take-over"


@dataclass(slots=True)
class Spool:
    """A spool, and drains of it with ledgers of their own."""

    bench: Bench
    url: str
    primary: PeerThread

    def arguments(self, ledger: str, *more: str, url: str = "") -> list[str | Path]:
        """Return the arguments of a drain with the ledger of this name."""
        root = self.bench.root
        place = ledger if "/" in ledger else f"{root}/{ledger}.db"
        known: list[str | Path]
        known = ["--config", self.bench.config, "--ledger", place, "--no-check"]
        return ["drain", url or self.url, *known, "--json", *more]

    def drain(self, ledger: str, *more: str, url: str = "") -> Result:
        """Drain it in this process."""
        return call(*self.arguments(ledger, *more, url=url))

    def start(self, ledger: str, *more: str, url: str = "") -> subprocess.Popen[str]:
        """Start a drain in a process of its own."""
        arguments = self.arguments(ledger, *more, url=url)
        return start(*arguments, env=environment())

    @property
    def copies(self) -> Counter[str]:
        """How often each recipient got its message."""
        return Counter(p for m in self.primary.accepted for p in m.forward_paths)

    @property
    def markers(self) -> list[Path]:
        """The markers that are there."""
        root = self.bench.root
        return sorted(path for path in root.rglob("*drainer") if path.name in NAMES)


def recipients(count: int = COUNT) -> Counter[str]:
    """Return one copy for each recipient."""
    return Counter(f"user{n}@example.org" for n in range(count))


def mails() -> list[tuple[str, str]]:
    """Return what the stores of tests.support.spools.store_kits lay out."""
    return [(f"message {n}", f"body {n}") for n in range(COUNT)]


def lay_out(kind: str, bench: Bench) -> str:
    """Lay out a spool of a kind in a bench; return its URL."""
    root = bench.root / "spool"
    match kind:
        case "postfix" | "postfix-remove":
            for n in range(COUNT):
                bench.add(f"user{n}@example.org")
            return f"postfix:{root}" + ("?ack=remove" if kind != "postfix" else "")
        case "mbox":
            shutil.rmtree(root)
            with root.open("w") as file:
                for n, (subject, body) in enumerate(mails()):
                    top = f"Return-Path: <s@example.com>\nX-Original-To: user{n}"
                    file.write(f"{FROM}{top}@example.org\n{text(subject, body)}\n")
            return f"mbox:{root}"
        case "archive":
            write_maildir(bench.root / "packed" / "mail", COUNT)
            pack(bench.root / "packed", bench.root / "spool.tar")
            shutil.rmtree(bench.root / "packed")
            return f"maildir:{root}.tar"
        case _:
            write_maildir(root, COUNT)
            return f"maildir:{root}" + ("?ack=keep" if kind == "maildir-keep" else "")


@pytest.fixture
def bench(tmp_path: Path, peer: StartPeer) -> Bench:
    """Give an empty spool and a primary that takes everything."""
    return Bench(tmp_path, peer().port)


@pytest.fixture
def make(tmp_path: Path, peer: StartPeer) -> Callable[..., Spool]:
    """Give a function that lays out a spool: ``make("maildir", dot=...)``."""

    def made(kind: str = "maildir-keep", **script: object) -> Spool:
        primary = peer(lenient=bool(script), **script)
        bench = Bench(tmp_path, primary.port)
        bench.configure(primary={"idle_timeout": "200ms", "connections": 3})
        return Spool(bench, lay_out(kind, bench), primary)

    return made


def refused(result: Result, first: str, *words: str) -> None:
    """Check that a drain was refused, and says with which ledger it was started."""
    assert result.code == 2, result.stderr
    said = result.json["error"] + result.json["hint"]
    assert result.json["exit"] == 2
    for word in (f"{first}.db", os.uname().nodename, *words):
        assert word in said, said


# ---- one after another

KEPT: Final = ("maildir-keep", "postfix", "mbox", "archive")
"""Kinds of spools that keep what was delivered."""


@pytest.mark.parametrize("kind", KEPT)
def test_three_ledgers_one_after_another_deliver_once(
    kind: str, make: Callable[..., Spool]
) -> None:
    """A spool that keeps its mail stays the first ledger's, also when all is sent."""
    spool = make(kind)
    assert spool.drain("a").code == 0
    for other in ("b", "c"):
        refused(spool.drain(other), "a", "was started with another", TAKE_OVER)
    assert spool.drain("a").code == 0, "the first goes on with it"
    assert spool.copies == recipients()
    assert len(spool.markers) == 1


@pytest.mark.parametrize("kind", ["maildir", "postfix-remove"])
def test_what_is_not_final_stays_with_its_ledger_until_it_is(
    kind: str, make: Callable[..., Spool]
) -> None:
    """One recipient is deferred: refused; when all is gone, anybody may drain it."""
    spool = make(kind, rcpt=per_recipient({"user3@example.org": "450 4.2.0 later"}))
    assert spool.drain("a").code == 5
    refused(spool.drain("b"), "a")
    spool.primary.script = Script()
    assert spool.drain("a", "--give-up-after", "1s").code == 0
    assert spool.markers == [], "nothing is left that was drained"
    assert spool.drain("b").code == 0
    assert spool.copies == recipients()


def test_a_drain_that_recorded_nothing_leaves_no_marker(
    make: Callable[..., Spool],
) -> None:
    """The primary was not ready, so that any ledger may be next."""
    spool = make("maildir", banner="554 5.3.2 not today")
    arguments = [each for each in spool.arguments("a") if each != "--no-check"]
    assert call(*arguments).code == 3
    assert spool.markers == []


def test_what_was_not_chosen_is_free_for_another_ledger(
    make: Callable[..., Spool],
) -> None:
    """All that the first ledger recorded is gone from the spool."""
    spool = make("maildir")
    assert spool.drain("a", "--recipient", "user1@").code == 0
    assert spool.drain("b").code == 0
    assert spool.copies == recipients()


# ---- at once


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_three_ledgers_at_once_deliver_once(
    kind: str, make: Callable[..., Spool]
) -> None:
    """Each of the others names the one that drains, or finds nothing left."""
    spool = make(kind, dot=Delay(0.05, "250 2.0.0 ok"))
    drains = [spool.start(name) for name in ("a", "b", "c")]
    results = [end(each) for each in drains]
    codes = sorted(result.code for result in results)
    assert set(codes) <= {0, 2}, [result.stderr for result in results]
    assert codes[0] == 0, [result.stderr for result in results]
    assert spool.copies == recipients()


def test_a_drain_that_works_now_is_named_and_cannot_be_taken_over(
    make: Callable[..., Spool],
) -> None:
    """Not even with --take-over; afterwards it can."""
    spool = make(dot=Stall())
    first = spool.start("a")
    spool.primary.wait(lambda: len(spool.primary.messages) >= 1, timeout=30)
    for more in ((), (TAKE_OVER,)):
        refused(spool.drain("b", *more), "a", "is draining", "wait")
    first.kill()
    first.communicate()
    spool.primary.script = Script()
    taken = spool.drain("b", TAKE_OVER)
    assert taken.code == 0, taken.stderr
    assert "is taken over from" in taken.stderr
    assert "a.db" in taken.stderr
    refused(spool.drain("a"), "b")


def test_two_drains_of_one_ledger_share_a_source(make: Callable[..., Spool]) -> None:
    """Whatever name of the ledger they use; the last one removes the marker."""
    spool = make("maildir", dot=Delay(0.2, "250 2.0.0 ok"))
    (spool.bench.root / "link.db").symlink_to(spool.bench.root / "a.db")
    first = spool.start("a")
    spool.primary.wait(lambda: len(spool.primary.messages) >= 1, timeout=30)
    second = spool.drain(f"sqlite:///{spool.bench.root}/link.db")
    assert second.code in (0, 6), second.stderr
    assert end(first).code == 0
    assert spool.copies == recipients()
    assert spool.drain("a").code == 0
    assert spool.markers == []


def test_a_killed_drain_keeps_its_source(make: Callable[..., Spool]) -> None:
    """Another ledger is refused; the same one continues."""
    spool = make("maildir", mail=Stall())
    first = spool.start("a")
    spool.primary.wait(lambda: bool(spool.primary.commands), timeout=30)
    spool.primary.wait(
        lambda: any(c.line.startswith(b"MAIL") for c in spool.primary.commands),
        timeout=30,
    )
    first.send_signal(signal.SIGKILL)
    first.communicate()
    spool.primary.script = Script()
    refused(spool.drain("b"), "a", "was started with another")
    while spool.drain("a", "--give-up-after", "1s").code == 5:
        refused(spool.drain("b"), "a")
    assert spool.copies == recipients(), "none had got its final dot"
    assert spool.markers == []


# ---- one ledger, many names; many ledgers, one name


def test_another_name_of_the_source_meets_the_same_marker(
    make: Callable[..., Spool],
) -> None:
    """A link, a detour, a slash at the end."""
    spool = make()
    root = spool.bench.root
    (root / "x").mkdir()
    (root / "link").symlink_to(root / "spool")
    assert spool.drain("a").code == 0
    for name in ("/x/../spool", "/spool/", "/link", "/link/."):
        refused(spool.drain("b", url=f"maildir:{root}{name}?ack=keep"), "a")


def test_a_hard_link_to_an_mbox_meets_the_same_marker(
    make: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file is known by its number too, in the state folder of the host."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    spool = make("mbox")
    other = spool.bench.root / "other"
    other.hardlink_to(spool.bench.root / "spool")
    first = spool.drain("a")
    assert first.code == 0, first.stderr
    refused(spool.drain("b", url=f"mbox:{other}"), "a")
    assert spool.copies == recipients()
    [path] = [p for f in _state_folders(tmp_path) for p in f.glob(_inode(other))]
    path.unlink()


def _state_folders(tmp_path: Path) -> list[Path]:
    return [Path("/var/lib/drainer/sources"), tmp_path / "state/drainer/sources"]


def _inode(path: Path) -> str:
    return f"{path.stat().st_ino}-{path.stat().st_dev}"


def test_another_ledger_at_the_same_path_is_another_ledger(
    make: Callable[..., Spool],
) -> None:
    """Its file was removed, and made again by the next drain."""
    spool = make()
    assert spool.drain("a").code == 0
    for path in spool.bench.root.glob("a.db*"):
        if path.is_file():
            path.unlink()
    refused(spool.drain("a"), "a", "is a new ledger")
    assert spool.copies == recipients()


def test_a_ledger_that_was_moved_is_the_same_ledger(
    make: Callable[..., Spool],
) -> None:
    """Its id goes with it, whatever its URL is now."""
    spool = make()
    assert spool.drain("a").code == 0
    (spool.bench.root / "a.db").rename(spool.bench.root / "moved.db")
    assert spool.drain("moved").code == 0
    assert spool.copies == recipients()


def test_a_copy_of_a_spool_brings_the_marker_along(
    make: Callable[..., Spool],
) -> None:
    """A copy, and an archive of it, hold the same mail."""
    spool = make()
    root = spool.bench.root
    assert spool.drain("a").code == 0
    shutil.copytree(root / "spool", root / "copy")
    with tarfile.open(root / "copy.tar", "w") as tar:
        tar.add(root / "spool", "mail")
    for url in (f"maildir:{root}/copy?ack=keep", f"maildir:{root}/copy.tar"):
        refused(spool.drain("b", url=url), "a")
        assert spool.drain("a", url=url).code == 0, "known by its identity"
    assert spool.copies == recipients()
    taken = spool.drain("b", TAKE_OVER, url=f"maildir:{root}/copy.tar")
    assert taken.code == 0
    assert spool.drain("b", url=f"maildir:{root}/copy.tar").code == 0


# ---- parts of a source


def test_a_folder_of_a_maildir_is_not_drained_beside_it(
    make: Callable[..., Spool],
) -> None:
    """In either order; a folder that is not read is free."""
    spool = make()
    root = spool.bench.root / "spool"
    write_maildir(root / ".Sub", COUNT, size=600)
    with_folder = f"maildir:{root}?ack=keep&folders=Sub"
    folder = f"maildir:{root}/.Sub?ack=keep"
    assert spool.drain("a", url=with_folder).code in (0, 5)
    refused(spool.drain("b", url=folder), "a")
    for path in spool.markers:
        path.unlink()
    assert spool.drain("c", url=folder).code in (0, 5)
    refused(spool.drain("b", url=with_folder), "c")
    assert spool.markers == [root / ".Sub" / ".drainer"], "it left none behind"
    # 5: it names the folder that it leaves out.
    assert spool.drain("b").code == 5, "the inbox alone is another source"


def test_a_part_that_is_drained_as_another_format_meets_the_whole(
    make: Callable[..., Spool],
) -> None:
    """Files of new/ whose names end in .eml are mail of both."""
    spool = make()
    root = spool.bench.root / "spool"
    for path in (root / "new").iterdir():
        path.rename(f"{path}.eml")
    assert spool.drain("a").code == 0
    refused(spool.drain("b", url=f"eml:{root}/new"), "a")
    (root / ".drainer").unlink()
    assert spool.drain("c", url=f"eml:{root}/new").code == 0
    refused(spool.drain("b"), "c")


# ---- who only looks


def test_looking_is_neither_refused_nor_does_it_claim(
    make: Callable[..., Spool],
) -> None:
    """inspect, plan, --dry-run, status; and a rehearsal, which acknowledges nothing."""
    spool = make()
    config = ["--config", spool.bench.config]

    def look() -> None:
        ledger = ["--ledger", spool.bench.root / "b.db"]
        assert call("inspect", spool.url, *config).code == 0
        assert call("plan", spool.url, *config, *ledger).code == 0
        assert spool.drain("b", "--dry-run").code == 0
        assert spool.drain("b", "--rehearse").code == 0

    look()
    assert spool.markers == []
    assert spool.drain("a").code == 0
    [marker] = spool.markers
    before = marker.read_bytes()
    look()
    known = ["--ledger", spool.bench.root / "a.db"]
    assert call("status", spool.url, *config, *known).code == 0
    assert marker.read_bytes() == before
    assert spool.copies == recipients() + recipients() + recipients()


# ---- other users


@pytest.fixture
def shared(peer: StartPeer) -> Iterator[Spool]:
    """Give a Maildir that another user owns, in a folder where that user may walk."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be two users")
    base = Path(tempfile.mkdtemp(prefix="drainer-claim-"))
    try:
        primary = peer()
        bench = Bench(base, primary.port)
        spool = Spool(bench, lay_out("maildir-keep", bench), primary)
        assert bench.config.exists()
        (base / "nobody").mkdir()
        for path in (base, *base.rglob("*")):
            if path not in (base, bench.config):  # root uses no other user's
                os.chown(path, NOBODY, NOBODY)
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield spool
    finally:
        shutil.rmtree(base)


def as_nobody(spool: Spool, ledger: str, *more: str) -> Result:
    """Drain as the owner of the spool."""
    state = {"XDG_STATE_HOME": f"{spool.bench.root}/nobody/state"}
    process = start(
        *spool.arguments(f"{spool.bench.root}/nobody/{ledger}.db", *more),
        env=environment(HOME=f"{spool.bench.root}/nobody", **state),
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
    )
    return end(process)


def test_root_and_the_owner_of_the_spool_meet(shared: Spool) -> None:
    """Root's marker belongs to the owner of the folder, who can read it."""
    assert shared.drain("root").code == 0
    [marker] = shared.markers
    status = marker.stat()
    assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY)
    assert status.st_mode & 0o137 == 0, "others may not read or lock it"
    refused(as_nobody(shared, "b"), "root", "root")
    assert shared.copies == recipients()


def test_the_owner_of_the_spool_and_root_meet(shared: Spool) -> None:
    """Root is refused by the user's marker too, and takes over only when told."""
    assert as_nobody(shared, "a").code == 0
    refused(shared.drain("root"), "a", "nobody")
    assert shared.drain("root", TAKE_OVER).code == 0
    assert "root.db" in shared.markers[0].read_text()


def test_a_marker_that_cannot_be_read_is_named_with_its_owner(shared: Spool) -> None:
    """Root's, in a folder of root's: the user learns what is in the way, and whose."""
    os.chown(shared.bench.root / "spool", 0, 0)
    (shared.bench.root / "spool").chmod(0o755)
    assert shared.drain("root").code == 0
    result = as_nobody(shared, "b")
    assert result.code == 2
    [marker] = shared.markers
    assert str(marker) in result.json["error"]
    assert "user 0" in result.json["hint"]
    assert shared.copies == recipients()


def test_a_source_that_cannot_be_written_is_claimed_in_the_state_folder(
    shared: Spool,
) -> None:
    """With a warning, once; a second ledger of the same user is refused as well."""
    os.chown(shared.bench.root / "spool", 0, 0)
    (shared.bench.root / "spool").chmod(0o555)
    first = as_nobody(shared, "a")
    assert first.code == 0, first.stderr
    assert first.stderr.count("cannot be written, so the marker") == 1
    assert "drains on other hosts" in " ".join(first.stderr.split())
    refused(as_nobody(shared, "b"), "a")
    (shared.bench.root / "spool").chmod(0o755)
    os.chown(shared.bench.root / "spool", NOBODY, NOBODY)
    refused(as_nobody(shared, "b"), "a")
    assert shared.markers == [], "it was refused, so that it left none in the spool"
    assert shared.copies == recipients()


def test_root_and_the_service_meet_in_its_state_folder(shared: Spool) -> None:
    """The service may only read the spool; root, who may write, sees its marker."""
    root = shared.bench.root
    folders = (root / "nobody" / "sources",)
    os.chown(root / "spool", 0, 0)
    (root / "spool").chmod(0o755)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            claim(shared, root / "nobody" / "service.db", folders)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    claims = claim(shared, root / "root.db", folders)
    [refusal] = claims.refused.values()
    assert "service.db" in str(refusal)
    assert shared.markers == []


def claim(
    spool: Spool, ledger: Path, folders: tuple[Path, ...], *, take_over: bool = False
) -> SourceClaims:
    """Claim a spool for a ledger; the claim stays until this process ends."""
    url = ledger_url(config_file.load(None, {"ledger": {"url": str(ledger)}}))
    claims = SourceClaims([open_source(spool.url, options={})], folders)
    claims.take(url, ledger_name(url), take_over=take_over)
    return claims


# ---- what the ledger and the watch say


def test_taking_over_is_recorded(make: Callable[..., Spool]) -> None:
    """The new ledger has a decision that names the former one."""
    spool = make()
    traces = spool.bench.root / "traces.json"
    spool.bench.configure(telemetry={"traces": f"file:{traces}"})
    assert spool.drain("a").code == 0
    assert spool.drain("b", TAKE_OVER).code == 0
    assert "operator-take-over" in traces.read_text()
    with contextlib.closing(sqlite3.connect(spool.bench.root / "b.db")) as ledger:
        query = "SELECT evidence FROM decisions WHERE rule = 'operator-take-over'"
        [(found,)] = ledger.execute(query).fetchall()
    evidence = json.loads(found)
    assert "a.db" in evidence["from"]
    assert evidence["source"] == f"maildir:{spool.bench.root}/spool"


def test_a_watch_waits_while_another_ledger_has_its_source(
    make: Callable[..., Spool],
) -> None:
    """It says which one, delivers nothing, and does not end."""
    spool = make("postfix-remove", rcpt="450 4.2.0 later")
    assert spool.drain("a").code == 5
    spool.primary.script = Script()
    bench = spool.bench
    prepare(bench)
    with watching(bench, spool.url) as watch:
        watch.wait_said("was started with another ledger")
        assert "a.db" in watch.text
        assert spool.copies == Counter()


def test_a_run_that_reads_no_source_leaves_a_claimed_one_out(
    make: Callable[..., Spool],
) -> None:
    """`bounces run` with the former ledger: a warning, and nothing is sent from it."""
    gone = per_recipient({"user3@example.org": "550 5.1.1 no such user"})
    spool = make("maildir-keep", rcpt=gone)
    assert spool.drain("a").code == 5
    spool.primary.script = Script()
    assert spool.drain("b", TAKE_OVER).code == 0
    known = ["--config", spool.bench.config, "--ledger", spool.bench.root / "a.db"]
    result = call("bounces", "run", *known, "--no-check", "--json")
    assert "is left out" in result.stderr
    assert spool.copies["user3@example.org"] == 1, "by the ledger that took over"


def test_bounces_that_another_user_cannot_confirm_are_not_passed_over_in_silence(
    peer: StartPeer,
) -> None:
    """As a timer after a drain by root: it fails, and says whose spool or ledger it is.

    It passes over a spool that is gone, because a bounce is built from a copy.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root, to be two users")
    base = Path(tempfile.mkdtemp(prefix="drainer-bounces-"))

    def as_service() -> Result:
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
        env = environment(HOME=str(base / "home"))
        return end(mine.start("bounces", "run", "--no-check", env=env, **who))

    mine = Bench(base, peer(rcpt="550 5.1.1 unknown").port)
    try:
        mine.add("bob@example.org")
        assert mine.drain().code == 5
        base.chmod(0o755)
        mine.spool.chmod(0o700)
        refused = as_service()
        assert refused.code == 2
        assert f"{mine.ledger} belongs to root" in refused.stderr
        shutil.chown(base, NOBODY, NOBODY)
        for path in base.glob("ledger.db*"):
            shutil.chown(path, NOBODY, NOBODY)
        refused = as_service()
        assert refused.code == 2
        assert f"mail of postfix:{mine.spool} waits" in refused.stderr
        shutil.rmtree(mine.spool)
        assert as_service().code == 5
    finally:
        shutil.rmtree(base)
