"""The documentation says what the code does: generated parts, help, clauses, links."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

from drainer import cli, errors
from drainer.config import Config
from drainer.config.render import render_toml
from drainer.policy.recipient.state import State
from tests.support import docs, performance_plot
from tests.support.paths import ROOT

README: Final = ROOT / "README.md"
PAGES: Final = (README, *sorted(docs.DOCS.glob("*.md")))
RFCS: Final = docs.DOCS / "rfcs.md"

_CITATION = re.compile(r"RFC (\d+)((?: \d[\d.]*)(?:, \d+\.[\d.]+)*)?")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_DEFAULT = re.compile(r"Default: \\?\[(\w+)\] (\w+)(?: \((\S+)\))?[.,]")
_SECTION = re.compile(r"\[\w+(?:\.\w+)?\]")


# ---- generated parts


def test_every_generated_part_has_a_place() -> None:
    """What tests/support/docs.py can make stands somewhere, once."""
    found = [name for page in PAGES for name in docs.parts_of(page.read_text("utf-8"))]
    assert sorted(found) == sorted(docs.PARTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_generated_parts_are_current(page: Path) -> None:
    """If this fails, run `make docs`."""
    text = page.read_text("utf-8")
    assert docs.regenerated(text) == text


def test_the_configuration_of_the_package_is_current() -> None:
    """It is what `drainer init` writes. If this fails, run `make docs`."""
    assert docs.EXAMPLE.read_text("utf-8") == render_toml()


def test_the_picture_of_the_curves_is_current() -> None:
    """It has the figures of the tables. If this fails, run `make docs`."""
    page = performance_plot.PAGE.read_text("utf-8")
    assert performance_plot.PICTURE.read_text("utf-8") == performance_plot.plot(page)


def test_every_state_is_explained() -> None:
    """A row of its own in docs/states.md."""
    text = (docs.DOCS / "states.md").read_text("utf-8")
    assert [state for state in State if f"| **{state}** |" not in text] == []


def test_every_test_that_is_named_exists() -> None:
    """What documentation promises by a test has one of that name."""
    named = {m for p in PAGES for m in _TEST.findall(p.read_text("utf-8"))}
    assert len(named) > 20
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if f"def {name}(" not in (ROOT / path).read_text("utf-8")
    ]
    assert missing == []


# ---- the command line


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """Yield every command by name, those of a group behind the group's."""
    root = typer.main.get_command(cli.app)
    assert isinstance(root, TyperGroup)
    context = root.make_context("drainer", [], resilient_parsing=True)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        below = command.commands if isinstance(command, TyperGroup) else {"": command}
        for more, each in below.items():
            assert isinstance(each, TyperCommand)
            yield f"{name} {more}".strip(), each


@pytest.mark.parametrize(
    ("name", "command"), [pytest.param(*c, id=c[0]) for c in commands()]
)
def test_a_command_and_all_its_parameters_have_help(
    name: str, command: TyperCommand
) -> None:
    """`drainer COMMAND --help` says everything, with an example."""
    assert command.help
    assert f"Example: drainer {name}" in command.help
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{name}: {parameter.opts}"


def test_an_option_that_replaces_a_setting_names_it_with_its_default() -> None:
    """Help cannot read them from the configuration: that would take a second."""
    settings = Config().model_dump(mode="json")
    named = {
        found
        for _, command in commands()
        for each in command.params
        for found in _DEFAULT.findall(str(getattr(each, "help", "")))
    }
    assert ("throttle", "rate", "10/second") in named
    for section, key, value in named:
        assert key in settings[section]
        assert value in ("", str(settings[section][key]))


def test_a_short_option_means_the_same_everywhere() -> None:
    """-n is --dry-run in each command that has it; the long one is always there."""
    found: dict[str, set[str]] = {}
    for _, command in commands():
        for each in command.params:
            for short in (o for o in each.opts if len(o) == len("-n")):
                found.setdefault(short, set()).add(max(each.opts, key=len))
    known = {"-c": "config", "-l": "ledger", "-n": "dry-run", "-y": "yes"}
    assert {short: {f"--{known[short]}"} for short in known}.items() <= found.items()
    assert found.pop("-t") == {"--to", "--primary"}
    assert [short for short, longs in found.items() if len(longs) > 1] == []


def printed_help(name: str) -> str:
    """Return what `drainer NAME --help` prints on a wide terminal."""
    arguments = [*name.split(), "--help"]
    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


NAMES: Final = [name for name, _ in commands()]
GROUPS: Final = sorted({name.rpartition(" ")[0] for name in NAMES})


@pytest.mark.parametrize("name", [*GROUPS, *NAMES])
def test_help_shows_no_type_after_a_flag(name: str) -> None:
    """A flag takes no value: `--json <bool>` would say that it takes one."""
    shown = printed_help(name)
    assert "--help" in shown
    assert "<bool>" not in shown


