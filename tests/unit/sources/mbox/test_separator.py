"""Which lines of an mbox separate messages, and which ones are in doubt."""

from codecs import BOM_UTF8

import pytest

from drainer.sources.mbox.separator import (
    Separator,
    find_candidate,
    parse_arrival,
    separator_at,
)

HEADER = b"Return-Path: <s@example.com>\n"
BLANK = b"x\n\n"


def doubt(line: bytes, after: bytes = HEADER, before: bytes = BLANK) -> str | None:
    """Return the doubt about a line; None if it is content."""
    found = separator_at(before, line + after)
    return found.doubt if found else None


@pytest.mark.parametrize(
    "line",
    [
        b"From a@b Mon Nov 23 17:06:59 2026\n",
        b"From a@b  Mon Nov  3 17:06:59 2026\n",
        b"From a@b Mon Nov 23 17:06 2026\n",
        b"From a@b Mon Nov 23 17:06:59 CET 2026\n",
        b"From a@b Mon Nov 23 17:06:59 2026 +0100\n",
        b"From a@b Mon Nov 23 17:06:59 +0100 2026\n",
        b"From a@b Mon Nov 23 17:06:59 2026 remote from uucp\n",
        b"From a@b Nov 23 17:06:59 2026\n",
        b'From "a b"@c Mon Nov 23 17:06:59 2026\r\n',
        b"From 1779000000000000000@xxx Mon Nov 23 17:06:59 +0000 2026\r\n",
        b"From bob at example.com  Mon Nov 23 17:06:59 2026\n",
        b"From - Mon Nov 23 17:06:59 2026\n",
        b"From - Mon, 23 Nov 2026 17:06:59 +0100\n",
        b"From a@b Mon, 23 Nov 2026 17:06:59 +0100 (CET)\n",
        b"From a@b 23 Nov 2026 17:06 GMT\n",
        b"From a@b 23-Nov-2026 17:06:59 +0100\n",
        b"From a@b 2026-11-23T17:06:59+01:00\n",
        b"From a@b 2026-11-23T17:06:59.123Z\n",
        b"From a@b 2026-11-23 17:06:59 remote from uucp\n",
        b"From MAILER-DAEMON 2026-11-23 17:06:59 +0100\n",
        b"From a@b Mon Nov 23 17:06:59 GMT+01:00 2026\n",
        b"From a@b Mon Nov 23 05:06:59 PM CET 2026\n",
        b"From a@b Mon Nov 23 2026 17:06:59 GMT+0100 (Central European Time)\n",
        b"From " + b"a" * 2040 + b"@b Mon Nov 23 17:06:59 2026\n",
    ],
)
def test_a_line_with_a_date_in_one_of_the_usual_forms_separates(line: bytes) -> None:
    """Programs differ in order, blanks, seconds and zones."""
    for after in (
        HEADER,
        b"X: y\n\n",
        b"\n",
        b"",
        b">From a@b remote from c\n" + HEADER,
    ):
        assert separator_at(BLANK, line + after) == Separator(line)
    assert separator_at(b"", line + HEADER) == Separator(line)
    assert separator_at(b"\n\r\n", line + HEADER) == Separator(line)
    assert parse_arrival(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        b"From \n", b"From \r\n", b"From   \n", b"From -\n", b"From - \r\n",
        b"From - 23/11/2026 17:06\n", b"From - m\xc3\xa5n 23 nov 2026\n",
    ],
)  # fmt: skip
def test_a_line_without_a_sender_separates_before_a_header_section(line: bytes) -> None:
    """Thunderbird writes such lines; without fields after it, From is a word."""
    assert doubt(line) == ""
    assert doubt(line, b"A: b\n" + HEADER) == ""
    assert doubt(line, b"text\n") in (None, "no header field follows it")
    assert parse_arrival(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b"From s@example.com\n",
        b"From s@example.com some day\n",
        b"From a@b Xyz Nov 23 17:06:59 2026 AD\n",
        b"From a@b lun. nov. 23 17:06:59 2026\n",
        b"From a@b Mon Nov 23 17:06 26\n",
        b"From 1234567890\n",
        b"From\n",
        b"From\r\n",
        b"From\ta@b\n",
        b"From here on it is a sentence\n",
    ],
)
def test_a_line_that_is_not_understood_is_in_doubt_before_a_header_section(
    line: bytes,
) -> None:
    """Without a field that mail has behind it, it is a sentence."""
    for after in (HEADER, b"A: b\nX-Spam: y\n", b">From x\n" + HEADER, b"To : a\n"):
        assert doubt(line, after) == "its form is not known"
    for after in (b"text\n", b"https://a/\n", b"\n", b""):
        assert doubt(line, after) is None


@pytest.mark.parametrize(
    "line",
    [
        b"from a@b Mon Nov 23 17:06:59 2026\n", b"FROM a@b some day\r\n", b"fRom\n",
        b"From\xc2\xa0a@b Mon Nov 23 17:06:59 2026\n", b"From\xa0a@b\n", b"From\va@b\n",
        b"From\xe2\x80\x83a@b Mon Nov 23 17:06:59 2026\n",
    ],
)  # fmt: skip
def test_a_line_in_other_letters_is_in_doubt_before_a_header_section(
    line: bytes,
) -> None:
    """Only after an empty line: in a text it is a word at the start of a line."""
    for after in (HEADER, b"X: y\n\ntext\n", b"X: y\n z\nY: z\n"):
        assert doubt(line, after) == "its form is not known"
        assert doubt(line, after, before=b"yz\n") is None
        assert separator_at(b"yz\n", line + after, needs_blank=False) is None
        assert find_candidate(BLANK + line + after, 3) == 3
    for after in (b"text\n", b"Note: it\nis text\n", b"\n"):
        assert doubt(line, after) is None


