"""Root works in folders of other users, and they set traps there.

Each test lays out one trap as a user could, lets root do its work in that folder, and
looks at what is not the user's: it must be as it was.
"""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from drainer.bounce.quarantine.export import target_of
from drainer.bounce.quarantine.store import Quarantine
from drainer.config.build.paths import fresh_rehearsal
from drainer.errors import DrainerError, MessageUnreadable, SourceError
from drainer.ledger import engine, watch_log
from drainer.ledger.owner import Owner
from drainer.ledger.write_probe import try_writing
from drainer.mail.content import HeldContent
from drainer.mail.envelope import Envelope, Recipient
from drainer.mail.message import SpooledMessage
from drainer.runtime.file_rights import as_owner
from drainer.runtime.folders import open_folder, owner_of
from drainer.runtime.private_files import (
    make_private_folder,
    open_present,
    open_private,
    read_private,
    remove_private,
)
from drainer.sources.common.marker import MarkerPlace, open_marker
from drainer.sources.database.importer import create_spool
from drainer.sources.maildir.source import Maildir
from drainer.sources.mbox.source import Mbox
from drainer.sources.postfix.note import HoldNote
from drainer.sources.protocol import Source
from drainer.sources.registry import open_source
from drainer.telemetry.file_exporter import FileExporter
from drainer.telemetry.projector import lock_cursor
from tests.contract.test_sources import KITS, Kit
from tests.security.foreign import (
    ATTACKER,
    OTHER,
    SECRET,
    as_root,
    as_user,
    file_system_user,
    folder_of,
    give,
    link,
    open_place,
    owners,
    racing,
    secret_of,
)
from tests.support.command.installed import write_maildir
from tests.support.command.runner import Bench, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.spools.store_kits import MboxStore

pytestmark = as_root

THEIRS: Final = {(ATTACKER, ATTACKER)}


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a folder of root; ``etc`` in it has what only root may read and write."""
    with open_place() as made:
        secret_of(made / "etc" / "shadow")
        yield made


def is_untouched(place: Path) -> bool:
    """Whether root's folder is as it was made: no file more, none changed."""
    etc = place / "etc"
    names = [path.name for path in etc.iterdir()]
    status = (etc / "shadow").stat()
    return (
        names == ["shadow"]
        and (etc / "shadow").read_bytes() == SECRET
        and (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 0, 0o600)
    )


# ---- the state folder


def open_ledger(path: Path) -> None:
    """Make a ledger, write into it, and let go of it."""
    url = engine.parse_url(str(path))
    engine.connect(url, create=True).dispose()


def rehearse(path: Path) -> None:
    """Make room for the ledger of a rehearsal, and make it."""
    url = fresh_rehearsal(engine.parse_url(str(path).removesuffix(".rehearsal")))
    open_ledger(Path(str(url.database)))


def trace(path: Path) -> None:
    """Open the file that traces are appended to."""
    exporter = FileExporter(path, {})
    try:
        exporter._open()
    finally:
        exporter.close()


def copy_message(path: Path) -> None:
    """Keep a copy of a message as that file."""
    Quarantine(path.parent)._write(path.name.removeprefix("."), [b"copy\n"])


def note(path: Path) -> None:
    """Write the note on a live Postfix, twice."""
    HoldNote(path).close()
    HoldNote(path).close()


def mark(path: Path) -> None:
    """Make the marker of a source."""
    file = open_marker(MarkerPlace(path.parent, path.name), create=True)
    assert file is not None
    file.close()


FILES: Final[dict[str, tuple[str, Callable[[Path], object]]]] = {
    "the ledger": ("ledger.db", open_ledger),
    "the ledger of a rehearsal": ("ledger.db.rehearsal", rehearse),
    "the trace file": ("traces.jsonl", trace),
    "the lock of a trace file": (
        "traces-file_x.lock",
        lambda path: lock_cursor(path.parent, "file:x"),
    ),
    "the lock of a watch": (
        watch_log._lock_path(Path(), "r").name,
        lambda path: watch_log.own(path.parent, "r"),
    ),
    "an unfinished copy": (".0.0.eml", copy_message),
    "a note": ("note", note),
    "a note that is written again": ("note.new", lambda path: note(path.parent / "n")),
    "the marker of a source": (".drainer", mark),
    "any private file": ("any", lambda path: open_private(path, os.O_RDWR)),
    "any private file, emptied": (
        "any",
        lambda path: open_private(path, os.O_WRONLY | os.O_TRUNC),
    ),
}