def test_help_joins_the_lines_of_a_paragraph() -> None:
    """A line ends where the terminal does, not where one of the source ends."""
    text = "Without --send-tests it sends no message; it writes nothing. It takes"
    assert text in printed_help("doctor")


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_no_flag_for_what_is_so_anyway(name: str) -> None:
    """`--no-force` is of no use if nothing else sets `--force`."""
    assert "[default: no-" not in printed_help(name)


def test_help_shows_every_section_that_it_names() -> None:
    """Rich takes `[primary]` for a style: without escapes help would not print it."""
    named = {
        (name, section)
        for name, command in commands()
        for each in (command, *command.params)
        for section in _SECTION.findall(str(getattr(each, "help", "")))
    }
    assert ("classify", "[primary]") in named
    assert ("watch", "[sources.NAME]") in named
    shown = {name: printed_help(name) for name, _ in named}
    assert [pair for pair in sorted(named) if pair[1] not in shown[pair[0]]] == []
    assert [name for name, text in shown.items() if "\\[" in text] == []


def test_the_list_of_commands_has_the_first_line_of_each_help() -> None:
    """`--help` prints the lines of the list, without loading the modules."""
    app = typer.Typer(callback=lambda: None)
    for name in cli.COMMANDS:
        cli.add_command(app, name)
    found = typer.main.get_group(app).commands
    lines = {name: (each.help or "").split("\n\n")[0] for name, each in found.items()}
    assert {name: " ".join(line.split()) for name, line in lines.items()} == {
        name: command.help for name, command in cli.COMMANDS.items()
    }


def test_every_group_of_commands_is_in_the_list() -> None:
    """A module that has a group is of a command."""
    folder = Path(cli.__file__).parent
    sources = {each.stem: each.read_text() for each in folder.glob("*.py")}
    groups = {stem for stem, text in sources.items() if "\napp = " in text}
    assert groups - {"__init__"} <= {each.module for each in cli.COMMANDS.values()}


def test_the_options_of_drainer_itself_have_help() -> None:
    """--version, and Typer's own for completion."""
    root = typer.main.get_command(cli.app)
    assert [p.opts for p in root.params if not getattr(p, "help", "")] == []


def test_every_command_is_in_the_readme() -> None:
    """Whoever reads only that knows what there is."""
    text = README.read_text("utf-8")
    assert [name for name, _ in commands() if f"`{name}" not in text] == []


@pytest.mark.parametrize(
    "page", [README, docs.DOCS / "operations.md"], ids=lambda p: p.name
)
def test_every_exit_status_is_explained(page: Path) -> None:
    """Those of the exceptions, and those of a drain that ended as it should."""
    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    codes = {getattr(c, "exit_code", 0) for c in classes} | {0, 4, 5, 130}
    text = page.read_text("utf-8")
    assert [
        code
        for code in sorted(codes)
        if not re.search(rf"^\| {code} \|", text, re.MULTILINE)
    ] == []


def test_the_readme_is_short() -> None:
    """Long enough to start, short enough to be read."""
    assert 80 <= len(README.read_text("utf-8").splitlines()) <= 120


# ---- clauses of RFCs


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Yield (RFC, clause) of every citation, the clause '' where none is given."""
    flat = re.sub(r"\s*\n\s*(?:#:?\s*)?", " ", text)
    for number, clauses in _CITATION.findall(flat):
        for clause in (clauses or " ").split(","):
            yield number, clause.strip().rstrip(".")


def clause_rows() -> list[list[str]]:
    """Return the cells of each row of docs/rfcs.md that is about a clause."""
    lines = RFCS.read_text("utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| RFC ")
    ]


def test_every_clause_that_the_code_cites_is_listed() -> None:
    """Each citation in drainer/ has its row in docs/rfcs.md."""
    listed = {pair for row in clause_rows() for pair in citations(row[0])}
    numbers = {number for number, _ in listed}
    sources = {p: p.read_text("utf-8") for p in (ROOT / "drainer").rglob("*.py")}
    missing = [
        f"{path.name}: RFC {number} {clause}"
        for path, text in sources.items()
        for number, clause in citations(text)
        if (number, clause) not in listed and (clause or number not in numbers)
    ]
    assert missing == []


def test_every_row_about_a_clause_has_a_status_and_names_files_that_exist() -> None:
    """A file that was renamed must be renamed there too."""
    for row in clause_rows():
        clause, _, files, status = row
        assert status in ("yes", "partial", "no"), clause
        for name in re.findall(r"`([^`]+)`", files):
            assert (ROOT / "drainer" / name).exists(), f"{clause}: {name}"


# ---- links


def slug(heading: str) -> str:
    """Return the anchor that a heading gets."""
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return plain.strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """To a file of the repository, and to a heading in it."""
    for link in _LINK.findall(page.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            headings = _HEADING.findall(target.read_text("utf-8"))
            assert anchor in map(slug, headings), link


def test_every_page_is_linked_from_the_readme() -> None:
    """Nothing in docs/ is hidden."""
    linked = set(_LINK.findall(README.read_text("utf-8")))
    assert [p.name for p in PAGES[1:] if f"docs/{p.name}" not in linked] == []
