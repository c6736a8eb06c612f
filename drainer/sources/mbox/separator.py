"""The lines that separate the messages of an mbox: their forms and dates; pure.

A separator is a From_ line after an empty line, with a header section behind it. These
forms are in use:

- ``From SENDER asctime-date`` (qmail's mbox(5)), with or without seconds and zone, with
  any text behind it, such as ``remote from HOST`` (RFC 976 2.4);
- the same with a date as in RFC 5322 3.3 or ISO 8601, and ``From bob at host DATE``
  (Mailman's archives);
- ``From - DATE`` and a bare ``From`` (Thunderbird).

A From_ line in other letters or with another blank, and a line of MMDF, are in doubt.

No line that may be a separator is silently content. If one is not understood, or is
not where a separator belongs, drainer reports the doubt, and the messages on both sides
of it are held.
"""

import re
from codecs import BOM_UTF8
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, NamedTuple

MAX_LINE_BYTES = 2560
"""No From_ line is longer: servers take no command of more than 2048 (Postfix)."""

WINDOW_BYTES = 4096
"""Bytes from a line on that decide about it."""

OVERLAP_BYTES = 3000
"""No lookahead of the search for candidates is longer."""

_WEEKDAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = rb"(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = rb"(?P<day>[0-9]{1,2})"
_YEAR = rb"(?P<year>[0-9]{4})"
_TIME = rb"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?"
_ZONE = rb"(?:[A-Z]{1,5}(?:[+-][0-9]{2}:?[0-9]{2})?|[+-][0-9]{2}:?[0-9]{2})"
_ASCTIME = (
    rb"%s {1,3}%s,? {1,3}%s(?P<zone>(?: {1,3}%s){0,2}) {1,3}%s(?P<after>(?: {1,3}%s)?)"
    % (_MONTH, _DAY, _TIME, _ZONE, _YEAR, _ZONE)
)
_END = rb"(?=[ \t]|\Z)"
_WEEKDAY_FIRST = re.compile(rb"(?<= )%s,? {1,3}%s%s" % (_WEEKDAY, _ASCTIME, _END))
"""An asctime date, whatever is before and behind it."""
_ONLY_DATES = tuple(
    re.compile(rb"(?<= )(?:%s,? {1,3})?%s%s" % (_WEEKDAY, form, _END))
    for form in (
        _ASCTIME,
        rb"%s {1,3}%s,? {1,3}%s,? {1,3}%s(?P<zone>(?: %s)?)(?P<after>(?: \([^()]*\))?)"
        % (_MONTH, _DAY, _YEAR, _TIME, _ZONE),  # JavaScript's Date
        rb"%s[ -]%s[ -]%s {1,3}%s(?P<zone>(?: {0,3}%s)?)(?P<after>(?: \([^()]*\))?)"
        % (_DAY, _MONTH, _YEAR, _TIME, _ZONE),
        rb"%s-(?P<month>[0-9]{2})-%s[T ]%s(?:[.,][0-9]{1,9})?(?P<zone>(?: ?%s)?)"
        rb"(?P<after>)" % (_YEAR, _DAY, _TIME, _ZONE),
    )
)
"""Dates that a sentence may contain too: only a sender may be before them."""
_FOUR_DIGITS = re.compile(rb"[0-9]{4}")
_COLON = re.compile(rb"[0-9]:[0-9]")
_SENDER = re.compile(rb'(?:"(?:[^"\\]|\\.)*"@)?[^ \t]+(?: at [^ \t]+)?')
_REMOTE = re.compile(rb"(?: remote from [^ \t]+)?[ \t]*")
_UNKNOWN_DATE = re.compile(rb"- .*(?:[0-9]{1,2}[:.][0-9]{2}|[0-9]{4})")

