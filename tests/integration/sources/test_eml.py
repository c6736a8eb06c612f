"""A folder of .eml files as a source: sidecars, names, and letting go."""

import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from drainer.cli.inspect import facts_of
from drainer.delivery.loader import examine
from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.message import Message
from drainer.policy.admission.admit import Admission
from drainer.sources.eml.source import EmlDirectory
from drainer.sources.postfix.source import PostfixQueue
from drainer.sources.registry import open_source
from tests.support.spools.postfix_files import place, queue_file

HEAD = "X-Envelope-From: <s@example.com>\nX-Envelope-To: r@example.org, q@example.org\n"
TEXT = "Received: from c by mx2\n\tid 1; Mon\nSubject: x\n\nbody\n"
ENVELOPE = {"reverse_path": "t@example.com", "recipients": ["other@example.org"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a folder with one message and something else."""
    root = tmp_path / "export"
    root.mkdir()
    (root / "1.eml").write_text(HEAD + TEXT)
    return root


def only(source: EmlDirectory) -> Message:
    """Return the one message of a folder."""
    (spooled,) = source.scan()
    assert source.open(spooled.message).message == spooled.message
    return spooled.message


def content(source: EmlDirectory) -> bytes:
    """Return the content of the one message."""
    (spooled,) = source.scan()
    return b"".join(spooled.content.chunks())


def code(source: EmlDirectory) -> str:
    """Return the problem of the one message; '' for none."""
    problem = only(source).problem
    return problem.code if problem else ""


def files(root: Path) -> list[str]:
    """Return the names of the files below a folder."""
    return sorted(
        os.fspath(path.relative_to(root)) for path in root.rglob("*") if path.is_file()
    )


def test_the_envelope_on_top_is_read_and_not_sent(root: Path) -> None:
    """X-Envelope-From and X-Envelope-To, or what a delivery agent writes."""
    source = EmlDirectory(root)
    message = only(source)
    assert message.envelope.reverse_path == "s@example.com"
    paths = [each.forward_path for each in message.envelope.recipients]
    assert paths == ["r@example.org", "q@example.org"]
    assert content(source) == TEXT.replace("\n", "\r\n").encode()
    (root / "1.eml").write_text("Return-Path: <>\nDelivered-To: r@example.org\n" + TEXT)
    assert only(source).envelope.reverse_path == ""
    assert content(source) == TEXT.replace("\n", "\r\n").encode()


def test_the_sidecar_wins(root: Path) -> None:
    """Sender, recipients, client; the fields on top are taken off all the same."""
    client = {"address": "192.0.2.7", "helo": "c"}
    more = {"client": client, "login": "u", "arrived": "2026-11-23T17:06:59Z"}
    (root / "1.json").write_text(json.dumps(ENVELOPE | more))
    source = EmlDirectory(root)
    message = only(source)
    assert message.envelope.reverse_path == "t@example.com"
    assert [r.forward_path for r in message.envelope.recipients] == [
        "other@example.org"
    ]
    assert (message.client.address, message.login) == ("192.0.2.7", "u")
    assert message.arrived.isoformat() == "2026-11-23T17:06:59+00:00"
    assert message.problem is None
    assert content(source) == TEXT.replace("\n", "\r\n").encode()


def test_a_message_without_an_envelope_is_held(root: Path) -> None:
    """To and Cc are not asked; a sidecar helps."""
    (root / "1.eml").write_text("To: r@example.org\nSubject: x\n\nbody\n")
    assert code(EmlDirectory(root)) == "no-envelope"
    (root / "1.json").write_text(json.dumps(ENVELOPE))
    assert code(EmlDirectory(root)) == ""


def test_a_bad_sidecar_never_falls_back_to_the_fields(root: Path) -> None:
    """Damaged, a link, a folder, too large: the message is held."""
    sidecar = root / "1.json"
    sidecar.write_text("{")
    assert code(EmlDirectory(root)) == "corrupt"
    sidecar.write_text(" " * (4 * 1024 * 1024 + 1))
    assert code(EmlDirectory(root)) == "corrupt"
    sidecar.unlink()
    (root / "other").write_text(json.dumps(ENVELOPE))
    sidecar.symlink_to("other")
    assert code(EmlDirectory(root)) == "not-a-file"
    sidecar.unlink()
    sidecar.mkdir()
    assert code(EmlDirectory(root)) == "not-a-file"
    sidecar.rmdir()
    os.mkfifo(sidecar)
    assert code(EmlDirectory(root)) == "not-a-file"


def test_recipients_that_are_done_are_left_alone(root: Path) -> None:
    """They do not change the identity, so that the ledger knows the message."""
    both = ["a@example.org", "b@example.org"]
    (root / "1.json").write_text(json.dumps(ENVELOPE | {"recipients": both}))
    first = only(EmlDirectory(root))
    some = {"recipients": both[:1], "done": both[1:]}
    (root / "1.json").write_text(json.dumps(ENVELOPE | some))
    second = only(EmlDirectory(root))
    assert second.id == first.id
    assert second.envelope.done == ("b@example.org",)
    none = {"recipients": [], "done": both}
    (root / "1.json").write_text(json.dumps(ENVELOPE | none))
    assert only(EmlDirectory(root)).id == first.id
    assert code(EmlDirectory(root)) == "done-by-backup"


def test_a_line_of_inspect_is_a_sidecar(tmp_path: Path) -> None:
    """What a Postfix queue holds goes through a folder of .eml files unchanged."""
    text = "Received: by mx2\nSubject: x\n\nbody\n"
    place(tmp_path / "queue", queue_file(text=text.encode()), "2878E21E2F1")
    (spooled,) = PostfixQueue(tmp_path / "queue").scan()
    root = tmp_path / "export"
    root.mkdir()
    (root / "1.eml").write_bytes(b"".join(spooled.content.chunks()))
    facts = facts_of(examine(spooled, Admission(), digest=True))
    (root / "1.json").write_text(json.dumps(facts))
    (again,) = EmlDirectory(root).scan()
    for name in ("envelope", "client", "login", "arrived", "problem", "size_bytes"):
        assert getattr(again.message, name) == getattr(spooled.message, name), name
    assert b"".join(again.content.chunks()) == b"".join(spooled.content.chunks())


def test_other_names_are_passed_over(root: Path) -> None:
    """Hidden files, folders below, sidecars without a message."""
    (root / ".2.eml").write_text(HEAD + TEXT)
    (root / "3.txt").write_text(HEAD + TEXT)
    (root / "4.json").write_text("{}")
    (root / "sub").mkdir()
    (root / "sub" / "5.eml").write_text(HEAD + TEXT)
    assert only(EmlDirectory(root)).native_id == "1"
    (root / "1.eml").rename(root / "1.EML")
    assert only(EmlDirectory(root)).native_id == "1"


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        ("", ["1"]),
        (".msg", ["b"]),
        ("MSG", ["b"]),
        ("none", ["spam-c"]),
        ("any", ["1.eml", "b.msg", "link", "spam-c"]),
    ],
)
def test_files_may_have_any_suffix_or_none(
    root: Path, suffix: str, expected: list[str]
) -> None:
    """Neither sidecars nor hidden files nor folders are messages."""
    for name in ("b.msg", "spam-c", ".hidden", ".drainer"):
        (root / name).write_text(HEAD + TEXT)
    (root / "spam-c.json").write_text(json.dumps(ENVELOPE))
    (root / "folder").mkdir()
    if suffix == "any":
        (root / "link").symlink_to("b.msg")
    query = f"?suffix={suffix}" if suffix else ""
    source = open_source(f"eml:{root}{query}", options={})
    found = {each.message.native_id: each.message for each in source.scan()}
    assert sorted(found) == expected
    if "spam-c" in found:
        assert found["spam-c"].envelope.reverse_path == "t@example.com"
    if "link" in found:
        problem = found["link"].problem
        assert problem is not None
        assert problem.code == "not-a-file"


def test_a_folder_of_other_files_names_the_option(tmp_path: Path) -> None:
    """The objects of Amazon SES have no suffix."""
    (tmp_path / "o3vrnil0e2ic28tr").write_text(HEAD + TEXT)
    with pytest.raises(SourceError) as caught:
        EmlDirectory(tmp_path)
    assert "suffix" in caught.value.hint
    assert len(list(EmlDirectory(tmp_path, suffix="none").scan())) == 1


def test_a_file_of_amazon_ses_names_its_recipient_in_received(root: Path) -> None:
    """Return-Path is on top, and ``for`` in its own Received."""
    text = (
        "Return-Path: <s@example.com>\n"
        "Received: from c (c [192.0.2.7])\n by inbound-smtp.eu-west-1.amazonaws.com"
        " with SMTP id o3vrnil0e2ic28tr\n for r@example.org;\n Mon, 23 Nov 2026"
        " 17:06:59 +0000 (UTC)\nX-SES-Spam-Verdict: PASS\nSubject: x\n\nbody\n"
    )
    (root / "1.eml").write_text(text)
    host = "inbound-smtp.eu-west-1.amazonaws.com"
    (spooled,) = open_source(f"eml:{root}", options={"backup_host": host}).scan()
    envelope = spooled.message.envelope
    assert envelope.reverse_path == "s@example.com"
    assert [each.forward_path for each in envelope.recipients] == ["r@example.org"]


def test_an_empty_folder_is_one_that_was_drained(root: Path) -> None:
    """No error, and nothing to do."""
    (root / "1.eml").unlink()
    assert list(EmlDirectory(root).scan()) == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "corrupt"),
        (b"\x1f\x8b\x08\0\0\0", "corrupt"),
        (b"\x04\x22\x4d\x18", "compressed"),
        (b"A" * 700_000, "corrupt"),
        (b"\xff\xfe\0", "no-envelope"),
        (HEAD.replace("s@", "s\xff@").encode("latin-1"), "bad-address"),
    ],
    ids=["empty", "cut off", "compressed", "endless", "binary", "address"],
)
def test_damage_has_a_name(root: Path, data: bytes, expected: str) -> None:
    """And reading the content raises nothing unknown."""
    (root / "1.eml").write_bytes(data)
    source = EmlDirectory(root)
    assert code(source) == expected
    try:
        content(source)
    except MessageUnreadable as error:
        assert error.code == expected  # noqa: PT017 - some contents can be read


# ---- letting go


def test_a_message_goes_with_its_sidecar(root: Path) -> None:
    """Twice is the same as once, and by default everything stays."""
    (root / "1.json").write_text(json.dumps(ENVELOPE))
    assert not EmlDirectory(root).acknowledges
    source = EmlDirectory(root, acknowledge="remove")
    message = only(source)
    for _ in range(2):
        assert source.acknowledge([message]) == [message.id]
        assert files(root) == []


def test_a_crash_between_file_and_sidecar_is_made_good(root: Path) -> None:
    """The file goes first; then its sidecar, but never another message's."""
    (root / "1.json").write_text(json.dumps(ENVELOPE))
    source = EmlDirectory(root, acknowledge="remove")
    message = only(source)
    (root / "1.eml").unlink()
    (root / "1.json").write_text(json.dumps(ENVELOPE | {"recipients": ["x@a.org"]}))
    assert source.acknowledge([message]) == [message.id]
    assert files(root) == ["1.json"]
    (root / "1.json").write_text(json.dumps(ENVELOPE))
    assert source.acknowledge([message]) == [message.id]
    assert files(root) == []


def test_a_renamed_file_is_the_same_message(root: Path) -> None:
    """A person renames files; what differs behind the first 4 KiB is another."""
    source = EmlDirectory(root, acknowledge="remove")
    message = only(source)
    (root / "1.eml").rename(root / "renamed.eml")
    assert only(EmlDirectory(root)).id == message.id
    with pytest.raises(MessageUnreadable, match="vanished"):
        source.open(message)
    long = HEAD + TEXT + "y" * 10_000
    (root / "renamed.eml").write_text(long + "1\n")
    (root / "other.eml").write_text(long + "2\n")
    assert len({each.message.id for each in source.scan()}) == 2


def test_another_sidecar_makes_it_another_message(root: Path) -> None:
    """Whoever changes the recipients wants it sent to those."""
    source = EmlDirectory(root, acknowledge="remove")
    message = only(source)
    (root / "1.json").write_text(json.dumps(ENVELOPE))
    with pytest.raises(MessageUnreadable, match="vanished"):
        source.open(message)
    assert source.acknowledge([message]) == []
    assert files(root) == ["1.eml", "1.json"]


@pytest.mark.parametrize("locator", ["../export/2.eml", "/etc/passwd", "..", "x/../y"])
def test_a_locator_never_leads_out_of_the_folder(root: Path, locator: str) -> None:
    """The ledger may be old, or somebody else's."""
    source = EmlDirectory(root, acknowledge="remove")
    message = replace(only(source), locator=locator)
    with pytest.raises(MessageUnreadable, match="vanished"):
        source.open(message)
    source.acknowledge([message])
    assert files(root) == ["1.eml"]
