"""Header fields about automatic replies: reports, robots, lists; pure.

Anyone may write these fields. They can only prevent a bounce, so a forged one harms
only its author.
"""

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from drainer.mail.envelope import NULL_SENDER
from drainer.mail.header import fields_of, remove_comments, unfold

LOOP_FIELD = "X-Drainer-Report"
"""The field of our own reports."""

_MAX_VALUE = 1000
_REPORT_TYPES = (
    "multipart/report",
    "message/delivery-status",
    "message/global-delivery-status",
    "message/disposition-notification",
    "message/global-disposition-notification",
)
_LIST_FIELDS = ("list-id", "list-post", "list-unsubscribe")
_SPAM_FIELDS = ("x-spam-flag", "x-spam-status", "x-spam")
_VIRUS_FIELDS = ("x-virus-status", "x-virus-scanned", "x-amavis-alert")
_SAYS_YES = re.compile(r"^\s*(yes|true|spam)\b", re.IGNORECASE)
_SAYS_VIRUS = re.compile(r"\b(infected|infection|virus found|malware)\b", re.IGNORECASE)
_WORD = re.compile(r"\s*([A-Za-z0-9-]+)")


class ListMarkers(Struct, frozen=True, kw_only=True):
    """What the header says; '' = it says nothing."""

    #: What shows that it is a report itself.
    report: str = ""
    #: RFC 3834 5, in lower case.
    auto_submitted: str = ""
    #: X-Auto-Response-Suppress asks for no reports.
    suppressed: bool = False
    #: In lower case.
    precedence: str = ""
    is_list: bool = False
    #: The field that marks it as spam, or a virus.
    spam: str = ""
    virus: str = ""


def marks_of(head: bytes) -> ListMarkers:
    """Return the marks of a header section (CRLF or LF line ends)."""
    values: dict[str, list[str]] = {}
    for each in fields_of(head):
        values.setdefault(each.name, []).append(unfold(each.value)[:_MAX_VALUE])
    suppress = ",".join(values.get("x-auto-response-suppress", ())).lower()
    asked = {part.strip() for part in suppress.split(",")}
    return ListMarkers(
        report=_report(values),
        auto_submitted=_first_word(values, "auto-submitted"),
        suppressed=bool(asked & {"all", "ndr"}),
        precedence=_first_word(values, "precedence"),
        is_list=any(name in values for name in _LIST_FIELDS),
        spam=_which(values, _SPAM_FIELDS, _SAYS_YES),
        virus=_which(values, _VIRUS_FIELDS, _SAYS_VIRUS),
    )


def _report(values: Mapping[str, Sequence[str]]) -> str:
    for value in values.get("content-type", ()):
        kind = remove_comments(value).partition(";")[0].strip().lower()
        if kind in _REPORT_TYPES:
            return f"Content-Type: {kind}"
    for name in ("x-failed-recipients", LOOP_FIELD.lower()):
        if name in values:
            return name
    paths = [value.strip() for value in values.get("return-path", ())]
    return "Return-Path: <>" if f"<{NULL_SENDER}>" in paths else ""


def _first_word(values: Mapping[str, Sequence[str]], name: str) -> str:
    """Return the word of a field; if several disagree, the one that is not `no`."""
    words = []
    for value in values.get(name, ()):
        match = _WORD.match(remove_comments(value))
        words.append(match[1].lower() if match else "unreadable")
    return next((word for word in words if word != "no"), words[0] if words else "")


def _which(
    values: Mapping[str, Sequence[str]],
    names: Sequence[str],
    pattern: re.Pattern[str],
) -> str:
    for name in names:
        if any(pattern.search(value) for value in values.get(name, ())):
            return name
    return ""
