"""The man pages: one for each command, and man reads them without a complaint."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from drainer.cli.manual import pages
from tests.test_docs import GROUPS, NAMES

PAGES: Final = dict(pages())


def test_every_command_and_every_group_has_a_page() -> None:
    """And there are no others."""
    words = [name for name in (*GROUPS, *NAMES) if name]
    expected = {"drainer.1"} | {f"drainer-{w.replace(' ', '-')}.1" for w in words}
    assert set(PAGES) == expected


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_usual_sections(name: str) -> None:
    """Each reference to another page leads to one."""
    text = PAGES[name]
    sections = re.findall(r"^\.SH (.*)$", text, re.MULTILINE)
    assert sections[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert "OPTIONS" in sections or "COMMANDS" in sections
    for other in re.findall(r"([\w\\-]+)\(1\)", text):
        assert f"{other.replace(chr(92), '')}.1" in PAGES


def test_no_text_of_a_help_is_a_request_of_roff() -> None:
    """A line that starts with a dot is one of ours, and backslashes are escaped."""
    ours = {"TH", "SH", "PP", "TP", "B", "EX", "EE"}
    for text in PAGES.values():
        requests = re.findall(r"^\.(\w*)", text, re.MULTILINE)
        assert set(requests) <= ours
        assert not re.search(r"\\[^e&-]", text)
    assert "[sources.NAME]" in PAGES["drainer-drain.1"]


def test_man_itself_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    """All pages at once, with every warning on."""
    man = shutil.which("man")
    if man is None:
        pytest.skip("man is not installed")
    for name, text in PAGES.items():
        place = tmp_path / name
        place.write_text(text, "utf-8")
        done = subprocess.run(
            [man, "--warnings", "-l", place],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == ""
        assert "EXAMPLE" in done.stdout or "COMMANDS" in done.stdout
