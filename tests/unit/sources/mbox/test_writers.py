"""Random letters through every kind of writer: the same letters, or held ones."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from drainer.sources.mbox.source import Mbox

WHEN = datetime(2026, 11, 3, 17, 6, 59, tzinfo=timezone(timedelta(hours=1)))
LINES = st.sampled_from(
    [
        "", "", "text", "From ", "From", "From here on", "From s@example.com",
        ">From ", ">>From here", "From - ", "Subject: none", "Note: text", "To: you",
        "From a@b.example Tue Nov  3 17:06:59 2026", "From - Tue, 3 Nov 2026 17:06",
        "Content-Length: 5", "https://host/", ">From a@b Tue Nov  3 17:06:59 2026",
    ]
)  # fmt: skip


class Letter(NamedTuple):
    """A letter with a secret, which only its recipient may read."""

    number: int
    body: str

    @property
    def content(self) -> str:
        """What was transmitted, with LF line ends."""
        number = self.number
        return (
            f"Received: from c by mx2\n\tid {number}; Tue\nSubject: {number}\n\n"
            f"{self.body}secret{number}\n"
        )

    @property
    def head(self) -> str:
        """What the delivery put on top."""
        number = self.number
        return f"Return-Path: <s@example.com>\nDelivered-To: r{number}@example.org\n"


BODIES = st.lists(LINES, max_size=6).map(lambda lines: "".join(f"{x}\n" for x in lines))
LETTERS = st.lists(BODIES, min_size=1, max_size=4).map(
    lambda bodies: [Letter(number, body) for number, body in enumerate(bodies)]
)

SEPARATORS: dict[str, str] = {
    "asctime": f"From s@example.com  {WHEN:%a %b %e %H:%M:%S %Y}",
    "asctime, zone": f"From s@example.com {WHEN:%a %b %e %H:%M:%S %z %Y}",
    "asctime, no seconds": f"From s@example.com {WHEN:%a %b %e %H:%M %Y}",
    "UUCP": f"From s@example.com {WHEN:%a %b %e %H:%M:%S %Y} remote from mx2",
    "UUCP, two lines": f"From s {WHEN:%a %b %e %H:%M:%S %Y}\n>From s remote from mx2",
    "Thunderbird": f"From - {WHEN:%a %b %d %H:%M:%S %Y}",
    "Thunderbird, bare": "From ",
    "Mailman": f"From s at example.com  {WHEN:%a %b %e %H:%M:%S %Y}",
    "RFC 5322": f"From s@example.com {WHEN:%a, %d %b %Y %H:%M:%S %z}",
    "ISO": f"From s@example.com {WHEN.isoformat()}",
    "stripped": "From",
    "no date": "From s@example.com",
    "seconds": f"From s@example.com {WHEN.timestamp():.0f}",
    "German": "From s@example.com Di 3. Nov 17:06:59 2026",
}
UNDERSTOOD = tuple(SEPARATORS)[:10]


def unquoted(content: str) -> str:
    """Write a letter as a writer that quotes nothing does."""
    return content


def quoted(content: str) -> str:
    """Quote as mboxo does."""
    return re.sub(r"(?m)^(From )", r">\1", content)


def requoted(content: str) -> str:
    """Quote as mboxrd does."""
    return re.sub(r"(?m)^(>*From )", r">\1", content)


class Style(NamedTuple):
    """How a writer stores a letter, and the variant that names it."""

    quote: Callable[[str], str]
    variant: str
    has_length: bool = False
    blank: str = "\n"


STYLES = {
    "mboxo": Style(quoted, "mboxo"),
    "mboxrd": Style(requoted, "mboxrd"),
    "mboxcl": Style(quoted, "mboxcl", has_length=True),
    "mboxcl2": Style(unquoted, "mboxcl2", has_length=True),
    "unknown, mboxo": Style(quoted, "plain"),
    "unknown, mboxcl2": Style(unquoted, "plain", has_length=True),
    "no blank line": Style(quoted, "plain", blank=""),
    "mboxo taken for mboxcl2": Style(quoted, "mboxcl2"),
}


def written(letters: Sequence[Letter], separator: str, style: Style) -> str:
    """Return an mbox of these letters."""
    text = ""
    for letter in letters:
        body = style.quote(letter.content)
        length = len(body.partition("\n\n")[2])
        field = f"Content-Length: {length}\n" if style.has_length else ""
        text += f"{separator}\n{letter.head}{field}{body}{style.blank}"
    return text


def sent(data: bytes, variant: str) -> dict[str, list[str]]:
    """Return what a drain would send, by recipient."""
    result: dict[str, list[str]] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder, "mbox")
        path.write_bytes(data)
        for spooled in Mbox(path, variant=variant).scan():
            if spooled.message.problem is None:
                content = b"".join(spooled.content.chunks()).replace(b"\r\n", b"\n")
                for each in spooled.message.envelope.recipients:
                    result.setdefault(each.forward_path, []).append(content.decode())
    return result


def check(letters: Sequence[Letter], data: bytes, style: Style) -> int:
    """See that each letter is sent whole to its recipient, or not at all."""
    found = sent(data, style.variant)
    count = 0
    for letter in letters:
        whole = style.quote(letter.content)
        if style.variant in ("mboxo", "mboxcl"):
            whole = re.sub(r"(?m)^>From ", "From ", letter.content)
        elif style.variant == "mboxrd":
            whole = letter.content
        elif style.has_length and style.variant == "plain":
            length = len(whole.partition("\n\n")[2])
            whole = f"Content-Length: {length}\n{whole}"
        contents = found.pop(f"r{letter.number}@example.org", [])
        assert contents in ([], [whole])
        count += len(contents)
    assert not found
    return count


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_no_letter_is_merged_cut_or_changed(style: Style) -> None:
    """Whatever the writer and the text, and also with CRLF line ends."""

    @settings(max_examples=60, deadline=None)
    @given(LETTERS, st.sampled_from(list(SEPARATORS.values())))
    def any_letters(letters: list[Letter], separator: str) -> None:
        data = written(letters, separator, style).encode()
        check(letters, data, style)
        if not style.has_length:
            check(letters, data.replace(b"\n", b"\r\n"), style)

    any_letters()


@pytest.mark.parametrize("name", UNDERSTOOD)
@pytest.mark.parametrize("style", list(STYLES.values())[:5], ids=list(STYLES)[:5])
def test_letters_of_usual_writers_are_all_sent(name: str, style: Style) -> None:
    """No separator in use holds a letter."""
    letters = [Letter(number, "text\n\nFrom here on\n") for number in range(3)]
    data = written(letters, SEPARATORS[name], style).encode()
    assert check(letters, data, style) == 3


@settings(max_examples=80, deadline=None)
@given(LETTERS, st.lists(st.sampled_from(list(SEPARATORS.values())), min_size=4))
def test_writers_may_take_turns_in_a_file(
    letters: list[Letter], separators: list[str]
) -> None:
    """An older program began it, and another one went on."""
    style = STYLES["unknown, mboxo"]
    parts = [
        written([letter], separator, style)
        for letter, separator in zip(letters, separators, strict=False)
    ]
    check(letters, "".join(parts).encode(), style)


@settings(max_examples=80, deadline=None)
@given(LETTERS, st.sampled_from(["asctime", "RFC 5322", "ISO"]), st.data())
def test_a_letter_that_was_cut_off_takes_none_with_it(
    letters: list[Letter], name: str, data: st.DataObject
) -> None:
    """A crash cut one anywhere, and the writer went on behind it.

    A letter that ends where a paragraph ended cannot be told from a whole one, and a
    From_ line behind a quote sign alone on its line cannot be told from a quoted one.
    """
    style = STYLES["unknown, mboxo"]
    parts = [written([letter], SEPARATORS[name], style) for letter in letters]
    cut = data.draw(st.integers(0, len(parts[0])))
    assume(not re.search(r"(?m)^>+\Z", parts[0][:cut]))
    found = sent("".join([parts[0][:cut], *parts[1:]]).encode(), style.variant)
    for letter in letters:
        for content in found.get(f"r{letter.number}@example.org", []):
            assert style.quote(letter.content).startswith(content)
