"""What a watch tells of itself: safe to print, once, and not lost when it cannot be."""

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drainer.policy.pacing.overrides import Override, OverrideKind
from drainer.policy.watch.machine import WatchStatus
from drainer.watch.journal import Journal
from drainer.watch.systemd import Notifier

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_a_peers_words_reach_neither_terminal_nor_service_manager_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Controls are escaped, and a long reply is cut."""
    caplog.set_level("INFO")
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(name)
        link.settimeout(5)
        journal = Journal("mx:25", Notifier({"NOTIFY_SOCKET": name}))
        why = "banner: 554 \x1b[31mgo\r\nREADY=1\x00 " + "x" * 5000
        journal.record_change(WatchStatus(since=NOW, why=why), "")
        status = link.recv(10_000).decode()
    for text in (caplog.messages[0], status):
        assert text.isprintable()
        assert "go" in text
        assert len(text) < 400


def test_the_same_complaint_is_logged_once_until_all_was_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else a journal would fill while a primary is down."""
    journal = Journal("mx:25", Notifier({}))
    for text in ("no route", "no route", "refused", "", "refused", "", ""):
        journal.complain(text)
    assert caplog.messages == ["no route", "refused", "refused"]


def test_an_outcome_of_the_check_is_logged_when_it_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Numbers and ids in a reply differ each time: that is no change."""
    caplog.set_level("INFO")
    journal = Journal("mx:25", Notifier({}))
    for problem in ("", "", "451 4.3.0 id 7A1", "451 4.3.0 id 8B2", "554 no", "", ""):
        journal.report_check(problem)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "the primary passes the check"),
        ("WARNING", "the primary is not ready: 451 4.3.0 id 7A1"),
        ("WARNING", "the primary is not ready: 554 no"),
        ("INFO", "the primary passes the check"),
    ]


def test_each_control_is_one_line_that_says_who_and_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A hook, a pause and its end, in the order in which they were given."""
    caplog.set_level("INFO")
    kinds = (OverrideKind.DOWN, OverrideKind.PAUSE, OverrideKind.RESUME)
    Journal("mx:25", Notifier({})).record_overrides(
        Override(at=NOW, ask=kind, by="cli ann", reason="\x1b[2Jbackup")
        for kind in kinds
    )
    assert len(caplog.messages) == len(kinds)
    assert all("cli ann because " in line for line in caplog.messages)
    assert all(line.isprintable() for line in caplog.messages)
