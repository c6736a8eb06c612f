"""Our reading of real Postfix queue files against Postfix's own postcat."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from drainer.errors import SourceError, UsageError
from drainer.mail.envelope import Recipient, quote_mailbox
from drainer.mail.message import Message, SpooledMessage
from drainer.sources.common.files import unescape_name
from drainer.sources.postfix.layout import QUEUES
from drainer.sources.postfix.source import PostfixQueue
from tests.support.mta.postfix import PrivatePostfix, program
from tests.support.spools.samples import (
    Oracle,
    Sample,
    lay_out_postfix,
    postfix_samples,
)

SAMPLES = {
    name: sample
    for name, sample in postfix_samples().items()
    if name.partition("/")[0] in QUEUES
}
SOUND = {name: sample for name, sample in SAMPLES.items() if sample["oracle"]}


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out the sample queue as it lay on the backup."""
    return lay_out_postfix(tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="module")
def found(spool: Path) -> dict[str, SpooledMessage]:
    """Return what we read from the sample queue, by path."""
    source = PostfixQueue(spool, queues=QUEUES)
    return {unescape_name(each.message.locator): each for each in source.scan()}


def by_case(samples: dict[str, Sample]) -> list[object]:
    """Return test parameters that are named by what the sample shows."""
    return [pytest.param(name, id=each["case"]) for name, each in samples.items()]


def oracle_of(name: str) -> Oracle:
    """Return what postcat said about a sound sample when it was made."""
    oracle = SOUND[name]["oracle"]
    assert oracle is not None
    return oracle


NOTIFY = {1: "NEVER", 2: "SUCCESS", 4: "FAILURE", 8: "DELAY"}


def expected_recipients(oracle: Oracle) -> tuple[Recipient, ...]:
    """Return the recipients by the oracle: each forward path once."""
    if "redirect_to" in oracle:
        first = oracle["recipients"][0]
        original = first.get("orcpt") or f"rfc822;{first.get('original')}"
        return (Recipient(forward_path=oracle["redirect_to"], orcpt=original),)
    recipients: dict[str, Recipient] = {}
    for each in oracle["recipients"]:
        path = quote_mailbox(each["address"])
        flags = int(each.get("notify", "0"))
        notify = tuple(name for bit, name in NOTIFY.items() if flags & bit)
        recipient = Recipient(
            forward_path=path, orcpt=each.get("orcpt", ""), notify=notify
        )
        recipients.setdefault(path, recipient)
    return tuple(recipients.values())


def test_every_file_of_the_queue_is_listed(found: dict[str, SpooledMessage]) -> None:
    """None is missing, and nothing else is taken for a message."""
    assert set(found) == set(SAMPLES)
    assert len({each.message.id for each in found.values()}) == len(SAMPLES)


@pytest.mark.parametrize("name", by_case(SOUND))
def test_the_envelope_is_what_postcat_reads(
    found: dict[str, SpooledMessage], name: str
) -> None:
    """Sender, recipients with their parameters, done ones, times, client."""
    oracle, message = oracle_of(name), found[name].message
    attributes, envelope = oracle["attributes"], message.envelope
    sender = oracle["sender"]
    assert envelope.reverse_path == (quote_mailbox(sender) if sender else "")
    assert envelope.recipients == expected_recipients(oracle)
    assert envelope.done == tuple(dict.fromkeys(map(quote_mailbox, oracle["done"])))
    assert envelope.verp == oracle.get("verp_delimiters", "")
    assert envelope.envid == attributes.get("envelope_id", "")
    assert envelope.body == attributes.get("encoding", "")
    assert envelope.smtputf8 == bool(oracle.get("sendopts", 0) & 1)
    arrived = datetime.fromisoformat(oracle["arrived"])
    assert message.arrived.replace(microsecond=0) == arrived
    assert message.login == attributes.get("sasl_username", "")
    check_client(message, attributes)


def check_client(message: Message, attributes: dict[str, str]) -> None:
    """Compare the client with the attributes of its record."""
    address = attributes.get("log_client_address", "").removeprefix("IPv6:")
    assert message.client.address == address
    for ours, theirs in (
        (message.client.name, "log_client_name"),
        (message.client.helo, "log_helo_name"),
    ):
        expected = attributes.get(theirs, "")
        assert ours == ("" if expected == "unknown" else expected)