def dangling(path: Path, etc: Path) -> None:
    """Link to a file that is not there."""
    link(path, etc / "new-file")


def to_file(path: Path, etc: Path) -> None:
    """Link to a file of root."""
    link(path, etc / "shadow")


def chain(path: Path, etc: Path) -> None:
    """Link to a link, by a relative way."""
    link(path.parent / "second", Path(os.path.relpath(etc / "shadow", path.parent)))
    link(path, Path("second"))


def hard(path: Path, etc: Path) -> None:
    """Give a file of root a second name."""
    path.hardlink_to(etc / "shadow")


@pytest.mark.parametrize("trap", [dangling, to_file, chain, hard])
@pytest.mark.parametrize("what", FILES)
def test_no_state_file_leads_out_of_the_services_folder(
    place: Path, what: str, trap: Callable[[Path, Path], None]
) -> None:
    """A link of any kind in its place is refused; what it leads to stays."""
    name, work = FILES[what]
    state = folder_of(place / "state")
    trap(state / name, place / "etc")
    with suppress(OSError, DrainerError):
        work(state / name)
    assert is_untouched(place)
    assert owners(state) - THEIRS <= {(0, 0)}  # the hard link is still root's


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("trap", [dangling, to_file, chain, hard])
def test_no_journal_of_sqlite_leads_out(
    place: Path, suffix: str, trap: Callable[[Path, Path], None]
) -> None:
    """SQLite opens them by name, and removes them: refused, and clearly."""
    state = folder_of(place / "state")
    open_ledger(state / "ledger.db")
    trap(state / f"ledger.db{suffix}", place / "etc")
    with suppress(DrainerError):
        open_ledger(state / "ledger.db")
    assert is_untouched(place)


@pytest.mark.parametrize("trap", [dangling, to_file, hard])
def test_a_refused_ledger_is_exit_2_and_says_why(
    place: Path, trap: Callable[[Path, Path], None]
) -> None:
    """Of a command as the operator runs it."""
    state = folder_of(place / "state")
    trap(state / "ledger.db", place / "etc")
    result = call("hook", "up", "--to", "127.0.0.1", "--ledger", state / "ledger.db")
    assert result.code == 2, result
    assert "link" in result.stderr
    assert is_untouched(place)


@pytest.mark.parametrize("name", ["ledger.db.locks", "ledger.db.quarantine"])
def test_no_folder_of_state_leads_out(place: Path, name: str) -> None:
    """Root makes no lock and no copy where a link leads."""
    state = folder_of(place / "state")
    link(state / name, place / "etc")
    with pytest.raises((OSError, DrainerError)):
        Owner.acquire(state / name)
    with pytest.raises((OSError, DrainerError)):
        copy_message(state / name / ".0.0.eml")
    assert is_untouched(place)


def test_what_the_ledger_calls_a_lock_is_opened_only_if_it_is_a_file(
    place: Path,
) -> None:
    """The service writes its path; opening a device may already do something."""
    pipe = place / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), place / "etc"):
        with pytest.raises(PermissionError, match="regular file"):
            open_present(path, os.O_RDWR)


def test_a_file_of_a_third_user_is_refused(place: Path) -> None:
    """The service may write it, but its owner can change what it says."""
    state = folder_of(place / "state")
    (state / "any").touch(0o666)
    (state / "any").chmod(0o666)
    os.chown(state / "any", OTHER, OTHER)
    with pytest.raises(PermissionError, match="belongs to user"):
        open_private(state / "any", os.O_RDWR)


def test_a_ledger_where_others_than_its_owner_can_write_is_refused(place: Path) -> None:
    """Root's own folder, writable for a group: no rights to take are sure."""
    state = place / "shared"
    state.mkdir()
    state.chmod(0o1777)
    with pytest.raises(DrainerError, match="others can write it"):
        open_ledger(state / "ledger.db")


def test_the_owner_of_a_folder_above_cannot_exchange_it(place: Path) -> None:
    """While root opens a private file, its folder and a link swap places."""
    home = folder_of(place / "home")
    give(folder_of(home / "state"))
    link(home / "evil", place / "etc")
    with racing(home, "state", "evil"):
        for number in range(400):
            with suppress(OSError):
                os.close(open_private(home / "state" / f"{number}", os.O_RDWR))
            with suppress(OSError):
                make_private_folder(home / "state" / "deep" / f"{number}")
            with suppress(OSError):
                remove_private(home / "state" / "shadow")
            with suppress(OSError, DrainerError):
                mark(home / "state" / f"{number}.drainer")
    assert is_untouched(place)
    assert owners(home) == THEIRS