_CANDIDATE = re.compile(
    rb"From(?:(?<=[\0\r\n]From)(?=(?:[ \t][^\r\n]{0,2560})?(?:(?<=[0-9])[:.][0-9]{2}"
    rb"|(?<= - )[^\r\n]|(?:\r\n|\r|\n)(?:>|[!-9;-~]{1,200}[ \t]*:)))"
    rb"|(?= [^\s]{1,500} {1,3}(?:%s[ ,]|[0-9]{1,4}[ -])[^\r\n]{4,90}[\r\n]))" % _WEEKDAY
)
"""The word, with a time or a dash behind it, or a field or a quote after its line; or
not at the start of a line, with the start of a date behind its second word, and a line
end after it."""
_ODD = (
    rb"(?!From[ \t\r\n])(?i:from)"
    rb"(?=[ \t\v\f\r\n\xa0]|\xc2[\x85\xa0]|\xe2\x80[\x80-\x8f\xaf]|\xe3\x80\x80)"
)
"""The word in other letters, or with a blank behind it that is not an ASCII space."""
_ODD_CANDIDATE = re.compile(rb"\n(?:\x01{4}[\r\n]|%s)" % _ODD)
_LINE = re.compile(
    rb"(?:From(?=[ \t\r\n])|(?P<odd>%s))(?P<rest>[^\r\n]*)(?P<end>\r\n|\n|\r)" % _ODD
)
MMDF_LINE = re.compile(rb"\x01{4}(?:\r\n|\n|\r)")
_QUOTE = re.compile(rb"[\r\n]>+\Z")
"""What makes a From_ line content, or a second one in a header section."""
_UUCP_LINE = re.compile(rb">+From [^\r\n]*(?:\r\n|\n|\r)")
_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:(?!//)[^\r\n]*(?:\r\n|\n|\r|\Z)")
_FOLDED = re.compile(rb"(?:[ \t][^\r\n]*(?:\r\n|\n|\r|\Z))*")
_MAIL_FIELD = re.compile(
    rb"from|to|cc|bcc|date|subject|sender|received|status|lines|path|organization"
    rb"|precedence|importance|priority|keywords|comments|[a-z0-9]+(?:-[a-z0-9_]+)+",
    re.IGNORECASE,
)
_TOP_FIELD = re.compile(
    rb"return-path|received|delivered-to|envelope-to|x-original-to|x-envelope-[a-z]+"
    rb"|x-mozilla-status",
    re.IGNORECASE,
)
_MAX_FIELDS = 20
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_OFFSET = re.compile(rb"([+-])([0-9]{2}):?([0-9]{2})")
_HALF = re.compile(rb" ([AP]M)\b")
_MAX_OFFSET_HOURS = 24


class Separator(NamedTuple):
    """A line at which a message starts, or may start."""

    #: With its line end.
    line: bytes
    #: Why drainer is not sure; '' for a separator that is understood.
    doubt: str = ""


def find_candidate(block: bytes, position: int) -> int:
    """Return where the next line that may separate messages is; -1 if there is none.

    Bytes before the position are looked at, and up to OVERLAP_BYTES behind the result.
    """
    found = _CANDIDATE.search(block, position)
    end = found.start() if found else len(block)
    odd = _ODD_CANDIDATE.search(block, max(position - 1, 0), end)
    if odd:
        return odd.start() + 1
    return end if found else -1


def separator_at(
    before: bytes, window: bytes, *, needs_blank: bool = True
) -> Separator | None:
    """Judge a line by the three bytes before it and the window from it on.

    ``before`` is empty at the top of the file. None for a line that is content. Without
    ``needs_blank`` a separator needs no empty line before it.
    """
    if mmdf := MMDF_LINE.match(window):
        starts_line = before[-1:] in (b"", b"\n")
        return Separator(mmdf[0], "it separates in MMDF") if starts_line else None
    found = _LINE.match(window[:MAX_LINE_BYTES])
    if found is None:
        return None
    is_apart = not before or before.endswith((b"\n\n", b"\n\r\n"))
    is_dated = bool(_date(found["rest"])) or _is_thunderbirds(found["rest"])
    follows = _what_follows(window, found.end())
    doubt = _doubt_of_form(found, follows, is_dated=is_dated, is_apart=is_apart)
    if doubt is None:
        return None
    if before and before[-1:] != b"\n":
        if _QUOTE.search(before):
            return None
        is_sure = before == BOM_UTF8 or (is_dated and follows == "top")
        if before[-1:] not in b"\r\0" and not is_sure:
            return None
        doubt = "it does not start a line"
    elif needs_blank and not is_apart:
        doubt = "no empty line is before it"
    elif found["end"] == b"\r":
        doubt = "it ends in a bare CR"
    return Separator(found[0], doubt)


def _doubt_of_form(
    line: re.Match[bytes], follows: str, *, is_dated: bool, is_apart: bool
) -> str | None:
    """Return what is odd about the form of a line; None for a line that is content."""
    is_mail = follows in ("mail", "top")
    may_be_one = is_mail or (is_apart and follows == "fields")
    if line["odd"] is not None:
        may_be_one &= is_apart
    elif is_dated:
        return "" if follows != "text" else "no header field follows it"
    elif line["rest"].strip(b" ") in (b"", b"-"):
        if line["rest"] and is_mail:
            return ""
        may_be_one |= follows == "field"
    return "its form is not known" if may_be_one else None


def starts_as_mail(window: bytes) -> bool:
    """Return whether a file starts with a header section of mail."""
    return _what_follows(window, 0) in ("mail", "top")


def _date(rest: bytes) -> re.Match[bytes] | None:
    """Return the date of a From_ line, without its first word."""
    if not (_FOUR_DIGITS.search(rest) and _COLON.search(rest)):
        return None
    found = _WEEKDAY_FIRST.search(rest)
    if found:
        return found
    for form in _ONLY_DATES:
        found = form.search(rest)
        if (
            found
            and _SENDER.fullmatch(rest[: found.start()].strip(b" \t"))
            and _REMOTE.fullmatch(rest, found.end())
        ):
            return found
    return None


def _is_thunderbirds(rest: bytes) -> bool:
    return bool(_UNKNOWN_DATE.match(rest.strip(b" \t")))


def _what_follows(window: bytes, position: int) -> str:
    """Return what the lines are: end, blank, text, field, fields, mail or top.

    'mail' has a field that mail has among its first ones; 'fields' are others up to an
    empty line, and 'field' may be a sentence with a colon. 'top' starts with a field
    that a delivery puts on top.
    """
    for _ in range(_MAX_FIELDS):
        line = _UUCP_LINE.match(window, position)
        if not line:
            break
        position = line.end()
    if position >= len(window):
        return "end"
    if window[position : position + 1] in b"\r\n":
        return "blank"
    if not _FIELD.match(window, position) and b"\n" not in window[position:]:
        return "end"  # its writer has not finished this line
    follows = "text"
    for _ in range(_MAX_FIELDS):
        field = _FIELD.match(window, position)
        if not field:
            is_end = window[position : position + 1] in (b"", b"\r", b"\n")
            return "fields" if is_end and follows == "field" else follows
        if follows == "text" and _TOP_FIELD.fullmatch(field[1]):
            return "top"
        if _MAIL_FIELD.fullmatch(field[1]):
            return "mail"
        follows = "field"
        folded = _FOLDED.match(window, field.end())
        position = folded.end() if folded else field.end()
    return "fields"


def parse_arrival(line: bytes) -> datetime | None:
    """Return the date of a From_ line; None if it has none, or an invalid one.

    It is the local time of the server that wrote it (asctime has no zone). Without a
    zone in the line, drainer assumes the zone of this host.
    """
    found = _date(line.rstrip(b"\r\n")[len(b"From") :])
    if not found:
        return None
    month = found["month"].decode()
    number = int(month) if month.isdecimal() else _MONTHS.index(month) + 1
    year, day, hour, minute, second = (
        int(found[name] or 0) for name in ("year", "day", "hour", "minute", "second")
    )
    if half := _HALF.search(found["zone"]):
        hour = hour % 12 + (12 if half[1] == b"PM" else 0)
    try:
        local = datetime(year, number, day, hour, minute, second)  # noqa: DTZ001
        zone = _zone(found["zone"] + found["after"])
        return (local.replace(tzinfo=zone) if zone else local).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _zone(text: bytes) -> timezone | None:
    offset = _OFFSET.search(text)
    if offset:
        hours, minutes = int(offset[2]), int(offset[3])
        if hours < _MAX_OFFSET_HOURS:
            delta = timedelta(hours=hours, minutes=minutes)
            return timezone(-delta if offset[1] == b"-" else delta)
    return UTC if text.strip() in (b"UTC", b"GMT", b"Z") else None
