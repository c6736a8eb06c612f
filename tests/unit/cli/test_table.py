"""Tables at every width: ids and addresses stay whole, a row stays one line."""

import io
import re
import sys

import pytest

from drainer.cli.table import LEAST, PAGE_ROWS, Table

ID, ADDRESS = "942317617508", "a-rather-long-name@department.example.org"
REPLY = "550 5.1.1 <a-rather-long-name@department.example.org>: no such user here"
STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    """A terminal that remembers what it showed."""

    def isatty(self) -> bool:
        """Be one."""
        return True


def shown(monkeypatch: pytest.MonkeyPatch, width: int, *, note: str = "") -> list[str]:
    """Return the lines of a table on a terminal so wide; 0 is no terminal."""
    out = Terminal() if width else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", str(width or 40))
    monkeypatch.setenv("TERM", "xterm")
    table = Table(
        "id", "attempts", "recipient", "reply",
        spare=("attempts", "reply"), cut=("reply",),
    )  # fmt: skip
    table.add(ID, "17", ADDRESS, REPLY, note=note)
    table.end()
    return STYLE.sub("", out.getvalue()).splitlines()


@pytest.mark.parametrize("width", [1, 40, 60, 80, 100, 200])
def test_ids_and_addresses_are_whole_at_every_width(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Where even they do not fit, the terminal wraps them: they can be copied."""
    lines = shown(monkeypatch, width)
    assert len(lines) == 2
    assert ID in lines[1]
    assert ADDRESS in lines[1]
    if width >= len(ID + ADDRESS) + 2:
        assert all(len(line) <= width for line in lines)


def test_the_least_important_columns_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then prose is cut, and says so."""
    wide, middle, narrow = (shown(monkeypatch, width) for width in (200, 80, 60))
    assert REPLY in wide[1]
    assert "17" in wide[1]
    assert "attempts" not in middle[0]
    assert middle[1].endswith("…")
    assert len(middle[1].rpartition("  ")[2]) >= LEAST
    assert narrow[0].split() == ["id", "recipient"]


def test_a_pipe_gets_every_column_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a line, whatever COLUMNS is; a note stands on the line of its row."""
    lines = shown(monkeypatch, 0, note="held: it is damaged")
    assert len(lines) == 2
    assert lines[1].split("  ")[0] == ID
    assert lines[1].endswith(f"{REPLY}  held: it is damaged")


def test_a_terminal_shows_a_note_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indented, so that the columns stay straight."""
    assert shown(monkeypatch, 80, note="held: it is damaged")[2] == (
        "    held: it is damaged"
    )


def test_the_last_column_may_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below itself, and only on a terminal."""
    words = "one two three four five six seven eight nine ten eleven twelve"
    for out, count in ((Terminal(), 3), (io.StringIO(), 2)):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setenv("COLUMNS", "50")
        monkeypatch.setenv("TERM", "xterm")
        table = Table("check", "found", fold="found")
        table.add("storage", words)
        table.end()
        lines = STYLE.sub("", out.getvalue()).splitlines()
        assert len(lines) == count
        assert " ".join(" ".join(lines[1:]).split()) == f"storage {words}"


def test_a_long_table_is_printed_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its head; an empty one has only that."""
    for rows, heads in ((0, 1), (PAGE_ROWS, 1), (PAGE_ROWS + 1, 2)):
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        table = Table("id", "state")
        for n in range(rows):
            table.add(str(n), "held")
        table.end()
        assert out.getvalue().count("state") == heads
        assert out.getvalue().count("held") == rows == table.count