def test_the_owner_of_a_folder_above_cannot_exchange_it_under_sqlite(
    place: Path,
) -> None:
    """It opens by path, again and again, and removes its journals by path."""
    home = folder_of(place / "home")
    give(folder_of(home / "state"))
    link(home / "evil", place / "etc")
    with racing(home, "state", "evil"):
        for _ in range(15):
            with suppress(DrainerError):
                open_ledger(home / "state" / "ledger.db")
    assert is_untouched(place)
    assert owners(home) == THEIRS


def test_what_root_leaves_behind_is_the_services(
    place: Path, peer: Callable[..., PeerThread]
) -> None:
    """Root drains once with traces on; then the service can use every file."""
    state, bench = folder_of(place / "state"), Bench(place / "bench")
    bench.port = peer().port
    bench.configure(telemetry={"traces": f"file:{state}/traces.jsonl"})
    bench.add("a@example.org")
    drain = ("drain", f"postfix:{bench.spool}", "--no-check", "--config", bench.config)
    ledger = state / "ledger.db"
    assert call(*drain, "--ledger", ledger).code == 0
    assert owners(state) == THEIRS
    names = {path.name for path in state.iterdir()}
    assert {"ledger.db", "ledger.db.locks", "traces.jsonl"} <= names

    def use() -> str:
        for path in filter(Path.is_file, state.rglob("*")):
            os.close(os.open(path, os.O_RDWR))
        Owner.acquire(Path(f"{ledger}.locks")).release()
        with closing(sqlite3.connect(ledger)) as connection, connection:
            connection.execute("UPDATE owners SET pid = pid")
        return "used"

    assert as_user(use) == "used"


def test_a_ledger_works_where_its_owner_cannot_go(tmp_path: Path) -> None:
    """A folder of root that nobody may enter has the service's folder in it."""
    (tmp_path / "closed").mkdir(mode=0o700)
    state = folder_of(tmp_path / "closed" / "state")
    open_ledger(state / "ledger.db")
    open_ledger(state / "ledger.db")
    assert owners(state) == THEIRS


def test_the_doctors_trial_leaves_nothing_and_follows_nothing(place: Path) -> None:
    """It makes a ledger in a folder of its own beside the place of the other."""
    state = folder_of(place / "state")
    assert try_writing(engine.parse_url(str(state / "ledger.db"))) == ""
    assert list(state.iterdir()) == []


# ---- copies, in and out


def message_of() -> SpooledMessage:
    """Return a message as a source lists it."""
    with open_place() as made:
        write_maildir(made / "m", 1)
        (spooled,) = Maildir(made / "m").scan()
    recipients = (Recipient(forward_path="a@example.org"),)
    envelope = Envelope(reverse_path="s@example.com", recipients=recipients)
    known = spooled.message
    content = HeldContent(b"Subject: x\r\n\r\nbody\r\n")
    return SpooledMessage(message=replace(known, envelope=envelope), content=content)


@pytest.mark.parametrize("trap", [to_file, chain, hard])
def test_a_copy_that_leads_to_roots_file_is_never_read(
    place: Path, trap: Callable[[Path, Path], None]
) -> None:
    """`quarantine release` would mail it to the attacker."""
    folder, spooled = folder_of(place / "state" / "quarantine"), message_of()
    give(place / "state")
    trap(folder / f"{spooled.message.id}.0.eml", place / "etc")
    copy = Quarantine(folder).open(spooled.message)
    assert copy is not None
    with pytest.raises(MessageUnreadable):
        list(copy.content.chunks())


@pytest.mark.parametrize("kind", ["maildir", "eml"])
def test_an_export_stays_in_the_folder_that_was_named(place: Path, kind: str) -> None:
    """What it writes belongs to the owner; a link in it leads nowhere."""
    home, spooled = folder_of(place / "home"), message_of()
    target = target_of(f"{kind}:{home}/kept", place / "quarantine")
    target.add(spooled)
    target.finish()
    assert owners(home) == THEIRS
    for name in ("new", "tmp"):
        if kind == "maildir":
            (home / "kept" / name).rename(home / f"old-{name}")
            link(home / "kept" / name, place / "etc")
    if kind == "eml":
        (home / "kept").rename(home / "old")
        link(home / "kept", place / "etc")
    with pytest.raises(OSError, match="link"):
        target.add(message_of())
    assert is_untouched(place)


