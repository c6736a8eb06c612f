"""Our reading of a real smtpd's spool, and of damaged ones."""

from pathlib import Path

import pytest

from drainer.errors import SourceError
from drainer.sources.opensmtpd.source import OpensmtpdQueue
from tests.support.spools.queue_kits import ENVELOPE, OpensmtpdKit
from tests.support.spools.queue_oracle import delivered, lay_out, read

KIT = OpensmtpdKit()


def codes(root: Path) -> dict[str, str]:
    """Return the problem of every message, '' for none."""
    return {
        each.message.native_id: each.message.problem.code
        if each.message.problem
        else ""
        for each in OpensmtpdQueue(root).scan()
    }


def test_what_we_read_is_what_smtpd_sent(tmp_path: Path) -> None:
    """Envelopes, DSN parameters and content; each recipient by itself."""
    source = OpensmtpdQueue(lay_out("opensmtpd", tmp_path / "smtpd"))
    assert read(source) == delivered("opensmtpd")
    found = [each.message for each in source.scan()]
    assert len({each.id for each in found}) == len(found)
    assert all(each.client.address == "127.0.0.1" for each in found)
    assert all(len(each.native_id) == 16 for each in found)


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"\x1f\x8b\x08\0", "compressed"), (b"\x01x", "compressed"), (b"", "corrupt")],
)
def test_a_content_that_is_no_text_is_reported(
    tmp_path: Path, content: bytes, code: str
) -> None:
    """The envelope may be plain all the same."""
    path = KIT.write(tmp_path, b"X", "x")
    path.with_name("message").write_bytes(content)
    assert codes(tmp_path) == {"X": code}


def test_a_missing_content_is_reported(tmp_path: Path) -> None:
    """And so is one that is a link."""
    path = KIT.write(tmp_path, b"X", "x").with_name("message")
    path.unlink()
    assert codes(tmp_path) == {"X": "corrupt"}
    path.symlink_to("/etc/passwd")
    assert codes(tmp_path) == {"X": "not-a-file"}


def test_what_smtpd_set_aside_is_listed(tmp_path: Path) -> None:
    """It is not sent; incoming and purge are not read."""
    path = KIT.write(tmp_path, b"X", "x")
    for name in ("corrupt", "incoming", "purge"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "abc").mkdir()
        (folder / "abc" / f"{name}1").write_text(ENVELOPE)
        (folder / "abc" / "message").write_text("y\n")
    (path.parents[1] / "stray").write_text("?")
    assert codes(tmp_path) == {
        "X": "",
        "corrupt1": "marked-corrupt",
        "stray": "corrupt",
    }


def test_the_content_goes_with_its_last_recipient(tmp_path: Path) -> None:
    """Each envelope is a message; they share the content."""
    path = KIT.write(tmp_path, b"X", "x")
    other = ENVELOPE.replace("dest: r@", "dest: q@")
    path.with_name("Y").write_text(other)
    source = KIT.open(tmp_path, drops=True)
    first, second = (each.message for each in source.scan())
    assert first.id != second.id
    assert source.acknowledge([first]) == [first.id]
    assert path.with_name("message").exists()
    assert source.acknowledge([first, second]) == [first.id, second.id]
    assert not path.parent.exists()


def test_the_folder_above_is_named(tmp_path: Path) -> None:
    """Somebody may give the queue itself."""
    KIT.write(tmp_path, b"X", "x")
    with pytest.raises(SourceError) as caught:
        OpensmtpdQueue(tmp_path / "queue")
    assert caught.value.hint.endswith(f"opensmtpd:{tmp_path}")
