"""Mail in parts of a spool that you did not ask for is named, and never passed over."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from drainer.errors import SourceError
from drainer.sources.protocol import PartialSource, UntakenPart
from drainer.sources.registry import open_source
from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.spools import exim_files
from tests.support.spools.postfix_files import place as place_postfix
from tests.support.spools.postfix_files import queue_file, record

StartPeer = Callable[..., PeerThread]


def untaken(url: str, *, listing: bool = False, **options: object) -> list[UntakenPart]:
    """Return what a source leaves out."""
    source = open_source(url, options=options, listing=listing)
    assert isinstance(source, PartialSource)
    return list(source.untaken())


def postfix(root: Path, *queues: str) -> None:
    """Lay a message into each queue."""
    for number, queue in enumerate(queues):
        place_postfix(root, queue_file(), f"4ABC{number}", (queue,))


def test_postfix_names_hold_corrupt_and_maildrop(tmp_path: Path) -> None:
    """Unless the operator says which queues to take."""
    postfix(tmp_path, "deferred", "hold", "hold", "corrupt", "maildrop")
    url = f"postfix:{tmp_path}"
    hold = UntakenPart("hold", "--queue hold", 2)
    corrupt = UntakenPart("corrupt", "--queue corrupt", 1)
    maildrop = UntakenPart("maildrop", "--queue maildrop", 1)
    assert untaken(url) == [hold, corrupt, maildrop]
    assert untaken(url, listing=True) == [corrupt, maildrop]
    assert untaken(url, queues=["deferred"]) == []


def test_exim_names_frozen_mail_and_named_queues(tmp_path: Path) -> None:
    """A message is counted once, though it has two files."""
    places = (("input",), ("Finput",), ("slow", "input"), ("slow", "Finput"))
    for number, parts in enumerate(places):
        name = f"{exim_files.ID.decode()[:-1]}{number}"
        exim_files.place(tmp_path, name=name, parts=parts)
    url = f"exim:{tmp_path}"
    assert untaken(url) == [
        UntakenPart("Finput", "--queue Finput", 1),
        UntakenPart("queue slow", "--queue slow", 1),
        UntakenPart("queue slow/Finput", "--queue slow/Finput", 1),
    ]
    frozen = open_source(url, options={"queues": ["slow/Finput"]})
    assert [each.message.problem for each in frozen.scan()] == [None]
    assert untaken(url, queues=["input"]) == untaken(url)
    assert untaken(url, queues=["slow"]) == []


def test_a_maildir_names_its_folders(tmp_path: Path) -> None:
    """Those with mail in them; a folder of another layout is a source of its own."""
    for folder in ("", ".Sub", ".Empty", "Old/Mail"):
        for each in ("new", "cur", "tmp"):
            (tmp_path / folder / each).mkdir(parents=True)
    for number, each in enumerate(("new", "cur")):
        name = f"{number}.a.host"
        for folder in (".Sub", "Old/Mail"):
            (tmp_path / folder / each / name).write_bytes(b"Subject: x\n\nx\n")
    url = f"maildir:{tmp_path}"
    own = f"a source of its own: {url}/Old/Mail"
    assert untaken(url) == [
        UntakenPart("folder Sub", "?folders=Sub", 2),
        UntakenPart("folder Old/Mail", own, 2),
    ]
    assert untaken(url, folders=["Sub"]) == []


def test_opensmtpd_names_submissions_that_it_has_not_seen(tmp_path: Path) -> None:
    """They were accepted on this host while smtpd was down."""
    for folder in ("queue", "offline"):
        (tmp_path / folder).mkdir()
    (tmp_path / "offline" / "0.1744473568.x").write_bytes(b"Subject: x\n\nx\n")
    (part,) = untaken(f"opensmtpd:{tmp_path}")
    assert (part.name, part.messages) == ("offline", 1)


def test_the_output_of_postqueue_names_what_is_on_hold(tmp_path: Path) -> None:
    """A queue that is wholly on hold is not empty."""
    line = {
        "queue_name": "hold",
        "queue_id": "A1B2C3D4E5",
        "arrival_time": 1,
        "message_size": 1,
        "sender": "s@example.com",
        "recipients": [{"address": "a@example.org"}],
    }
    (tmp_path / "queue.json").write_text(json.dumps(line) + "\n")
    url = f"postcat:{tmp_path}"
    assert untaken(url) == [UntakenPart("hold", "--queue hold", 1)]
    assert untaken(url, queues=["deferred"]) == []


def test_a_folder_of_eml_files_names_other_files_and_folders(tmp_path: Path) -> None:
    """Those that are mail; a suffix that the operator wrote says what to take."""
    mail = b"Received: from a by b; Sat, 12 Apr 2025 15:59:28 +0000\n\nx\n"
    (tmp_path / "below" / "further").mkdir(parents=True)
    for name in ("1.eml", "2.txt", "3", ".4.eml", "below/5.eml", "below/further/6.eml"):
        (tmp_path / name).write_bytes(mail)
    (tmp_path / "README").write_text("Note: these are letters\n")
    (tmp_path / "1.json").write_text("{}")
    (tmp_path / "link").symlink_to("1.eml")
    url = f"eml:{tmp_path}"
    folders = f"a source for each, such as {url}/FOLDER"
    assert untaken(url) == [
        UntakenPart("files with other names", "?suffix=any", 2),
        UntakenPart("folders below", folders, 2),
    ]
    assert untaken(url, suffix=".eml") == []


def test_an_archive_names_the_parts_of_the_spool_in_it(tmp_path: Path) -> None:
    """An export of a queue that is wholly on hold is not empty."""
    postfix(tmp_path / "spool", "hold", "maildrop")
    (tmp_path / "spool" / "deferred").mkdir()
    archive = tmp_path / "export.tar.gz"
    with tarfile.open(archive, "w:gz") as writer:
        writer.add(tmp_path / "spool", "spool")
    names = [part.name for part in untaken(f"postfix:{archive}")]
    assert names == ["hold", "maildrop"]


@pytest.mark.parametrize("scheme", ["exim", "maildir"])
def test_a_spool_that_goes_away_is_an_error_of_its_own(
    tmp_path: Path, scheme: str
) -> None:
    """It is named like any other; no traceback ends a drain that was fine."""
    root = tmp_path / "spool"
    for part in ("input", "new", "cur"):
        (root / part).mkdir(parents=True)
    source = open_source(f"{scheme}:{root}", options={})
    assert isinstance(source, PartialSource)
    shutil.rmtree(root)
    with pytest.raises(SourceError):
        source.untaken()


@pytest.mark.parametrize(("queues", "code"), [((), 5), (("--queue", "deferred"), 0)])
def test_a_drain_says_so_and_ends_with_5(
    tmp_path: Path, peer: StartPeer, queues: tuple[str, ...], code: int
) -> None:
    """Not when the operator has said what to take."""
    bench = Bench(tmp_path, port=peer().port)
    bench.configure()
    bench.add("a@example.org")
    postfix(bench.spool, "hold")
    drained = bench.run("drain", f"postfix:{bench.spool}", "--no-check", *queues)
    assert drained.code == code, drained
    assert ("--queue hold" in drained.stderr) is (code == 5)


def test_mail_that_postsuper_put_into_maildrop_is_complete(tmp_path: Path) -> None:
    """`postsuper -r` moves queue files there; a submission has no size record."""
    place_postfix(tmp_path, queue_file(), "4ABC1", ("maildrop",))
    submission = record("S", "s@example.org") + record("R", "r@example.org")
    place_postfix(tmp_path, submission, "4ABC2", ("maildrop",))
    foreign = place_postfix(tmp_path, queue_file(), "4ABC3", ("maildrop",))
    os.chown(foreign, 65534, -1)
    source = open_source(f"postfix:{tmp_path}", options={"queues": ["maildrop"]})
    found = {each.message.native_id: each.message.problem for each in source.scan()}
    assert found.pop("4ABC1") is None
    codes = {name: problem.code for name, problem in found.items() if problem}
    assert codes == {"4ABC2": "not-cleaned", "4ABC3": "not-cleaned"}
