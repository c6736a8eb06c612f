"""The wheel and the Debian package: built, checked, installed, used and removed.

The package is installed in a copy of this machine that exists for one test: an overlay
over its root, in a mount namespace of its own. Nothing of it reaches the machine.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.deploy import DOCS
from tests.support.command.installed import write_maildir
from tests.support.paths import ROOT
from tests.support.smtp_peer.peer import PeerThread

#: A build compresses a hundred megabytes, maybe beside other tests.
pytestmark = pytest.mark.timeout(900)

#: A compiler that is needed after all would be noticed.
NO_COMPILER: Final = {"CC": "/bin/false", "CXX": "/bin/false"}
#: Compressed in a tenth of the time.
QUICKLY: Final = {"DPKG_DEB_COMPRESSOR_LEVEL": "1"}
DEVELOPERS: Final = ("pytest", "mypy", "ruff", "hypothesis", "selenium")
CLEAN: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def run(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its output is the failure."""
    done = subprocess.run(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=840,
        env=env,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder with the wheel and the source distribution.

    They are built once, however many processes run these tests.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "dist"
    with (shared / "dist.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            run("make", "-C", ROOT, "wheel", f"DIST={folder}.new")
            Path(f"{folder}.new").rename(folder)
    return folder


def wheel_in(folder: Path) -> Path:
    """Return the one wheel of a folder."""
    (wheel,) = folder.glob("drainer-*.whl")
    return wheel


# ---- wheel and source distribution


def test_the_wheel_has_every_file_of_the_package(dist: Path) -> None:
    """Code, tables of rules, and the status page; and nothing else."""
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "drainer").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel_in(dist)) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert "drainer/policy/classify/families.toml" in expected


def test_the_source_distribution_has_what_a_packager_needs(dist: Path) -> None:
    """The licence, the tests and the files of deploy/; the wheel was made of it."""
    (place,) = dist.glob("drainer-*.tar.gz")
    with tarfile.open(place) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml", "LICENSE", "README.md", "Makefile", "drainer.toml",
        "deploy/debian/rules", "deploy/systemd/drainer.service",
        "docs/recipes.md", "tests/test_docs.py",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith((".venv", "dist/", "build/"))]


def test_a_second_build_is_the_same(dist: Path, tmp_path: Path) -> None:
    """Byte by byte, for the same commit."""
    run("make", "-C", ROOT, "wheel", f"DIST={tmp_path}/again")
    again = wheel_in(tmp_path / "again")
    digests = [
        hashlib.sha256(each.read_bytes()).hexdigest()
        for each in (wheel_in(dist), again)
    ]
    assert digests[0] == digests[1]


def test_the_wheel_runs_in_a_clean_environment(dist: Path, tmp_path: Path) -> None:
    """As pipx and uv install it: no compiler, and no tool for developers."""
    home = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home)
    pip = (sys.executable, "-m", "pip", "--python", home / "bin" / "python")
    install = ("install", "--quiet", "--no-compile")
    run(*pip, *install, wheel_in(dist), env=os.environ | NO_COMPILER)
    (packages,) = home.glob("lib/python3.*/site-packages")
    assert [each for each in DEVELOPERS if (packages / each).exists()] == []
    write_maildir(tmp_path / "spool", 3)
    command = (home / "bin" / "drainer", "inspect", f"maildir:{tmp_path}/spool")
    done = run(*command, "--json", env=CLEAN, cwd=tmp_path)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3


# ---- the Debian package