def test_init_writes_through_no_link(place: Path) -> None:
    """With --force it replaces a link; without, it refuses one, dangling or not."""
    home = folder_of(place / "home")
    for target in ("shadow", "new-file"):
        path = link(home / f"{target}.toml", place / "etc" / target)
        result = call("init", path)
        assert result.code == 2, result
        assert is_untouched(place)
        assert call("init", path, "--force").code == 0
        assert not path.is_symlink()
        assert "[primary]" in path.read_text("utf-8")
    assert is_untouched(place)
    assert owners(home) == THEIRS


def test_a_secret_is_read_with_the_rights_of_its_folders_owner(place: Path) -> None:
    """A password file that is a link would send root's file to the primary."""
    state = folder_of(place / "state")
    for name, trap in (("link", to_file), ("hard", hard)):
        trap(state / name, place / "etc")
        with pytest.raises(PermissionError):
            read_private(state / name)
    (state / "mine").write_bytes(b"sesame\n")
    give(state)
    assert read_private(state / "mine") == b"sesame\n"


# ---- a Maildir that moves


def user_maildir(home: Path, count: int = 1) -> Path:
    """Lay out a Maildir in a user's folder."""
    write_maildir(home / "Maildir", count)
    give(home)
    return home / "Maildir"


def finish(root: Path) -> list[str]:
    """Acknowledge everything in a Maildir, as a drain by root does."""
    source = Maildir(root)
    return source.acknowledge([each.message for each in source.scan()])


def test_a_users_maildir_moves_and_stays_the_users(place: Path) -> None:
    """Everything that root made is the user's, and nothing is left in new."""
    home = folder_of(place / "home")
    root = user_maildir(home, 3)
    assert len(finish(root)) == 3
    assert owners(home) == THEIRS
    assert len(list((home / "Maildir.drained" / "new").iterdir())) == 3


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_sibling_in_a_folder_of_root_is_the_users(place: Path, mode: int) -> None:
    """/var/mail and the like, also with the sticky bit."""
    place.chmod(mode)
    root = user_maildir(folder_of(place / "home")).rename(place / "Maildir")
    assert len(finish(root)) == 1
    assert owners(place / "Maildir.drained") == THEIRS


def drained_is_a_link(home: Path, etc: Path) -> None:
    """NAME.drained leads to root's folder."""
    link(home / "Maildir.drained", etc)


def drained_is_a_link_to_ones_own(home: Path, etc: Path) -> None:
    """NAME.drained leads to a folder of the user, whose new leads on."""
    folder_of(home / "real")
    link(home / "real" / "new", etc)
    link(home / "Maildir.drained", Path("real"))


def its_new_is_a_link(home: Path, etc: Path) -> None:
    """NAME.drained is a folder, its new a link."""
    folder_of(home / "Maildir.drained")
    link(home / "Maildir.drained" / "new", etc)


def its_tmp_is_a_link(home: Path, etc: Path) -> None:
    """NAME.drained is a folder, its tmp a link to a file: to be given away."""
    folder_of(home / "Maildir.drained")
    link(home / "Maildir.drained" / "tmp", etc / "shadow")


def drained_is_a_file(home: Path, etc: Path) -> None:
    """NAME.drained is a file of root by a hard link."""
    (home / "Maildir.drained").hardlink_to(etc / "shadow")


def drained_is_roots(home: Path, etc: Path) -> None:
    """NAME.drained is a folder that root has left there."""
    del etc
    (home / "Maildir.drained").mkdir()


def drained_is_anothers(home: Path, etc: Path) -> None:
    """NAME.drained is a folder of a third user, open to all."""
    del etc
    folder_of(home / "Maildir.drained", OTHER).chmod(0o777)


TRAPS: Final = (
    drained_is_a_link,
    drained_is_a_link_to_ones_own,
    its_new_is_a_link,
    its_tmp_is_a_link,
    drained_is_a_file,
    drained_is_roots,
    drained_is_anothers,
)


@pytest.mark.parametrize("trap", TRAPS)
def test_mail_moves_to_no_folder_but_the_users(
    place: Path, trap: Callable[[Path, Path], None]
) -> None:
    """Refused with the reason; the mail stays where it is, nothing is given away."""
    home = folder_of(place / "home")
    root = user_maildir(home)
    trap(home, place / "etc")
    with pytest.raises(SourceError, match="cannot move"):
        finish(root)
    assert is_untouched(place)
    assert len(list((root / "new").iterdir())) == 1


