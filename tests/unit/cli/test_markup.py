"""What is printed is what was written: only our own styles are markup.

tests/test_docs.py checks the same of every help text.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.markup import escape
from rich.table import Table

from drainer.cli import doctor
from drainer.cli.markup import STYLES, LiteralConsole, literal
from drainer.cli.table import _text
from drainer.mail.message import PROBLEMS
from drainer.policy.breaker import remedies
from drainer.policy.classify.codes import BASIC, ENHANCED
from drainer.policy.classify.rules import families
from tests.support.paths import ROOT
from tests.support.rows import every_row

SECTION = re.compile(r"\[[a-z][a-z_.]*\]")
"""A section of drainer.toml, as messages name it."""


def print_text(text: str) -> str:
    """Return what a console of ours shows for a text."""
    out = io.StringIO()
    LiteralConsole(file=out, width=5000, soft_wrap=True, highlight=False).print(text)
    return out.getvalue().removesuffix("\n")


def printed_in_a_table(text: str) -> str:
    """Return what it shows for a text in a cell."""
    out = io.StringIO()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row(text)
    LiteralConsole(file=out, width=5000, highlight=False).print(table)
    return out.getvalue().rstrip()


def remedy_texts() -> Iterator[str]:
    """Yield every remedy that is printed, of the check and of a breaker."""
    yield from (each.text for each in remedies.remedies())
    for name, value in vars(remedies).items():
        if name.startswith("__"):
            continue
        texts = value.values() if isinstance(value, dict) else [value]
        yield from (text for text in texts if isinstance(text, str) and " " in text)


def message_texts() -> Iterator[str]:
    """Yield every text in the code that names a section: messages, hints, remedies."""
    for path in sorted((ROOT / "drainer").rglob("*.py")):
        yield from _texts_of(path)


def _texts_of(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        for text in re.findall(r'"([^"\\]*)"', line):
            if SECTION.search(text) and "COLOURS" not in text:
                yield text


REASONS = [
    *(row[2] for row in ENHANCED.values()),
    *(row[1] for row in BASIC.values()),
    *(text for rule in families() for text in (rule.why, rule.danger) if text),
    *(meaning for meaning, _ in PROBLEMS.values()),
]


def _without_styles(text: str) -> str:
    return re.sub(rf"\[(?:{'|'.join(STYLES)})\]|\[/\]", "", text)


def test_a_section_never_vanishes() -> None:
    """Rich alone would print `set  helo`."""
    assert print_text("set [primary] helo") == "set [primary] helo"
    assert print_text("[red]stopped[/]: [throttle] rate") == "stopped: [throttle] rate"
    assert (
        print_text("[/primary] and [Errno 2] and []")
        == "[/primary] and [Errno 2] and []"
    )


@every_row(dict.fromkeys([*remedy_texts(), *REASONS]))
def test_every_remedy_and_reason_is_printed_as_it_is_written(text: str) -> None:
    """As a line and in a table, escaped before or not."""
    assert print_text(text) == text
    assert printed_in_a_table(text) == text
    assert print_text(escape(text)) == text
    assert print_text(f"[red]{escape(text)}[/]") == text


@every_row(dict.fromkeys(message_texts()))
def test_every_message_that_names_a_section_shows_it(text: str) -> None:
    """Wherever it is in the code."""
    assert print_text(text) == _without_styles(text)


@pytest.mark.parametrize(
    "text", ["[red]x[/]", "[/]", "a[/]b", "[bold]", "\\[red]", "[[red]]"]
)
def test_text_of_others_shows_its_brackets(text: str) -> None:
    """Escaped as every such text is, and never an error."""
    assert print_text(escape(text)) == text
    assert printed_in_a_table(escape(text)) == text


@pytest.mark.parametrize(
    "text", ["[2001:db8:a:b:c::1]", "12:100:3", "550 :warning: no", "a [/] :x:"]
)
def test_no_text_becomes_a_picture(text: str) -> None:
    """Rich alone would show an emoji for a part of an IPv6 address."""
    assert print_text(text) == text
    assert print_text(escape(text)) == text
    assert printed_in_a_table(text) == text
    assert _text(text).plain == text


@pytest.mark.parametrize("text", ["[/]", "a [/] b [primary]"])
def test_a_style_that_was_not_opened_is_text(text: str) -> None:
    """A message with a mistake is printed all the same."""
    assert print_text(text) == text


def test_escaping_again_changes_nothing() -> None:
    """What is escaped stays as it is."""
    for text in ("set [primary] helo", "[red]x[/] [a]"):
        assert literal(literal(text)) == literal(text)


def test_the_colours_of_the_doctor_are_styles() -> None:
    """A grade is printed in its colour, without the tag."""
    for colour in doctor.COLOURS.values():
        assert print_text(f"[{colour}]skipped[/]") == "skipped"
