"""Our reading of qmail queues, laid out by hand as its documentation says.

There is no package of qmail in Debian to make samples with.
"""

import fcntl
from collections.abc import Mapping
from pathlib import Path

import pytest

from drainer.errors import SourceError, UsageError
from drainer.sources.qmail.source import QmailQueue
from tests.support.spools.queue_kits import QmailKit, lay_out_qmail

KIT = QmailKit()
CONTENT = b"Received: (qmail 1 invoked by uid 2); 1 Jan\nSubject: x\n\nbody"
WHOLE = {"info": b"Fs@x.example\0", "remote": b"Tr@x.example\0", "mess": CONTENT}


def codes(root: Path) -> dict[str, str]:
    """Return the problem of every message, '' for none."""
    return {
        each.message.native_id: each.message.problem.code
        if each.message.problem
        else ""
        for each in QmailQueue(root).scan()
    }


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (WHOLE, ""),
        ({"mess": CONTENT}, "incomplete"),
        ({"mess": CONTENT, "intd": b"u1\0p1\0Fs@x.example\0"}, "incomplete"),
        ({"mess": CONTENT, "remote": b"Tr@x.example\0"}, "incomplete"),
        ({"mess": CONTENT, "todo": b"Fs@x.example\0Tr@x.example\0"}, ""),
        ({**WHOLE, "todo": b"Fs@x.example\0Tr@x.example"}, "corrupt"),
        ({**WHOLE, "info": b""}, "corrupt"),
        ({**WHOLE, "mess": b""}, "corrupt"),
        ({**WHOLE, "remote": b"Dr@x.example\0"}, "done-by-backup"),
        ({**WHOLE, "local": b"Tp-r@x.example\0"}, "local-delivery"),
    ],
)
def test_each_state_of_a_message_is_listed(
    tmp_path: Path, files: Mapping[str, bytes], code: str
) -> None:
    """And the rest goes on."""
    KIT.write(tmp_path, b"1", "x")
    lay_out_qmail(tmp_path, "2", dict(files))
    assert codes(tmp_path) == {"1": "", "2": code}


def test_todo_counts_before_what_was_split(tmp_path: Path) -> None:
    """qmail-send would make the other files anew."""
    todo = b"u1\0p1\0Fs@x.example\0Ta@x.example\0Tb@x.example\0"
    lay_out_qmail(tmp_path, "2", {**WHOLE, "todo": todo})
    (spooled,) = QmailQueue(tmp_path).scan()
    paths = [each.forward_path for each in spooled.message.envelope.recipients]
    assert paths == ["a@x.example", "b@x.example"]


def test_the_id_stays_when_recipients_are_finished(tmp_path: Path) -> None:
    """They are marked in place."""
    lay_out_qmail(tmp_path, "2", {**WHOLE, "remote": b"Ta@x.example\0Tb@x.example\0"})
    (before,) = QmailQueue(tmp_path).scan()
    lay_out_qmail(tmp_path, "2", {"remote": b"Da@x.example\0Tb@x.example\0"})
    (after,) = QmailQueue(tmp_path).scan()
    assert after.message.id == before.message.id
    assert after.message.envelope.done == ("a@x.example",)


def test_removal_takes_every_file_and_may_be_repeated(tmp_path: Path) -> None:
    """A crash after the envelope went leaves a content that nobody sends."""
    files = {**WHOLE, "local": b"Dq@x.example\0"}
    lay_out_qmail(tmp_path, "2", files)
    source = KIT.open(tmp_path, drops=True)
    (spooled,) = source.scan()
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    lay_out_qmail(tmp_path, "2", {"mess": CONTENT})
    assert source.acknowledge([spooled.message]) == [spooled.message.id]


def test_a_report_that_is_due_keeps_the_message(tmp_path: Path) -> None:
    """The sender would never hear of the recipients that failed."""
    lay_out_qmail(tmp_path, "2", {**WHOLE, "bounce": b"<q@x.example>: no\n"})
    source = KIT.open(tmp_path, drops=True)
    (spooled,) = source.scan()
    assert spooled.message.flags == ("undelivered-report",)
    assert source.acknowledge([spooled.message]) == []
    assert codes(tmp_path) == {"2": ""}


def test_a_running_qmail_send_is_noticed(tmp_path: Path) -> None:
    """It holds lock/sendmutex for life."""
    KIT.write(tmp_path, b"1", "x")
    (tmp_path / "lock").mkdir()
    path = tmp_path / "lock" / "sendmutex"
    path.touch()
    QmailQueue(tmp_path).refuse_if_live()
    with path.open("wb") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="qmail-send"):
            QmailQueue(tmp_path).refuse_if_live()


def test_the_folder_below_is_named(tmp_path: Path) -> None:
    """Somebody may give /var/qmail."""
    (tmp_path / "queue" / "mess").mkdir(parents=True)
    with pytest.raises(SourceError) as caught:
        QmailQueue(tmp_path)
    assert caught.value.hint.endswith(f"qmail:{tmp_path}/queue")
