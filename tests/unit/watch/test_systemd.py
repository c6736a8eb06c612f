"""What systemd is told, on real datagram sockets."""

import os
import socket
import time
from pathlib import Path

import pytest

from drainer.watch.systemd import MAX_STATUS, Notifier


def listening(address: str) -> socket.socket:
    """Return a socket that receives what is told."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.bind(address)
    link.settimeout(5)
    return link


def tell_all(notifier: Notifier) -> None:
    """Tell everything that there is to tell."""
    notifier.ready()
    notifier.status("probing:\n  connect refused" + "x" * 1000)
    notifier.alive()
    notifier.reloading()
    notifier.stopping()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_every_message_is_a_datagram_of_assignments(tmp_path: Path, kind: str) -> None:
    """On a socket in the file system, and on an abstract one."""
    name = f"{tmp_path}/notify" if kind == "path" else f"@drainer-test-{os.getpid()}"
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}
    before = time.monotonic_ns() // 1000
    with listening("\0" + name[1:] if kind == "abstract" else name) as link:
        tell_all(Notifier(environment))
        said = [link.recv(4096).decode() for _ in range(5)]
    assert [said[0], said[2], said[4]] == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    assert said[1].startswith("STATUS=probing: connect refused")
    assert "\n" not in said[1]
    assert len(said[1]) == MAX_STATUS + len("STATUS=")
    reloading, clock = said[3].splitlines()
    assert reloading == "RELOADING=1"
    micros = int(clock.removeprefix("MONOTONIC_USEC="))
    assert before <= micros <= time.monotonic_ns() // 1000


def test_a_status_shows_addresses_only_if_asked_for(tmp_path: Path) -> None:
    """`systemctl status` shows it to anybody on the host."""
    name, refusal = f"{tmp_path}/notify", "550 5.1.1 <anna@example.org>: no anna here"
    with listening(name) as link:
        for plain in (False, True):
            Notifier({"NOTIFY_SOCKET": name}, plain=plain).status(refusal)
        hashed, shown = (link.recv(4096).decode() for _ in range(2))
    assert "anna" not in hashed
    assert "550 5.1.1" in hashed
    assert shown == f"STATUS={refusal}"


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getppid())}],
    ids=["none", "another process's"],
)
def test_without_a_watchdog_there_is_no_sign_of_life(
    tmp_path: Path, watchdog: dict[str, str]
) -> None:
    """The next datagram is the next message."""
    name = f"{tmp_path}/notify"
    with listening(name) as link:
        notifier = Notifier({"NOTIFY_SOCKET": name} | watchdog)
        notifier.alive()
        notifier.stopping()
        assert link.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("name", ["", "/nowhere/notify", "x" * 300])
def test_without_a_socket_nothing_happens(name: str) -> None:
    """A watch goes on whoever started it."""
    tell_all(Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"}))
