"""Run the command as a user would, with a ledger of the test's own.

``run`` calls it in this process, which costs a tenth of what a process costs.
``start`` and ``execute`` start a process.
"""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.command import fork_server, runner

QUICK = {
    "DRAINER_RETRY__FIRST": "200ms",
    "DRAINER_RETRY__MAX": "400ms",
    "DRAINER_RETRY__UNKNOWN": "300ms",
    "DRAINER_BREAKER__GIVE_UP_AFTER": "1s",
    "DRAINER_BREAKER__PAUSES": '["200ms"]',
    "DRAINER_PRIMARY__IDLE_TIMEOUT": "200ms",
    "DRAINER_PRIMARY__HELO": "backup.example",
}
"""Waits that suit a test; the defaults suit a primary."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.strip()]


@dataclass(slots=True)
class Drainer:
    """The command with a ledger and an environment."""

    ledger: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(QUICK))
    #: Of a ledger in a server database; ``ledger`` names the folder all the same.
    url: str = ""
    #: As interpreters of their own, whose costs are measured (fork_server.start).
    fresh: bool = False

    def _environment(self) -> dict[str, str]:
        ledger = {"DRAINER_LEDGER__URL": self.url or str(self.ledger)}
        return runner.environment(**self.environment, **ledger)

    def start(
        self, *arguments: object, leads_group: bool = False
    ) -> "subprocess.Popen[str]":
        """Start a command and return its process, its outputs on pipes.

        ``leads_group``: of processes, as a command of an interactive shell.
        """
        return fork_server.start(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(),
            cwd=self.ledger.parent,
            process_group=0 if leads_group else None,
            fresh=self.fresh,
        )

    def execute(self, *arguments: object, timeout: float = 120) -> Result:
        """Run a command to its end in a process of its own."""
        process = self.start(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Result(process.returncode, stdout, stderr)

    def run(self, *arguments: object) -> Result:
        """Run a command to its end; in this process, but for threads.

        Output, environment and signals belong to the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            return self.execute(*arguments)
        with _inside(self._environment()), contextlib.chdir(self.ledger.parent):
            done = runner.call(*arguments)
        return Result(done.code, done.stdout, done.stderr)

    def drain(self, source: object, port: int, *more: object) -> Result:
        """Drain to a loopback port, as fast as it goes."""
        return self.run(*drain_arguments(source, port, *more))

    def recipients(self, *filters: object) -> list[dict[str, Any]]:
        """Return what `list --json` prints; nothing while there is no ledger."""
        result = self.run("list", "--json", *filters)
        return [] if result.code else result.objects

    def states(self) -> dict[str, str]:
        """Return the state of every recipient by its forward-path."""
        return {row["forward_path"]: row["state"] for row in self.recipients()}

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        return self.run("status", "--json").objects[0]


@contextlib.contextmanager
def _inside(environment: dict[str, str]) -> Iterator[None]:
    """Give this process another environment while the block runs."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def drain_arguments(source: object, port: int, *more: object) -> Sequence[object]:
    """Return the arguments of a drain to a loopback port."""
    to = f"127.0.0.1:{port}"
    fast = ("--rate", "unlimited") if "--rate" not in more else ()
    return ("drain", source, "--to", to, "--json", *fast, *more)


def write_maildir(
    root: Path, count: int, *, size: int = 300, domain: str = "example.org"
) -> list[str]:
    """Write a Maildir of messages as Postfix's local(8) leaves them.

    Returns the forward-paths, one per message: user0@DOMAIN and so on.
    """
    for name in ("tmp", "new", "cur"):
        (root / name).mkdir(parents=True, exist_ok=True)
    paths = []
    for n in range(count):
        recipient = f"user{n}@{domain}"
        text = maildir_message(n, recipient, size)
        (root / "new" / f"1795453785.M{n:06}P1.backup").write_bytes(text)
        paths.append(recipient)
    return paths


def maildir_message(n: int, recipient: str, size: int = 300) -> bytes:
    """Return one message with the trace fields of a backup."""
    head = (
        f"Return-Path: <sender{n}@sender{n % 7}.example>\n"
        f"X-Original-To: {recipient}\n"
        f"Delivered-To: {recipient}\n"
        f"Received: from client.example (client.example [192.0.2.1])\n"
        f"\tby backup.example (Postfix) with ESMTP id {n:08X}\n"
        f"\tfor <{recipient}>; Mon, 23 Nov 2026 17:06:59 +0000 (UTC)\n"
        f"From: sender{n}@sender{n % 7}.example\n"
        f"Message-ID: <{n}@sender.example>\n"
        f"Subject: message {n}\n\n"
    )
    line = "0123456789abcdefghijklmnopqrstuvwxyz.\n"
    body = f"body of {n}\n.dot\n" + line * (size // len(line))
    return (head + body).encode()