def test_a_race_for_the_sibling_gives_nothing_away(place: Path) -> None:
    """The user exchanges tmp with a link to root's file while root makes folders."""
    home = folder_of(place / "home")
    root = user_maildir(home)
    folder_of(home / "Maildir.drained")
    link(home / "Maildir.drained" / "evil", place / "etc" / "shadow")
    with racing(home / "Maildir.drained", "tmp", "evil"):
        for _ in range(60):
            write_maildir(root, 1)
            give(root)
            with suppress(SourceError):
                finish(root)
    assert is_untouched(place)


def test_a_race_for_the_folder_moves_nothing_of_roots(place: Path) -> None:
    """The user exchanges new with a link to root's folder while mail moves."""
    home = folder_of(place / "home")
    root = user_maildir(home)
    link(root / "evil", place / "etc")
    with racing(root, "new", "evil"):
        for _ in range(60):
            with suppress(SourceError):
                finish(root)
    assert is_untouched(place)


# ---- any source


@pytest.fixture(params=list(KITS.values()), ids=list(KITS))
def kit(request: pytest.FixtureRequest) -> Kit:
    """Give a way to lay out a spool of each format."""
    chosen: Kit = request.param
    return chosen


def theirs(kit: Kit, place: Path) -> tuple[Path, Path]:
    """Lay out a spool with one message for its user: the spool, and the file."""
    root = folder_of(place / "home") / "queue"
    root.mkdir()
    path = kit.write(root, b"2878E", "Not for you")
    give(root)
    return root, path


def contents(source: Source) -> list[bytes]:
    """Return what a source gives out, as far as it can be read."""
    found = []
    for spooled in source.scan():
        with suppress(MessageUnreadable):
            found.append(b"".join(spooled.content.chunks()))
    return found


def test_a_users_spool_is_read_and_removed_by_root(kit: Kit, place: Path) -> None:
    """The rights of its owner are enough for everything."""
    root, path = theirs(kit, place)
    source = kit.open(root, drops=True)
    (spooled,) = source.scan()
    assert spooled.message.problem is None
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    assert not path.exists()
    assert owners(place / "home") == THEIRS


def test_a_hard_link_to_roots_file_is_not_mailed(kit: Kit, place: Path) -> None:
    """Not the message's file, nor any file of it, whoever it was written for."""
    root, path = theirs(kit, place)
    for file in [each for each in root.rglob("*") if each.is_file()]:
        stolen = place / "etc" / file.name
        file.rename(stolen)
        os.chown(stolen, 0, 0)
        stolen.chmod(0o600)
        file.hardlink_to(stolen)
    del path
    assert contents(kit.open(root)) == []


def test_nothing_is_removed_where_a_link_leads(kit: Kit, place: Path) -> None:
    """Between listing and removal a folder of the spool becomes a link to root's."""
    root, path = theirs(kit, place)
    source = kit.open(root, drops=True)
    messages = [each.message for each in source.scan()]
    exchanged = path.parent if path.parent != root else root
    kept = place / "etc" / "kept"
    exchanged.rename(kept)
    give(kept, 0)
    link(exchanged, kept)
    before = sorted(os.fspath(each) for each in kept.rglob("*"))
    with suppress(SourceError, MessageUnreadable):
        source.acknowledge(messages)
    assert sorted(os.fspath(each) for each in kept.rglob("*")) == before


def test_a_spool_behind_a_users_link_is_refused(kit: Kit, place: Path) -> None:
    """What the operator names must not lead to root's mail by a user's doing."""
    (place / "etc" / "queue").mkdir()
    kit.write(place / "etc" / "queue", b"2878E", "Not for you")
    home = folder_of(place / "home")
    link(home / "queue", place / "etc" / "queue")
    with pytest.raises(SourceError, match="link"):
        kit.open(home / "queue")


def test_a_spool_behind_roots_own_link_is_read(kit: Kit, place: Path) -> None:
    """/var/run leads to /run: where nobody else can make links they are followed."""
    (place / "srv" / "queue").mkdir(parents=True)
    kit.write(place / "srv" / "queue", b"2878E", "hello")
    give(place / "srv" / "queue")
    link(place / "first", place / "srv", 0)
    link(place / "second", Path("first/../srv/queue"), 0)
    assert len(contents(kit.open(place / "second"))) == 1


