"""What a header says about being answered."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.list_markers import ListMarkers, marks_of


@pytest.mark.parametrize(
    ("head", "marks"),
    [
        (b"", {}),
        (b"Subject: x", {}),
        (b"Content-Type: multipart/report; report-type=delivery-status",
         {"report": "Content-Type: multipart/report"}),
        (b"Content-Type:\r\n Multipart/REPORT\r\n ; boundary=x",
         {"report": "Content-Type: multipart/report"}),
        (b"Content-Type: (x) message/disposition-notification",
         {"report": "Content-Type: message/disposition-notification"}),
        (b"Content-Type: text/plain\r\nContent-Type: message/delivery-status",
         {"report": "Content-Type: message/delivery-status"}),
        (b"Content-Type: multipart/mixed; x=multipart/report", {}),
        (b"X-Failed-Recipients: a@b.example", {"report": "x-failed-recipients"}),
        (b"X-Drainer-Report: mx2.example", {"report": "x-drainer-report"}),
        (b"Return-Path: <>", {"report": "Return-Path: <>"}),
        (b"Return-Path: <a@b.example>", {}),
        (b"Auto-Submitted: no", {"auto_submitted": "no"}),
        (b"Auto-Submitted: Auto-Replied (vacation)",
         {"auto_submitted": "auto-replied"}),
        (b"Auto-Submitted: (no) auto-generated; x=y",
         {"auto_submitted": "auto-generated"}),
        (b"Auto-Submitted: no\r\nAuto-Submitted: auto-notified",
         {"auto_submitted": "auto-notified"}),
        (b"Auto-Submitted: ?", {"auto_submitted": "unreadable"}),
        (b"X-Auto-Response-Suppress: DR, NDR, OOF", {"suppressed": True}),
        (b"X-Auto-Response-Suppress: All", {"suppressed": True}),
        (b"X-Auto-Response-Suppress: OOF, AutoReply", {}),
        (b"Precedence: Bulk", {"precedence": "bulk"}),
        (b"List-Id: <l.example>", {"is_list": True}),
        (b"List-Post: <mailto:l@x.example>", {"is_list": True}),
        (b"X-Spam-Flag: YES", {"spam": "x-spam-flag"}),
        (b"X-Spam-Flag: NO", {}),
        (b"X-Spam-Status: Yes, score=9", {"spam": "x-spam-status"}),
        (b"X-Spam-Status: No, score=1 (yes)", {}),
        (b"X-Virus-Status: Infected (Eicar)", {"virus": "x-virus-status"}),
        (b"X-Virus-Scanned: by amavis", {}),
        (b"X-Virus-Status: Clean", {}),
    ],
)  # fmt: skip
def test_marks(head: bytes, marks: dict[str, Any]) -> None:
    """One field each, folded or commented as mail is."""
    assert marks_of(head + b"\r\n") == ListMarkers(**marks)
    assert marks_of(head.replace(b"\r\n", b"\n") + b"\n") == ListMarkers(**marks)


@given(st.binary(max_size=200))
def test_any_header_has_marks(head: bytes) -> None:
    """Nothing raises."""
    for name in (b"Auto-Submitted: ", b"Content-Type: ", b"X-Spam-Status: "):
        marks_of(name + head)
