"""What a shell completes: states, queues, sources, IDs; and never what it would run."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from drainer.cli import app
from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread

PROGRAM: Final = Path(sys.executable).with_name("drainer")
EVIL: Final = "1700000001.M1$(touch${IFS}owned)`id`.x"


def completed(bench: Bench, *words: str | Path) -> list[str]:
    """Return what bash is offered for the last of the words."""
    asked = {
        "_DRAINER_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["drainer", *map(str, words)]),
        "COMP_CWORD": str(len(words)),
    }
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(bench.root)
        for name, value in asked.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            app([], prog_name="drainer")
    assert (ended.value.code or 0, err.getvalue()) == (0, "")
    return out.getvalue().split()


@pytest.fixture
def bench(tmp_path: Path, peer: Callable[..., PeerThread]) -> Bench:
    """Give a bench with a source in its configuration, and nothing drained yet."""
    bench = Bench(tmp_path, peer().port)
    bench.configure(**{"sources.backup": {"url": f"postfix:{bench.spool}"}})
    assert bench.config.exists()
    return bench


def test_states_and_queues_are_completed(bench: Bench) -> None:
    """By their beginning; for every command that filters."""
    assert completed(bench, "list", "--state", "de") == ["delivered", "deferred"]
    assert completed(bench, "hold", "--queue", "def") == ["deferred"]


def test_sources_are_those_of_the_configuration_and_the_kinds(bench: Bench) -> None:
    """The file of the current folder counts, as for the command."""
    offered = completed(bench, "drain", "")
    assert offered[0] == "backup"
    assert {"postfix:live", "maildir:", "eml:"} <= set(offered)
    assert completed(bench, "watch", "ba") == ["backup"]


def test_ids_come_from_the_ledger(bench: Bench) -> None:
    """Drainer ids and queue ids; without a ledger none, and no complaint."""
    place = ("--ledger", bench.ledger)
    assert completed(bench, "why", *place, "") == []
    name = bench.add("anna@example.org")
    assert bench.drain().code == 0
    (id_,) = {fact["id"] for fact in bench.run("list", "--json").lines}
    assert completed(bench, "why", *place, name[:3]) == [name]
    assert completed(bench, "show", *place, id_[:6]) == [id_[:12]]
    assert completed(bench, "hold", *place, id_[:20]) == [id_[:20]]
    assert set(completed(bench, "why", *place, "")) == {name, id_[:12]}


def test_a_name_that_a_shell_would_interpret_is_not_offered(bench: Bench) -> None:
    """Zsh evaluates what it is offered, and strangers choose names in a spool."""
    root = bench.root / "Maildir"
    for part in ("new", "cur", "tmp"):
        (root / part).mkdir(parents=True)
    text = "Delivered-To: anna@example.org\nSubject: x\n\n"
    (root / "new" / EVIL).write_text(text, "utf-8")
    bench.run("drain", f"maildir:{root}", "--no-check")
    listed = bench.run("list", "--json").lines
    assert listed[0]["native_id"].startswith("1700000001.M1$")
    place = ("--ledger", bench.ledger)
    assert completed(bench, "why", *place, "17") == []
    assert completed(bench, "why", *place, "") == [listed[0]["id"][:12]]


def test_a_broken_configuration_completes_nothing(bench: Bench) -> None:
    """And prints nothing into the command line."""
    (bench.root / "drainer.toml").write_text("[primary\n")
    assert "backup" not in completed(bench, "drain", "")
    assert completed(bench, "why", "a") == []


SCRIPTS: Final = {
    "bash": (
        'source "$1"; COMP_WORDS=(drainer list --state de); COMP_CWORD=3;'
        ' _drainer_completion drainer; echo "${COMPREPLY[@]}"'
    ),
    "fish": 'source $argv[1]; complete -C "drainer list --state de"',
}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_for_a_shell_works_in_it(shell: str, tmp_path: Path) -> None:
    """As the package installs it."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    script = tmp_path / "completion"
    made = subprocess.run(
        [PROGRAM],
        env={**environment, "_DRAINER_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    script.write_text(made.stdout, "utf-8")
    more = ("drainer",) if shell == "bash" else ()
    done = subprocess.run(
        [shell, "-c", SCRIPTS[shell], *more, script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert sorted(done.stdout.split()) == ["deferred", "delivered"]
