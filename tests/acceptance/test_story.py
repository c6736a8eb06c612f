"""README's "Start" and the runbook, word for word: from the outage to both at work."""

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mta.postfix import SEARCH_PATH, PrivatePostfix
from tests.support.mta.queues import relay_port, submit, users
from tests.support.mta.roles import Primary
from tests.support.paths import ROOT

START = (ROOT / "README.md").read_text("utf-8").partition("## Start\n")[2]
COUNT = 20


def commands() -> list[str]:
    """Return the lines of the indented block, without their comments."""
    block = START.partition("\n## ")[0]
    lines = re.findall(r"^    (\S.*)$", block, re.MULTILINE)
    return [line.partition("#")[0].strip() for line in lines]


class Shell:
    """A root shell on the backup's host, with the names of the README's example."""

    def __init__(self, backup: PrivatePostfix, folder: Path, *, spool: str) -> None:
        """Stand in for the example's names: its primary, its spool, its queue id."""
        self._backup = backup
        self._folder = folder
        self._spool = spool
        self.queue_id = ""
        self._exports = ""

    def run(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Run a line; the example's words become those of this test."""
        line = line.replace("mx1.example.com", f"127.0.0.1:{relay_port(self._backup)}")
        line = line.replace("SPOOL=postfix:live", f"SPOOL={self._spool}")
        line = line.replace("QUEUE-ID", self.queue_id)
        exports = line if line.startswith("export ") else self._exports
        self._exports = exports
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{SEARCH_PATH}",
            "MAIL_CONFIG": str(self._backup.config_dir),
            "XDG_STATE_HOME": str(self._folder),
            "DRAINER_LEDGER__URL": str(self._folder / "ledger.db"),
            "DRAINER_PRIMARY__HELO": "backup.example",
            "DRAINER_BREAKER__GIVE_UP_AFTER": "1s",
        }
        return subprocess.run(
            ["sh", "-c", f"{exports}\n{line}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
            cwd=self._folder,
        )


@pytest.mark.parametrize("kind", ["live", "stopped", "copy"])
def test_the_readme_leads_to_both_servers_at_work(
    tmp_path: Path,
    backup_postfix: Callable[..., PrivatePostfix],
    primary_postfix: Callable[..., Primary],
    kind: str,
) -> None:
    """Every message arrives once, whichever of the three spools it names."""
    primary = primary_postfix()
    primary.stop()
    backup = backup_postfix(relay_port=primary.port)
    ids = submit(backup, *users(COUNT))
    spools = {
        "live": "postfix:live",
        "stopped": f"postfix:{backup.queue_dir}",
        "copy": f"postfix:{tmp_path}/copy",
    }
    if kind != "live":
        backup.stop()
    if kind == "copy":
        copy = ["cp", "-a", str(backup.queue_dir), str(tmp_path / "copy")]
        subprocess.run(copy, check=True)
    primary.start()
    shell = Shell(backup, tmp_path, spool=spools[kind])
    shell.queue_id = ids[0]
    export, *steps = commands()
    last = ""
    assert export.startswith("export SPOOL=postfix:live PRIMARY=")
    assert shell.run(export).returncode == 0
    for line in steps:
        done = shell.run(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        if line.startswith("drainer drain"):
            last = done.stdout.splitlines()[-1].strip()
    if kind != "live":
        settled = shell.run(last)
        assert settled.returncode == 0, (last, settled.stderr)
    if kind == "copy":
        assert shlex.split(last)[:3] == ["drainer", "spool", "settle"]
        backup.start()
    elif kind == "stopped":
        pid = (backup.queue_dir / "pid" / "master.pid").read_text("ascii")
        backup.master_pid = int(pid)
    os.kill(backup.master_pid or 0, 0)
    backup.flush()
    backup.wait_queue(0, ("incoming", "active", "deferred", "hold"))
    new = submit_and_pass_on(backup)
    received = primary.wait_received(COUNT + 1)
    counts = Counter(each.recipient.decode() for each in received)
    assert counts == Counter([*(path for [path] in users(COUNT)), new])


def runbook() -> list[str]:
    """Return the commands of the runbook's way after an outage."""
    text = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    section = text.partition("## After an outage\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    lines = (line.strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def test_the_runbook_leads_to_both_servers_at_work(
    tmp_path: Path,
    backup_postfix: Callable[..., PrivatePostfix],
    primary_postfix: Callable[..., Primary],
) -> None:
    """Its commands as they are, with the backup at work all the time."""
    primary = primary_postfix()
    primary.stop()
    backup = backup_postfix(relay_port=primary.port)
    submit(backup, *users(COUNT))
    primary.start()
    shell = Shell(backup, tmp_path, spool="")
    lines = runbook()
    assert lines[1] == "drainer drain postfix:live --to mx1.example.com"
    for line in lines:
        done = shell.run(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    backup.flush()
    backup.wait_queue(0, ("incoming", "active", "deferred", "hold"))
    submit_and_pass_on(backup)
    received = primary.wait_received(COUNT + 1)
    counts = Counter(each.recipient.decode() for each in received)
    assert len(counts) == COUNT + 1
    assert max(counts.values()) == 1


def submit_and_pass_on(backup: PrivatePostfix) -> str:
    """Send new mail to the backup, which relays it to its primary at once."""
    backup.sendmail(
        ["-f", "me@client.example", "new@example.org"], b"Subject: x\n\nx\n"
    )
    backup.wait_queue(0, ("maildrop", "incoming", "active", "deferred"))
    return "new@example.org"