def test_a_users_mbox_is_read_with_the_users_rights(place: Path) -> None:
    """A link or a hard link to root's mailbox is refused; the user's own is read."""
    home, store = folder_of(place / "home"), MboxStore()
    store.write(place / "etc" / "mbox", [("Not for you", "x")])
    (place / "etc" / "mbox").chmod(0o600)
    link(home / "soft", place / "etc" / "mbox")
    (home / "hard").hardlink_to(place / "etc" / "mbox")
    for name in ("soft", "hard"):
        with pytest.raises(SourceError):
            Mbox(home / name)
    store.write(home / "own", [("hello", "x")])
    give(home / "own")
    assert len(contents(Mbox(home / "own"))) == 1


def test_an_mbox_in_a_shared_folder_is_read_with_its_owners_rights(
    place: Path,
) -> None:
    """/var/mail belongs to root, and a group can write it: no hard link of root."""
    mail, store = place / "mail", MboxStore()
    mail.mkdir()
    mail.chmod(0o2775)
    store.write(mail / "alice", [("hello", "x")])
    give(mail / "alice")
    assert len(contents(Mbox(mail / "alice"))) == 1
    store.write(place / "etc" / "mbox", [("Not for you", "x")])
    (mail / "eve").hardlink_to(place / "etc" / "mbox")
    with pytest.raises(SourceError, match="hard link"):
        Mbox(mail / "eve")


@pytest.mark.parametrize("trap", [to_file, hard])
def test_an_archive_of_a_user_is_read_with_the_users_rights(
    place: Path, trap: Callable[[Path, Path], None]
) -> None:
    """Whatever root's file has in it."""
    trap(folder_of(place / "home") / "x.tar", place / "etc")
    with pytest.raises(SourceError, match=r"link|cannot unpack"):
        open_source(f"postfix:{place}/home/x.tar", options={})


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("trap", [dangling, to_file, hard])
def test_a_database_spool_of_a_user_is_used_with_the_users_rights(
    place: Path, suffix: str, trap: Callable[[Path, Path], None]
) -> None:
    """Creating, reading and marking: by no link, and by no link of SQLite's."""
    home = folder_of(place / "home")
    url = f"sqlite:///{home}/spool.db"
    if suffix:
        create_spool(url)
        assert owners(home) == THEIRS
    trap(home / f"spool.db{suffix}", place / "etc")
    with suppress(DrainerError):
        create_spool(url)
    with suppress(DrainerError):
        contents(open_source(url, options={}))
    assert is_untouched(place)


# ---- the mechanism itself


def test_rights_are_a_threads_own_and_come_back(place: Path) -> None:
    """Others stay root meanwhile; an error gives them back too."""
    home = folder_of(place / "home")
    inside, done = threading.Event(), threading.Event()
    seen = []

    def work() -> None:
        with suppress(ZeroDivisionError), as_owner(home.stat()):
            seen.append(file_system_user())
            inside.set()
            done.wait(10)
            raise ZeroDivisionError
        seen.append(file_system_user())

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    try:
        assert file_system_user() == (0, 0)
        assert (place / "etc" / "shadow").read_bytes() == SECRET
    finally:
        done.set()
        thread.join()
    assert seen == [(ATTACKER, ATTACKER), (0, 0)]


def test_a_folders_group_gives_no_rights(place: Path) -> None:
    """A user's folder of the group root, or mail, does not open that group's files."""
    home = folder_of(place / "home")
    os.chown(home, 65534, 0)
    shared = secret_of(place / "shared")
    shared.chmod(0o640)
    (home / "hard").hardlink_to(shared)
    folder = open_folder(home)
    try:
        with owner_of(folder), pytest.raises(PermissionError):
            (home / "hard").read_bytes()
    finally:
        os.close(folder)


def test_root_that_may_not_change_its_ids_says_so(place: Path) -> None:
    """A container without CAP_SETUID: exit 2, no traceback, and what to do."""
    state = folder_of(place / "state")
    powers = "-setuid,-setgid"
    less = ["setpriv", "--bounding-set", powers, "--inh-caps", powers]
    command = [sys.executable, "-m", "drainer", "hook", "up", "--to", "127.0.0.1"]
    ended = subprocess.run(
        [*less, *command, "--ledger", str(state / "ledger.db")],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2, ended
    assert "CAP_SETUID" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(state.iterdir()) == []
