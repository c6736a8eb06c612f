"""Mail in an mbox, an archive, .eml files or an export goes out once, and stays."""

import shutil
import tarfile
from pathlib import Path

import pytest

from tests.contract.test_sources import tree
from tests.support.command.installed import Drainer, write_maildir
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, per_recipient
from tests.support.spools.store_kits import FROM, TOP, dump, list_line, pack, text

COUNT = 12


def mbox(folder: Path) -> str:
    """Lay out an mbox of COUNT messages; return its URL."""
    mails = [
        FROM + TOP.replace("r@", f"user{n}@") + text(f"m{n}", "body") + "\n"
        for n in range(COUNT)
    ]
    (folder / "mbox").write_text("".join(mails))
    return f"mbox:{folder / 'mbox'}"


def eml(folder: Path) -> str:
    """Lay out .eml files, every second one with a sidecar."""
    (folder / "eml").mkdir()
    for n in range(COUNT):
        top = TOP.replace("r@", f"user{n}@")
        if n % 2:
            top = ""
            sidecar = f'{{"reverse_path": "", "recipients": ["user{n}@example.org"]}}'
            (folder / "eml" / f"{n}.json").write_text(sidecar)
        (folder / "eml" / f"{n}.eml").write_text(top + text(f"m{n}", "body"))
    return f"eml:{folder / 'eml'}"


def postcat(folder: Path) -> str:
    """Lay out an export of Postfix's tools."""
    (folder / "export").mkdir()
    with (folder / "export" / "queue.json").open("w") as queue:
        for n in range(COUNT):
            address = f"user{n}@example.org"
            printed = dump(f"2878E{n}", text(f"m{n}", "body"))
            printed = printed.replace("r@example.org", address)
            (folder / "export" / f"2878E{n}.txt").write_text(printed)
            queue.write(list_line(f"2878E{n}", recipients=[{"address": address}]))
    return f"postcat:{folder / 'export'}"


def packed(folder: Path) -> str:
    """Pack a Maildir."""
    write_maildir(folder / "packed" / "backup", COUNT)
    pack(folder / "packed", folder / "export.tar.zst")
    shutil.rmtree(folder / "packed")
    return f"maildir:{folder / 'export.tar.zst'}"


@pytest.mark.parametrize("lay_out", [mbox, eml, postcat, packed])
def test_a_store_is_drained_once_and_kept(tmp_path: Path, lay_out: object) -> None:
    """What was deferred goes with the next run, and the marker alone is new."""
    assert callable(lay_out)
    (tmp_path / "mail").mkdir()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    url = lay_out(tmp_path / "mail")
    before = tree(tmp_path / "mail")
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment["TMPDIR"] = str(temporary)
    busy = Script(rcpt=per_recipient({"user5@example.org": "450 4.2.1 busy"}))
    with PeerThread(busy) as primary:
        first = drainer.drain(url, primary.port, "--give-up-after", "0s")
        assert first.code == 5, first
        assert len(primary.accepted) == COUNT - 1
        primary.script = Script()
        drainer.run("requeue", "--state", "deferred", "--reason", "it is well")
        second = drainer.drain(url, primary.port)
        assert second.code == 0, second
        assert primary.accepted[-1].forward_paths == ["user5@example.org"]
        assert len(primary.accepted) == COUNT
    assert set(drainer.states().values()) == {"delivered"}
    [marker] = (tmp_path / "mail").rglob("*.drainer")
    after = tree(tmp_path / "mail")
    assert set(after) - set(before) == {marker}
    assert {p: after[p] for p in before if p.is_file()} == {
        p: facts for p, facts in before.items() if p.is_file()
    }
    assert list(temporary.iterdir()) == []


def test_an_archive_and_its_folder_hold_the_same_messages(tmp_path: Path) -> None:
    """Whoever unpacks it by hand later sends nothing twice."""
    write_maildir(tmp_path / "packed" / "backup", COUNT)
    pack(tmp_path / "packed", tmp_path / "export.zip")
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread(Script()) as primary:
        done = drainer.drain(f"maildir:{tmp_path}/export.zip", primary.port)
        assert done.code == 0, done
        folder = f"maildir:{tmp_path}/packed/backup?ack=keep"
        done = drainer.drain(folder, primary.port)
        assert done.code == 0, done
        assert len(primary.accepted) == COUNT


def test_a_link_in_an_archive_is_held_and_what_leads_out_is_refused(
    tmp_path: Path,
) -> None:
    """A hostile archive: the member is listed, or exit status 2 with its name."""
    path = tmp_path / "x.tar"
    folder = tmp_path / "mail"
    write_maildir(folder, 1)
    (folder / "cur" / "link").symlink_to("/etc/passwd")
    pack(tmp_path / "mail", path)
    drainer = Drainer(tmp_path / "ledger.db")
    done = drainer.run("inspect", f"maildir:{path}", "--json")
    assert done.code == 0
    codes = {each["native_id"]: each["problem"] for each in done.objects}
    assert codes["link"]["code"] == "not-a-file"
    assert "symbolic link: 1" in done.stderr
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("mail/cur/../../../x"))
    done = drainer.run("inspect", f"maildir:{path}")
    assert done.code == 2
    assert "mail/cur/../../../x" in done.stderr
    assert "contains .." in done.stderr
