"""The units, as systemd itself reads them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.deploy import DEPLOY
from tests.deploy.commands import parses

UNITS: Final = DEPLOY / "systemd"
OVERRIDES: Final = sorted((UNITS / "overrides").iterdir())
#: unit -> the exposure that `systemd-analyze security` may find, in tenths.
EXPOSURE: Final = {
    "drainer.service": 15,
    "drainer-drain@.service": 15,
    "drainer-hook.service": 15,
    "drainer-bounces.service": 15,
}
INSTALLED: Final = "/opt/drainer/bin/drainer"
PROGRAM: Final = Path(sys.executable).with_name("drainer")


def systemd(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of its programs."""
    program = shutil.which(str(command[0]))
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Give the units as installed: the command lies where they say."""
    for place in UNITS.iterdir():
        if place.is_file():
            text = place.read_text("utf-8").replace(INSTALLED, str(PROGRAM))
            (tmp_path / place.name).write_text(text, "utf-8")
    return tmp_path


def install(units: Path, override: Path, unit: str = "drainer.service") -> None:
    """Install one override of a unit."""
    folder = units / f"{unit}.d"
    folder.mkdir()
    shutil.copy(override, folder)


NAMES: Final = (
    "drainer.service",
    "drainer.socket",
    "drainer-drain@x.service",
    "drainer-drain@x.timer",
    "drainer-drain@x.path",
    "drainer-hook.service",
    "drainer-hook.path",
    "drainer-bounces.service",
    "drainer-bounces.timer",
)


def test_systemd_finds_nothing_to_complain_about(units: Path) -> None:
    """All units together, with what they refer to."""
    done = systemd("systemd-analyze", "verify", "--man=no", *(units / n for n in NAMES))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("unit", "override"),
    [
        *(("drainer.service", each) for each in OVERRIDES),
        *(
            ("drainer-bounces.service", each)
            for each in OVERRIDES
            if each.stem.startswith("postfix-")
        ),
    ],
    ids=lambda value: getattr(value, "stem", value),
)
def test_each_override_fits_the_unit(units: Path, unit: str, override: Path) -> None:
    """No option is misspelt, no line is lost."""
    install(units, override, unit)
    done = systemd("systemd-analyze", "verify", "--man=no", units / unit)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mail_server_that_starts_tells_the_watch(tmp_path: Path) -> None:
    """By the part for its unit, which must not keep it from starting."""
    text = (DEPLOY / "hooks" / "mail-server.conf").read_text("utf-8")
    called = re.findall(r"^ExecSt\w+Post=(.*)$", text, re.MULTILINE)
    notify = "-/usr/local/bin/drainer-notify"
    assert [call.split()[:2] for call in called] == [[notify, "up"], [notify, "down"]]
    unit = tmp_path / "exim4.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n", "utf-8")
    folder = tmp_path / "exim4.service.d"
    folder.mkdir()
    (folder / "drainer.conf").write_text(text.replace(notify, "-/bin/true"), "utf-8")
    done = systemd("systemd-analyze", "verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")


def exposure(unit: Path) -> float:
    """Return what `systemd-analyze security` says, from 0 (safe) to 10."""
    done = systemd("systemd-analyze", "security", "--offline=true", unit)
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return float(found[1])


@pytest.mark.parametrize("unit", EXPOSURE)
def test_the_sandbox_is_tight(units: Path, unit: str) -> None:
    """What remains is the network, and a view of /proc that drainer needs."""
    assert exposure(units / unit) <= EXPOSURE[unit] / 10


def test_reading_a_copy_costs_little_of_it(units: Path) -> None:
    """One capability, to read; the live queue needs root, and says so."""
    install(units, UNITS / "overrides" / "postfix-copy.conf")
    assert exposure(units / "drainer.service") <= 2.0


def test_units_run_commands_that_exist() -> None:
    """With options that the commands have."""
    found = 0
    for place in UNITS.glob("*.service"):
        text = place.read_text("utf-8")
        for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE):
            parses(shlex.split(line))
            found += 1
    assert found == 4


def test_drops_in_set_variables_that_the_configuration_has(tmp_path: Path) -> None:
    """A misspelt one would be refused when the service starts."""
    text = (UNITS / "overrides" / "credentials.conf").read_text("utf-8")
    pairs = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
    names = re.findall(r"^LoadCredential=([\w.]+):", text, re.MULTILINE)
    assert set(pairs.values()) == {f"%d/{name}" for name in names}
    for name in names:
        (tmp_path / name).write_text("0123456789abcdef\n")
        (tmp_path / name).chmod(0o600)
    values = {k: v.replace("%d", str(tmp_path)) for k, v in pairs.items()}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "drainer",
            "config",
            "--json",
            "--config",
            DEPLOY / "drainer.toml",
        ],
        env={"PATH": os.defpath, "HOME": str(tmp_path)} | values,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["primary"]["password_file"].startswith(str(tmp_path))


def test_sysusers_and_tmpfiles_are_read_by_systemd(tmp_path: Path) -> None:
    """In a root of their own: the user first, then the folders that belong to it."""
    (tmp_path / "etc").mkdir()
    root = f"--root={tmp_path}"
    done = systemd("systemd-sysusers", root, UNITS / "drainer.sysusers")
    assert done.returncode == 0, done.stderr
    user = (tmp_path / "etc" / "passwd").read_text("utf-8")
    assert user.startswith("drainer:x:")
    if os.geteuid() != 0:
        return
    made_by_root = tmp_path / "var" / "lib" / "drainer" / "ledger.db.locks" / "x"
    made_by_root.parent.mkdir(parents=True)
    made_by_root.touch()
    done = systemd("systemd-tmpfiles", "--create", root, UNITS / "drainer.tmpfiles")
    assert done.returncode == 0, done.stderr
    number = int(user.split(":")[2])
    ledger = (tmp_path / "var" / "lib" / "drainer").stat()
    assert (ledger.st_uid, ledger.st_mode & 0o777) == (number, 0o700)
    assert made_by_root.stat().st_uid == number
    assert (tmp_path / "run" / "drainer").stat().st_mode & 0o777 == 0o770
