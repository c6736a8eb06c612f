"""What this host does not grant: fewer sessions, a message in words, no traceback."""

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from drainer.delivery.census.interview import open_callout
from drainer.delivery.control import DrainControl
from drainer.delivery.scanner import scan, scanner
from drainer.delivery.settings import PacingSettings, RouteSettings
from drainer.errors import HostLimit, SourceLost
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.selection import Selection
from drainer.policy.pacing.rate import UNLIMITED
from drainer.policy.watch.machine import Observation
from drainer.policy.watch.states import WatchEvent
from drainer.smtp.health_check import HealthProbe
from drainer.smtp.route import Route
from drainer.sources.registry import open_source
from drainer.watch.health import _ask
from tests.support.command.installed import Drainer, drain_arguments, write_maildir
from tests.support.command.runner import environment
from tests.support.dns.zones import serving, zone_of
from tests.support.scenarios.bounces import age, nobody_unknown, refusing
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, Step, View

StartPeer = Callable[..., PeerThread]
TIMEOUT: Final = 90
NOBODY: Final = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--")


def run(
    prefix: Sequence[str], arguments: Sequence[object], **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command behind a prefix that takes something from it."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "drainer", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env=environment(**variables),
    )


def shell(line: str) -> tuple[str, ...]:
    """Return a prefix: a shell that changes its own limits or streams first."""
    return ("sh", "-c", line, "sh")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Give a folder that users without privileges can reach, as pytest's cannot."""
    place = Path(tempfile.mkdtemp(prefix="drainer-limits-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture
def arguments(tmp_path: Path) -> Iterator[list[object]]:
    """Give the arguments of a drain of 20 messages to a friendly primary."""
    write_maildir(tmp_path / "spool", 20)
    with PeerThread(Script()) as primary:
        yield [
            *drain_arguments(f"maildir:{tmp_path}/spool", primary.port, "--no-check"),
            "--ledger",
            tmp_path / "ledger.db",
        ]


def test_few_descriptors_mean_fewer_sessions_and_one_warning(
    tmp_path: Path, arguments: list[object]
) -> None:
    """The warning names the limit and the setting; everything is delivered."""
    del tmp_path
    prefix = shell('ulimit -n 70; exec "$@"')
    done = run(prefix, [*arguments, "--connections", "50"])
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stderr.count("10 connections instead of 50") == 1
    assert "70 descriptors" in done.stderr
    assert "[primary] connections" in done.stderr


def test_the_soft_limit_is_raised_first(arguments: list[object]) -> None:
    """A session has 1024 by default, and may have more without asking a person."""
    prefix = shell('ulimit -S -n 70; exec "$@"')
    done = run(prefix, [*arguments, "--connections", "20"])
    assert done.returncode == 0, done.stderr
    assert "instead of" not in done.stderr


REFUSED: Final[dict[str, str]] = {
    "descriptors for no session": 'ulimit -n 30; exec "$@"',
    "hardly a descriptor": 'ulimit -n 10; exec "$@"',
    "little memory": 'ulimit -v 90000; exec "$@"',
    "a file may have 50 kB": 'ulimit -f 100; exec "$@"',
    "standard output is full": 'exec "$@" >/dev/full',
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_what_a_host_refuses_is_said_in_words(
    arguments: list[object], line: str
) -> None:
    """Exit 1 and a line that says what to raise; never a traceback."""
    done = run(shell(line), [*arguments, "--json"])
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "error: " in done.stderr
    assert "Warning" not in done.stderr
    if "/dev/full" not in line:
        failure = json.loads(done.stdout.splitlines()[-1])
        assert failure["exit"] == 1
        assert failure["error"] in done.stderr


GRANTED: Final[dict[str, tuple[tuple[str, ...], Mapping[str, str]]]] = {
    "a nice process": (("nice", "-n", "10"), {"DRAINER_TELEMETRY__TRACES": "x.jsonl"}),
    "no standard streams": (shell('exec "$@" <&- >&- 2>&-'), {}),
    "no temporary folder": ((), {"TMPDIR": "/nonexistent"}),
    "no home": (("env", "-u", "HOME", "-u", "XDG_STATE_HOME"), {}),
}


@pytest.mark.parametrize(("prefix", "variables"), GRANTED.values(), ids=GRANTED)
def test_what_a_drain_does_not_need_may_be_missing(
    tmp_path: Path,
    arguments: list[object],
    prefix: tuple[str, ...],
    variables: dict[str, str],
) -> None:
    """It delivers everything, and the ledger is a ledger afterwards."""
    variables = {
        name: value.replace("x.jsonl", f"file:{tmp_path}/traces.jsonl")
        for name, value in variables.items()
    }
    done = run(prefix, arguments, **variables)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    states = Drainer(tmp_path / "ledger.db").states()
    assert set(states.values()) == {"delivered"}
    assert len(states) == 20


def test_a_user_without_privileges_may_be_nice_and_short_of_processes(
    tmp_path: Path, arguments: list[object]
) -> None:
    """No niceness is lowered; a fork or a thread that fails is said in words."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a user of its own")
    subprocess.run(("chown", "-R", "12345:12345", str(tmp_path)), check=True)
    traces = f"file:{tmp_path}/traces.jsonl"
    few = (*NOBODY, "prlimit", "--nproc=2:2", "--")
    refused = run(few, arguments)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "cannot start another process or thread" in refused.stderr
    nice = ("nice", "-n", "15", *NOBODY)
    done = run(nice, arguments, DRAINER_TELEMETRY__TRACES=traces)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


# ---- a ledger that may only be read


@pytest.fixture
def drained(tmp_path: Path, arguments: list[object]) -> Path:
    """Give a ledger after a drain."""
    assert run((), arguments).returncode == 0
    return tmp_path / "ledger.db"


READ_ONLY: Final[dict[str, tuple[int, int]]] = {
    "file": (0o444, 0o755),
    "folder": (0o644, 0o555),
    "both": (0o444, 0o555),
}


@pytest.mark.parametrize(("file", "folder"), READ_ONLY.values(), ids=READ_ONLY)
def test_a_read_only_ledger_is_still_read(
    tmp_path: Path, drained: Path, arguments: list[object], file: int, folder: int
) -> None:
    """`status`, `list` and `why` answer; `drain` says what is wrong before it sends."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a user of its own")
    drained.chmod(file)
    tmp_path.chmod(folder)
    for command in (("status",), ("list",), ("why", "1795453785.M000003P1.backup")):
        done = run(NOBODY, [*command, "--ledger", drained])
        assert done.returncode == 0, done.stderr
        assert "delivered" in done.stdout or "accepted" in done.stdout
    refused = run(NOBODY, arguments)
    assert refused.returncode == 2, refused.stderr
    assert "is read-only" in refused.stderr
    assert "draining" in refused.stderr


# ---- while it runs


def test_descriptors_that_run_out_in_mid_run_blame_no_message(tmp_path: Path) -> None:
    """Taken away while it drains: messages wait or the drain ends; none is held."""
    drainer = Drainer(tmp_path / "ledger.db")
    write_maildir(tmp_path / "spool", 30)
    with PeerThread(Script()) as primary:
        spool = f"maildir:{tmp_path}/spool"
        slow = drain_arguments(spool, primary.port, "--no-check", "--rate", "10/second")
        process = drainer.start(*slow, "--connections", "8")
        primary.wait(lambda: len(primary.accepted) >= 2, timeout=TIMEOUT)
        limit(process.pid, in_use(process.pid))
        primary.wait(lambda: len(primary.accepted) >= 6, timeout=TIMEOUT)
        limit(process.pid, 1024)
        _, stderr = process.communicate(timeout=TIMEOUT)
        assert "Traceback" not in stderr, stderr
        assert process.returncode in (0, 1, 5), stderr
        states = set(drainer.states().values())
        assert states <= {"delivered", "pending", "deferred"}, states
        assert drainer.run(*slow).code == 0
        assert len(primary.accepted) == 30


@pytest.mark.parametrize("has_job", [False, True])
def test_a_killed_scan_is_no_usage_error(tmp_path: Path, *, has_job: bool) -> None:
    """The kernel may take that process for its memory: exit 1, and what to do."""
    write_maildir(tmp_path / "spool", 1)
    source = open_source(f"maildir:{tmp_path}/spool", options={})

    async def kill() -> None:
        async with scanner() as worker:
            os.kill(worker.pid, signal.SIGSTOP if has_job else signal.SIGKILL)
            if not has_job:
                worker.wait()
            batches = scan(worker, source, Admission(), Selection())
            first = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)  # it has its job now, unread
            worker.kill()
            await first

    with pytest.raises(SourceLost, match="ended unexpectedly") as caught:
        asyncio.run(kill())
    assert caught.value.exit_code == 1
    assert "run the same command again" in caught.value.hint


# ---- what opens a session beside a drain


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    """Leave this process no descriptor for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as taken:
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use(os.getpid()), hard))
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with suppress(OSError):
            while True:
                opened = os.open(os.devnull, os.O_RDONLY)
                taken.callback(os.close, opened)
        yield


SESSIONS: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "check": (0, ("check", "--to", "PRIMARY")),
    "census": (
        0,
        ("census", "SPOOL", "--callout", "--ledger", "LEDGER", "--to", "PRIMARY"),
    ),
    "doctor": (  # which says itself how many descriptors are needed
        3,
        ("doctor", "one.example", "--primary", "PRIMARY", "--dns", "DNS"),
    ),
}


@pytest.mark.parametrize(("code", "words"), SESSIONS.values(), ids=SESSIONS)
def test_a_command_that_only_asks_says_what_this_host_lacks(
    tmp_path: Path, code: int, words: tuple[str, ...]
) -> None:
    """Whichever descriptor is the last: an answer, or exit 1 and what to raise."""
    write_maildir(tmp_path / "spool", 20)
    records = {
        "one.example": [("MX", "0 localhost")],
        "localhost": [("A", "127.0.0.1")],
    }
    with PeerThread(Script()) as primary, serving(zone_of(records)) as servers:
        places = {
            "SPOOL": f"maildir:{tmp_path}/spool",
            "LEDGER": f"{tmp_path}/ledger.db",
            "PRIMARY": f"127.0.0.1:{primary.port}",
            "DNS": f"127.0.0.1:{servers.port}",
        }
        arguments = [places.get(word, word) for word in words]
        for descriptors in range(6, 12):
            done = run(shell(f'ulimit -n {descriptors}; exec "$@"'), arguments)
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode != code:
                assert done.returncode == 1, (descriptors, done)
                assert "LimitNOFILE" in done.stderr, (descriptors, done)


def test_a_callout_without_a_session_names_the_limit(peer: StartPeer) -> None:
    """It is an error of this host, and no answer of the primary."""
    settings = RouteSettings(
        route=Route(host="127.0.0.1", port=peer().port, tls="off"),
        probe=HealthProbe(),
        connections=2,
        rates=UNLIMITED,
        pace=PacingSettings(),
        pauses=(timedelta(minutes=1),),
        give_up_after=timedelta(minutes=15),
    )

    async def ask() -> None:
        callout = await open_callout(settings)
        with no_free_descriptor():
            await callout.run([f"u{n}@example.org" for n in range(9)])

    with pytest.raises(HostLimit, match="no file descriptor is free"):
        asyncio.run(ask())


def test_a_watch_takes_it_as_a_check_that_failed(peer: StartPeer) -> None:
    """The watch goes on, and checks again."""
    route = Route(host="127.0.0.1", port=peer().port, tls="off")

    async def check() -> Observation:
        with no_free_descriptor():
            _, found = await _ask(route, HealthProbe())
        return found

    found = asyncio.run(check())
    assert found.event is WatchEvent.BAD
    assert "no file descriptor is free" in found.why


def test_a_part_of_a_drain_that_meets_a_limit_ends_it_in_order() -> None:
    """Also if it opens no session: the error is that of this host."""

    async def read() -> None:
        with no_free_descriptor():
            os.close(os.open(os.devnull, os.O_RDONLY))

    control = DrainControl(print)
    asyncio.run(control.guard(read()))
    assert isinstance(control.error, HostLimit)


def test_reports_stay_queued_until_there_is_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> None:
    """`bounces run` ends with exit 1 and what to raise; the next one sends the rest."""
    monkeypatch.chdir(tmp_path)
    relay = peer(rcpt="450 4.2.1 busy")
    with refusing(tmp_path, relay, peer(Script(rcpt=nobody_unknown))) as bench:
        bench.configure(bounce={"retry": "1h"})
        bench.refuse("nobody1@example.org")
        bench.refuse("nobody2@example.org", sender="eve@sender.example")
        bench.confirm()
        assert bench.reports == []
        age(bench, hours=3)
        second, taken = relay.connections + 2, ExitStack()
        freeing = threading.Timer(0.3, taken.close)

        def greet(view: View) -> Step:
            """Take all descriptors before the session with the relay is open."""
            if view.connection == second:
                taken.enter_context(no_free_descriptor())
                freeing.start()
            return "220 relay.example"

        relay.script = Script(banner=greet)
        result = bench.run("bounces", "run", "--json", "--no-check")
        freeing.join(TIMEOUT)
        assert result.code == 1, result
        assert "no file descriptor is free" in result.stderr
        assert len(bench.reports) == 1
        age(bench, hours=3)
        result = bench.run("bounces", "run", "--json", "--no-check")
        assert result.code == 0, result
        assert len(bench.reports) == 2


def in_use(pid: int) -> int:
    """Return a limit that leaves a process no descriptor."""
    return max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()) + 1


def limit(pid: int, descriptors: int) -> None:
    """Change the soft limit of a running process."""
    change = ("prlimit", "--pid", str(pid), f"--nofile={descriptors}:")
    subprocess.run(change, check=True)
