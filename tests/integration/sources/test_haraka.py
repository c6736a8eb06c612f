"""Our reading of a real Haraka's queue, and of damaged ones."""

import os
from pathlib import Path

import pytest

from drainer.errors import SourceError, UsageError
from drainer.sources.haraka.source import HarakaQueue
from tests.support.spools.queue_kits import HarakaKit, haraka_file, todo
from tests.support.spools.queue_oracle import delivered, lay_out, read

KIT = HarakaKit()
GOOD = haraka_file(todo("u"), b"Subject: x\r\n\r\nbody\r\n")


def codes(root: Path) -> dict[str, str]:
    """Return the problem of every message by its file name, '' for none."""
    return {
        each.message.locator: each.message.problem.code if each.message.problem else ""
        for each in HarakaQueue(root).scan()
    }


def test_what_we_read_is_what_haraka_sent(tmp_path: Path) -> None:
    """Envelope and content, without the dots of the wire."""
    source = HarakaQueue(lay_out("haraka", tmp_path / "queue"))
    assert read(source) == delivered("haraka")
    for spooled in source.scan():
        message = spooled.message
        assert message.flags == ("attempted",)
        assert message.native_id.endswith(".1.1")
        assert message.arrived.year == 2026


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "corrupt"),
        (GOOD[:2], "corrupt"),
        (GOOD[:50], "corrupt"),
        (b"\xff\xff\xff\xff" + GOOD[4:], "corrupt"),
        (b"\0\0\0\x08" + GOOD[4:], "corrupt"),
        (haraka_file([], b"x\r\n"), "corrupt"),
        (haraka_file({**todo("u"), "mail_from": {"user": "x"}}, b"x"), "bad-address"),
        (haraka_file({**todo("u"), "rcpt_to": []}, b"x\r\n"), "done-by-backup"),
        (haraka_file(todo("u"), b""), "corrupt"),
    ],
)
def test_damage_is_listed_and_the_rest_goes_on(
    tmp_path: Path, data: bytes, code: str
) -> None:
    """No exception, no silence."""
    good = KIT.write(tmp_path, b"GOOD", "x")
    (tmp_path / "bad").write_bytes(data)
    assert codes(tmp_path) == {good.name: "", "bad": code}


def test_temporary_and_set_aside_files_are_visible(tmp_path: Path) -> None:
    """Haraka passes over them; we say so."""
    name = KIT.write(tmp_path, b"X", "x").name
    for prefix in ("__tmp__.", ".", "error."):
        (tmp_path / f"{prefix}{name}").write_bytes(GOOD)
    assert codes(tmp_path) == {
        name: "",
        f"__tmp__.{name}": "incomplete",
        f".{name}": "incomplete",
        f"error.{name}": "marked-corrupt",
    }


def test_files_of_several_domains_are_several_messages(tmp_path: Path) -> None:
    """They share uuid, sender and content."""
    tmp_path = tmp_path / "queue"
    tmp_path.mkdir()
    for domain in ("a.example", "b.example"):
        recipient = {"user": "r", "host": domain}
        values = {**todo("u"), "rcpt_to": [recipient]}
        (tmp_path / domain).write_bytes(haraka_file(values, b"x\r\n"))
    assert len({each.message.id for each in HarakaQueue(tmp_path).scan()}) == 2


def test_a_process_that_holds_files_is_noticed(tmp_path: Path) -> None:
    """Its number stands in the names of the files."""
    path = KIT.write(tmp_path, b"X", "x")
    HarakaQueue(tmp_path).refuse_if_live()
    own = Path("/proc/self/comm")
    before = own.read_text()
    path.rename(path.with_name(path.name.replace("99999999", str(os.getpid()))))
    try:
        own.write_text("haraka")
        with pytest.raises(UsageError, match="Haraka"):
            HarakaQueue(tmp_path).refuse_if_live()
    finally:
        own.write_text(before)
    HarakaQueue(tmp_path).refuse_if_live()


def test_the_folder_below_is_named(tmp_path: Path) -> None:
    """Somebody may give the configuration's folder."""
    (tmp_path / "queue").mkdir()
    with pytest.raises(SourceError) as caught:
        HarakaQueue(tmp_path)
    assert f"haraka:{tmp_path}/queue" in caught.value.hint