@pytest.mark.parametrize("name", by_case(SOUND))
def test_the_content_is_what_postcat_reads(
    found: dict[str, SpooledMessage], name: str
) -> None:
    """Octet for octet, apart from the line ends, which are CRLF for the wire."""
    oracle = oracle_of(name)
    content = b"".join(found[name].content.chunks())
    text = re.sub(rb"\r\n", b"\n", content)
    assert len(content) == found[name].message.size_bytes
    assert hashlib.sha256(text).hexdigest() == oracle["sha256"]
    assert len(text) == oracle["size"]


@pytest.mark.parametrize("name", by_case(SAMPLES))
def test_a_file_that_cannot_be_replayed_has_its_problem(
    found: dict[str, SpooledMessage], name: str
) -> None:
    """Damage and what the backup still wanted are named; all else is free of it."""
    sample, message = SAMPLES[name], found[name].message
    oracle = sample["oracle"]
    expected = {
        "killed during reception": "incomplete",
        "truncated": "corrupt",
    }.get(sample["case"], "")
    if oracle and "content_filter" in oracle:
        expected = "filter-due"
    if oracle and not oracle["recipients"]:
        expected = "done-by-backup"
    if name.startswith("maildrop/") and not sample["case"].startswith("requeued"):
        expected = "not-cleaned"
    assert (message.problem.code if message.problem else "") == expected
    assert ("hold" in message.flags) == name.startswith("hold/")
    assert ("redirect" in message.flags) == bool(oracle and "redirect_to" in oracle)
    assert ("forced-expire" in message.flags) == (sample["mode"] == "0710")


def test_bounce_logs_are_noticed(spool: Path, found: dict[str, SpooledMessage]) -> None:
    """Recipients whose report is still pending are flagged on their message."""
    pending = {path.name for path in (spool / "bounce").rglob("*") if path.is_file()}
    flagged = {
        each.message.native_id
        for each in found.values()
        if "undelivered-report" in each.message.flags
    }
    names = {each.message.native_id for each in found.values()}
    assert flagged == pending & names


def test_postcat_of_this_host_agrees(
    spool: Path, found: dict[str, SpooledMessage], tmp_path: Path
) -> None:
    """The installed Postfix shows the same contents as we read, file after file."""
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text("")
    command = [program("postcat"), "-c", str(tmp_path), "-bh"]
    command += [str(spool / name) for name in SOUND]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    contents = (b"".join(found[name].content.chunks()) for name in SOUND)
    assert b"".join(contents).replace(b"\r\n", b"\n") == done.stdout


# ---- a running Postfix


def test_a_running_master_is_noticed_and_refused(
    backup_postfix: Callable[..., PrivatePostfix], tmp_path: Path
) -> None:
    """Its own queue is refused with what to do, a copy of it is not."""
    postfix = backup_postfix()
    source = PostfixQueue(postfix.queue_dir)
    assert source.master_runs()
    with pytest.raises(UsageError) as caught:
        source.refuse_if_live()
    assert "postfix stop" in caught.value.hint
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in ("pid", "deferred"):
        shutil.copytree(postfix.queue_dir / part, copy / part)
    assert not PostfixQueue(copy).master_runs()
    PostfixQueue(copy).refuse_if_live()
    postfix.stop()
    assert not source.master_runs()


# ---- removing


def test_removing_takes_the_logs_along_and_spares_pending_reports(
    tmp_path: Path,
) -> None:
    """The defer and trace logs go with the message; with a bounce log it stays."""
    spool = lay_out_postfix(tmp_path / "spool")
    source = PostfixQueue(spool, queues=QUEUES, acknowledge="remove")
    messages = [each.message for each in source.scan()]
    reported = {each.id for each in messages if "undelivered-report" in each.flags}
    done = set(source.acknowledge(messages))
    assert done == {each.id for each in messages} - reported
    left = {each.native_id for each in messages if each.id in reported}
    left |= {path.name for path in (spool / "maildrop").iterdir()}  # was not listed
    for queue in (*QUEUES, "defer", "trace"):
        files = [path for path in (spool / queue).rglob("*") if path.is_file()]
        assert {path.name for path in files} <= left
    assert sorted(source.acknowledge(messages)) == sorted(done)
    assert reported == {each.message.id for each in source.scan()}


def test_a_queue_that_is_a_link_is_named_as_one(tmp_path: Path) -> None:
    """Linux says that it is no directory, which it seems to be."""
    (tmp_path / "elsewhere").mkdir()
    queue = tmp_path / "queue"
    queue.mkdir()
    (queue / "deferred").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="deferred: it is a symbolic link") as found:
        list(PostfixQueue(queue).scan())
    assert "not followed" in found.value.hint
