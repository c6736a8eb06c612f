"""The configurations of Exim for both ends, in a real Exim.

Debian's packages of Exim and Postfix exclude each other; `make services` unpacks Exim
into .exim/. It knows the user Debian-exim by name, so it runs with an /etc/passwd of
its own, in a mount namespace.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.deploy import DEPLOY
from tests.support.mta.postfix import instance_directory

ROOT: Final = DEPLOY.parent / ".exim"
EXIM: Final = ROOT / "usr" / "sbin" / "exim4"
_USER: Final = "Debian-exim:x:998:998::/nonexistent:/usr/sbin/nologin\n"
_RUN: Final = """\
mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && shift &&
exec "$@"
"""
DIALOGUE: Final = """\
EHLO client.example
MAIL FROM:<s@example.org>
RCPT TO:<nobody@example.com>
RCPT TO:<x@elsewhere.example>
RCPT TO:<Anna@example.com>
DATA
Authentication-Results: (a comment)
 mx2.example.com; spf=pass smtp.mailfrom=bank.example
Subject: hello

body
.
QUIT
"""


class Exim:
    """Exim with one of our configurations, and a spool of its own."""

    def __init__(self, base: Path, source: Path) -> None:
        """Lay it out."""
        self.base = base
        tables = base / source.parent.name
        shutil.copytree(source, tables)
        text = (source / "exim4.conf").read_text("utf-8")
        head = f"spool_directory = {base}/spool\nlog_file_path = {base}/log-%s\n"
        self.config = base / "exim4.conf"
        self.config.write_text(
            f"{head}queue_only\n{text.replace('CONFDIR', str(tables))}", "utf-8"
        )
        (base / "spool").mkdir()
        for place in (base, base / "spool"):
            os.chown(place, 998, 998)
        for name, line in (("passwd", _USER), ("group", "Debian-exim:x:998:\n")):
            old = Path("/etc", name).read_text("utf-8")
            (base / name).write_text(old + line, "utf-8")

    def run(self, *arguments: str, told: str = "") -> str:
        """Run it, and return what it says."""
        libraries = next((ROOT / "usr" / "lib").glob("*-linux-gnu"))
        sandbox = ["unshare", "--mount", "sh", "-c", _RUN, "sh", str(self.base)]
        done = subprocess.run(
            [*sandbox, str(EXIM), "-C", str(self.config), *arguments],
            input=told.replace("\n", "\r\n"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": os.defpath, "LD_LIBRARY_PATH": str(libraries)},
        )
        assert done.returncode in (0, 1), done.stderr  # 1: a session with refusals
        assert "error" not in done.stderr.lower(), done.stderr
        return done.stdout


def need_exim() -> None:
    """Skip where it cannot run."""
    if not EXIM.exists():
        pytest.skip("Exim is not unpacked (make services)")
    if os.geteuid() != 0:
        pytest.skip("a mount namespace takes root")


@pytest.fixture(params=["backup", "primary"])
def exim(request: pytest.FixtureRequest) -> Iterator[Exim]:
    """Give an Exim at either end."""
    need_exim()
    with instance_directory() as base:
        yield Exim(base, DEPLOY / request.param / "exim")


@pytest.fixture
def backup() -> Iterator[Exim]:
    """Give an Exim that is a backup."""
    need_exim()
    with instance_directory() as base:
        yield Exim(base, DEPLOY / "backup" / "exim")


def test_exim_takes_the_configuration(exim: Exim) -> None:
    """Read as a whole."""
    assert f"Configuration file is {exim.config}" in exim.run("-bV")


def test_both_ends_refuse_at_rcpt_what_is_not_theirs(exim: Exim) -> None:
    """Unknown users and other domains; in a simulated session from a stranger."""
    said = exim.run("-bh", "198.51.100.7", told=DIALOGUE).splitlines()
    replies = [line[:3] for line in said if line[3:4] == " "]
    assert replies == ["220", "250", "250", "550", "550", "250", "354", "250", "221"]


def test_the_backup_replaces_results_in_its_own_name(backup: Exim) -> None:
    """In its spool stands what it found itself, and nothing that a stranger wrote."""
    backup.run("-bs", "-oMa", "198.51.100.7", told=DIALOGUE)
    (header,) = (backup.base / "spool" / "input").rglob("*-H")
    fields = re.split(r"\n(?=\d{3})", header.read_text("utf-8").split("\n\n", 1)[1])
    kept = [field for field in fields if field[3:4] != "*"]
    assert len(kept) < len(fields)
    assert not any("bank.example" in field for field in kept)
    (ours,) = (field for field in kept if "Authentication-Results" in field)
    assert "mx2.example.com" in ours