Machine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Give the package; `make deb` fails for any complaint of lintian."""
    for tool in ("dh", "lintian", "dpkg-buildpackage"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    places = (f"DIST={tmp_path}/dist", f"DEB={tmp_path}/build")
    run("make", "-C", ROOT, "deb", *places, env=os.environ | QUICKLY)
    (found,) = (tmp_path / "dist").glob("drainer_*.deb")
    return found


@contextlib.contextmanager
def copy_of_this_machine(package: Path, base: Path) -> Iterator[Machine]:
    """Give a function that runs a command in a copy of this machine with the package.

    The copy is an overlay: a command sees what the ones before it changed, and the
    machine itself sees none of it.
    """
    for name in ("upper", "work", "root"):
        (base / name).mkdir(parents=True)
    options = f"lowerdir=/,upperdir={base}/upper,workdir={base}/work"
    enter = (
        f"mount -t overlay overlay -o {options} {base}/root"
        f" && mount -t proc proc {base}/root/proc"
        f" && mount --rbind /dev {base}/root/dev"
        f' && exec chroot {base}/root "$@"'
    )

    def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return run("unshare", "--mount", "sh", "-c", enter, "sh", *words, env=CLEAN)

    deb = Path("/root/drainer.deb")
    (base / "upper" / "root").mkdir(mode=0o700)
    shutil.copy(package, base / "upper" / "root" / deb.name)
    command("dpkg", "--install", deb)
    yield command
    shutil.rmtree(base)


def test_the_package_is_sound_from_its_build_to_its_purge(
    package: Path, peer: Callable[..., PeerThread], tmp_path: Path
) -> None:
    """One test, because a build and an installation take longer than all its checks."""
    check_size(package)
    if os.geteuid() != 0:
        pytest.skip("only root can install a package")
    with copy_of_this_machine(package, tmp_path / "machine") as machine:
        check_command(machine)
        check_units(machine)
        check_drain(machine, peer(), tmp_path / "spool")
        check_configuration(machine)
        check_removal(machine)


def check_size(package: Path) -> None:
    """Compare its size with what the docs say: in megabytes, to a tenth."""
    shown = run("dpkg-deb", "--field", package, "Installed-Size").stdout
    for page in (ROOT / "README.md", DOCS / "deploy.md"):
        (said,) = re.findall(r"takes (\d+) MB", page.read_text("utf-8"))
        assert abs(int(shown) / 1000 - int(said)) < int(said) / 10, shown


def check_command(machine: Machine) -> None:
    """Find command, manual and completion as the programs that look for them do."""
    assert machine("drainer", "--version").stdout == "drainer 0.1.0\n"
    assert machine("man", "-w", "drainer", "drainer-drain").stdout.count("\n") == 2
    places = (
        "/usr/share/bash-completion/completions/drainer",
        "/usr/share/zsh/vendor-completions/_drainer",
        "/usr/share/fish/vendor_completions.d/drainer.fish",
    )
    machine("ls", *places)
    assert machine("head", "-1", places[1]).stdout == "#compdef drainer\n"
    asked = "fish -c 'complete -C \"drainer list --state de\"'"
    shown = machine("sh", "-c", f"! command -v fish >/dev/null || {asked}").stdout
    assert sorted(shown.split()) in ([], ["deferred", "delivered"])


def check_units(machine: Machine) -> None:
    """Let systemd read them; user and folders are there, nothing is enabled."""
    units = "/lib/systemd/system/drainer"
    names = [
        f"{units}{each}"
        for each in (
            ".service", ".socket", "-bounces.service", "-bounces.timer",
            "-hook.service", "-hook.path", "-drain@.service", "-drain@.timer",
        )
    ]  # fmt: skip
    verified = [name for name in names if "@" not in name]
    machine("systemd-analyze", "verify", "--man=no", *verified)
    machine("ls", *names)
    machine("id", "drainer")
    shown = machine("stat", "-c", "%A %U %G", "/etc/drainer", "/var/lib/drainer").stdout
    assert shown.split("\n")[:2] == [
        "drwxr-x--- root drainer",
        "drwx------ drainer drainer",
    ]
    wanted = machine(
        "sh", "-c", "ls /etc/systemd/system/*.wants | grep -c drainer || :"
    )
    assert wanted.stdout.strip() == "0"


def check_drain(machine: Machine, primary: PeerThread, spool: Path) -> None:
    """Drain with the default configuration; the service's user reads the ledger."""
    write_maildir(spool, 4)
    to = ("--to", f"127.0.0.1:{primary.port}", "--no-check", "--json")
    done = machine("drainer", "drain", f"maildir:{spool}", *to)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["exit"] == 0
    assert len(primary.accepted) == 4
    user = ("setpriv", "--reuid=drainer", "--regid=drainer", "--clear-groups")
    state = ("env", "XDG_STATE_HOME=/var/lib")
    status = machine(*user, *state, "drainer", "status", "--json").stdout
    assert json.loads(status.splitlines()[-1])["states"]["delivered"] == 4
    for extra in ("psycopg", "pymysql", "uvicorn", "starlette"):
        machine("/opt/drainer/bin/python3", "-c", f"import {extra}")


def check_configuration(machine: Machine) -> None:
    """Look for a conffile that changes nothing until an operator edits it."""
    listed = machine("dpkg-query", "-W", "-f", "${Conffiles}", "drainer").stdout
    assert "/etc/drainer/drainer.toml" in listed
    lines = machine("cat", "/etc/drainer/drainer.toml").stdout.splitlines()
    assert [x for x in lines if x and not x.startswith(("#", "["))] == []
    machine("drainer", "config", "--config", "/etc/drainer/drainer.toml")


def check_removal(machine: Machine) -> None:
    """Remove and purge: the conffile stays first, then only the ledger does.

    Without the ledger, a spool that is still there would be sent again.
    """
    machine("dpkg", "--remove", "drainer")
    machine("test", "-e", "/etc/drainer/drainer.toml")
    machine("sh", "-c", "! test -e /usr/bin/drainer && ! test -e /opt/drainer")
    machine("sh", "-c", "test -d /var/lib/drainer || mkdir /var/lib/drainer")
    machine("touch", "/var/lib/drainer/ledger.db")
    done = machine("dpkg", "--purge", "drainer")
    assert "/var/lib/drainer stays" in done.stdout
    machine("test", "-e", "/var/lib/drainer/ledger.db")
    machine("sh", "-c", "! test -e /etc/drainer && ! command -v drainer")
    left = machine("find", "/lib/systemd", "/etc/systemd", "-name", "*drainer*")
    assert left.stdout == ""
