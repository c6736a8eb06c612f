"""What a tired person copies from the runbook works."""

import re
import shlex
from typing import Final

import pytest

from tests.deploy import DEPLOY, DOCS
from tests.deploy.commands import NoCommand, lines_of, parses

RUNBOOK: Final = (DOCS / "runbook.md").read_text("utf-8")
_PLACE: Final = re.compile(r"(?<![\w/.])deploy/[\w./@*-]*[\w*]")


@pytest.mark.parametrize("line", sorted(set(lines_of(RUNBOOK))))
def test_every_command_of_the_runbook_is_one(line: str) -> None:
    """With its options and arguments."""
    parses(shlex.split(line))


@pytest.mark.parametrize(
    "line",
    ["drainer drian x", "drainer status --al", "drainer why", "drainer throttle x"],
)
def test_a_command_that_is_none_would_be_noticed(line: str) -> None:
    """Of the check itself: a wrong name, option, argument."""
    with pytest.raises(NoCommand):
        parses(shlex.split(line))


def test_every_section_of_the_runbook_says_what_to_run() -> None:
    """An alert without a command would be a call for nothing."""
    for section in RUNBOOK.split("\n## ")[1:]:
        assert "```" in section, section.splitlines()[0]


def test_every_file_of_deploy_that_is_named_exists() -> None:
    """In docs, and in deploy itself; patterns match something."""
    pages = [*DOCS.glob("*.md"), *(p for p in DEPLOY.rglob("*") if p.is_file())]
    missing = [
        f"{page.name}: {name}"
        for page in pages
        for name in _PLACE.findall(page.read_text("utf-8"))
        if not list(DEPLOY.parent.glob(name.rstrip("./")))
    ]
    assert missing == []


def test_every_file_of_deploy_is_spoken_of() -> None:
    """By a folder that docs/deploy.md names."""
    page = (DOCS / "deploy.md").read_text("utf-8")
    folders = {path.name for path in DEPLOY.iterdir() if path.is_dir()}
    assert [name for name in sorted(folders) if f"[`{name}/`]" not in page] == []