def test_fields_that_are_no_mails_make_a_header_section_with_their_end() -> None:
    """An unknown form before them; a sentence with a colon goes on as a text."""
    for line in (b"From a@b some day\n", b"From a@b on 23.11.2026\n"):
        assert doubt(line, b"X: y\n\ntext\n") == "its form is not known"
        assert doubt(line, b"X: y\n") == "its form is not known"
        assert doubt(line, b"X: y\n\n", before=b"yz\n") is None
        assert doubt(line, b"X: y\ntext\n") is None


def test_a_line_of_mmdf_is_in_doubt() -> None:
    """Four ^A are a line of nothing else; a mark at the start of a file is no text."""
    assert doubt(b"\1\1\1\1\n", before=b"yz\n") == "it separates in MMDF"
    assert find_candidate(b"x\n\1\1\1\1\n", 0) == 2
    assert doubt(b"\1\1\1\1\n", before=b"xyz") is None
    line = b"From a@b Mon Nov 23 17:06:59 2026\n"
    assert doubt(line, b"To: x\n", before=BOM_UTF8) == "it does not start a line"


def test_a_sentence_with_a_colon_is_no_header_field() -> None:
    """Behind the word alone it might be one."""
    assert doubt(b"From here on\n", b"PS: and\nso on\n") is None
    assert doubt(b"From\n", b"PS: and\nso on\n") == "its form is not known"


def test_a_line_in_the_wrong_place_is_in_doubt() -> None:
    """Without an empty line before it, in the middle of a line, before a bare CR."""
    line = b"From a@b Mon Nov 23 17:06:59 2026\n"
    assert doubt(line, before=b"yz\n") == "no empty line is before it"
    assert doubt(line, before=b"xyz") == "it does not start a line"
    for after in (b"text\n", b"To: x\nSubject: y\n"):
        assert doubt(line, after, before=b"xyz") is None
    for before in (b"\n\0\0", b"x\r\r"):
        assert doubt(b"From \n", before=before) == "it does not start a line"
    assert doubt(line[:-1] + b"\r", HEADER) == "it ends in a bare CR"
    assert separator_at(b"yz\n", line + HEADER, needs_blank=False) == Separator(line)


def test_a_quoted_line_is_content_or_a_second_from_line() -> None:
    """Quotes start a line; the end of an HTML letter is no quote."""
    line = b"From a@b Mon Nov 23 17:06:59 2026\n"
    for before in (b"6\n>", b"\n>>", b"\r\n>"):
        assert doubt(line, before=before) is None
    assert doubt(line, before=b"ml>") == "it does not start a line"


@pytest.mark.parametrize(
    "line",
    [
        b">From a@b Mon Nov 23 17:06:59 2026\n",
        b"from a@b Mon Nov 23 17:06:59 2026\n",
        b"From: a@b Mon Nov 23 17:06:59 2026\n",
        b"From my visit on 2026-11-23 17:06\n",
        b"From 2026-11-23 17:06 on\n",
        b"From " + b"a" * 2600 + b"@b Mon Nov 23 17:06:59 2026\n",
    ],
)
def test_other_lines_are_content(line: bytes) -> None:
    """Quoted ones, fields, sentences, and what the file ends in."""
    assert doubt(line, b"\n") is None


def test_a_writer_that_is_at_work_raises_no_doubt() -> None:
    """The file ends within the header section of a message."""
    line = b"From a@b Mon Nov 23 17:06:59 2026\n"
    for length in range(len(HEADER)):
        assert doubt(line, HEADER[:length]) == ""


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (b"Mon Nov 23 17:06:59 UTC 2026", "2026-11-23T17:06:59+00:00"),
        (b"Mon Nov 23 17:06:59 2026 +0100", "2026-11-23T16:06:59+00:00"),
        (b"Mon Nov 23 17:06 2026 -0230", "2026-11-23T19:36:00+00:00"),
        (b"Mon Feb 31 17:06:59 2026", None),
        (b"Mon Nov 23 99:06:59 2026", None),
        (b"Mon Jan  1 00:00:00 0001 +2300", None),
        (b"Mon, 23 Nov 2026 17:06:59 +0100 (CET)", "2026-11-23T16:06:59+00:00"),
        (b"23-Nov-2026 17:06:59 GMT", "2026-11-23T17:06:59+00:00"),
        (b"2026-11-23T17:06:59.5-05:30", "2026-11-23T22:36:59+00:00"),
        (b"Mon Nov 23 05:06:59 PM UTC 2026", "2026-11-23T17:06:59+00:00"),
        (b"Mon Nov 23 12:06:59 AM UTC 2026", "2026-11-23T00:06:59+00:00"),
        (b"Mon Nov 23 2026 17:06:59 GMT+0100 (CET)", "2026-11-23T16:06:59+00:00"),
        (b"2026-11-23 17:06Z", "2026-11-23T17:06:00+00:00"),
    ],
)
def test_the_date_of_a_from_line(date: bytes, expected: str | None) -> None:
    """With a zone it is exact; one that is no date is none."""
    found = parse_arrival(b"From a@b " + date + b"\n")
    assert (found and found.isoformat()) == expected
