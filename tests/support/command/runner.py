"""The command as a test runs it, with a spool, a ledger and a configuration of its own.

``Bench.run`` calls the command in this process, which costs little; ``Bench.start``
starts a process, for what needs one: another user, a signal, two at a time.
"""

import contextlib
import gc
import io
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from drainer.cli import app
from drainer.cli.output import print_error
from drainer.errors import DrainerError
from tests.support.command import fork_server
from tests.support.spools.postfix_files import place, queue_file, record

#: Nothing is waited for: what is not sent at once is left for the next run.
SETTINGS: Final[Mapping[str, Mapping[str, object]]] = {
    "primary": {
        "host": "127.0.0.1",
        "helo": "backup.example",
        "tls": "off",
        "domains": ["example.org"],
        "connections": 1,
        "max_age": "1m",
        "command_timeout": "10s",
        "banner_timeout": "10s",
        "data_timeout": "10s",
        "body_timeout": "10s",
        "dot_timeout": "10s",
    },
    "throttle": {"rate": "unlimited", "ramp": "0s"},
    "bounce": {"dns_servers": ["127.0.0.1"], "dns_port": 9, "dns_timeout": "200ms"},
    "retry": {
        "first": "20ms",
        "max": "40ms",
        "jitter": 0,
        "long_first": "30ms",
        "long_max": "60ms",
        "unknown": "20ms",
    },
    "breaker": {"pauses": ["20ms"], "give_up_after": "0s"},
}
TIMEOUT: Final = 60
#: A process of tests has a million objects: it looks for cycles less often than usual.
GARBAGE: Final = (10_000, 10, 10)
NO_DNS: Final[Mapping[str, str]] = {
    "DRAINER_BOUNCE__DNS_SERVERS": '["127.0.0.1"]',
    "DRAINER_BOUNCE__DNS_PORT": "9",
    "DRAINER_BOUNCE__DNS_TIMEOUT": "200ms",
}
"""Tests ask no name server but their own."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The last line of its output."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def lines(self) -> list[Any]:
        """Every line of its output."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def call(*args: object) -> Result:
    """Run the command in this process, as the console script does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app([str(arg) for arg in args])
        except DrainerError as error:
            code = print_error(error)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        else:
            code = 0
        finally:  # a drain sets the collector as suits a process that ends
            gc.unfreeze()
            gc.set_threshold(*GARBAGE)
    return Result(code, out.getvalue(), err.getvalue())


def start(*args: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return fork_server.start(
        args,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process: subprocess.Popen[str]) -> Result:
    """Wait for a process that ``start`` gave."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Result(process.returncode, out, err)


def toml(settings: Mapping[str, Mapping[str, object]]) -> str:
    """Write a configuration; JSON's values are TOML's, and None leaves a key out."""
    parts = []
    for section, keys in settings.items():
        parts.append(f"[{section}]")
        parts += [
            f"{key} = {json.dumps(value)}"
            for key, value in keys.items()
            if value is not None
        ]
    return "\n".join(parts) + "\n"


@dataclass(slots=True)
class Bench:
    """A folder with a Postfix queue, a configuration and a ledger."""

    root: Path
    port: int = 25
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    #: A [[routes]] table for each.
    routes: list[dict[str, object]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        """Make the queue, so that it may stay empty."""
        (self.spool / "deferred").mkdir(parents=True, exist_ok=True)

    @property
    def spool(self) -> Path:
        """The queue directory."""
        return self.root / "spool"

    @property
    def ledger(self) -> Path:
        """The ledger of every command."""
        return self.root / "ledger.db"

    # ---- mail

    def add(
        self,
        *recipients: str,
        sender: str = "s@example.com",
        text: bytes = b"Subject: hello\n\nbody\n",
        envelope: Sequence[bytes] = (),
        **options: Any,
    ) -> str:
        """Put a message into the spool; return its queue id."""
        self._count += 1
        name = f"{0xA0000 + self._count:X}"
        head = f"Message-ID: <{self._count}@test.example>\n".encode()
        records = [*envelope, *(record("R", address) for address in recipients)]
        data = queue_file(
            sender=sender.encode(), envelope=records, text=head + text, **options
        )
        place(self.spool, data, name, ("deferred", name[0]))
        return name

    # ---- commands

    def configure(self, **sections: Mapping[str, object]) -> None:
        """Lay settings over those of this bench."""
        for section, keys in sections.items():
            self.settings.setdefault(section, {}).update(keys)

    @property
    def config(self) -> Path:
        """The configuration file, written anew."""
        merged = {
            section: {**SETTINGS.get(section, {}), **self.settings.get(section, {})}
            for section in {**SETTINGS, **self.settings}
        }
        merged["primary"].setdefault("port", self.port)
        path = self.root / "drainer.toml"
        routes = (toml({"[routes]": each}) for each in self.routes)
        path.write_text("\n".join([toml(merged), *routes]), "utf-8")
        return path

    def arguments(self, *args: str | Path) -> list[str | Path]:
        """Return the arguments of a command with this configuration and ledger."""
        command, *rest = args
        return [command, *rest, "--config", self.config, "--ledger", self.ledger]

    def run(self, *args: str | Path) -> Result:
        """Run a command in this process with this configuration and ledger."""
        return call(*self.arguments(*args))

    def start(self, *args: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command in a process of its own, likewise."""
        return start(*self.arguments(*args), **options)

    def drain(self, *args: str | Path, check: bool = False) -> Result:
        """Drain the spool, without the health check unless asked for."""
        flags = [] if check else ["--no-check"]
        return self.run("drain", f"postfix:{self.spool}", "--json", *flags, *args)

    # ---- what the ledger says

    def recipients(self) -> dict[str, dict[str, Any]]:
        """Return what `list` says of every recipient, by its address.

        There are none while there is no ledger, which is an error.
        """
        result = self.run("list", "--json")
        found = [] if result.code else result.lines
        assert len({fact["forward_path"] for fact in found}) == len(found)
        return {fact["forward_path"]: fact for fact in found}

    def states(self) -> dict[str, str]:
        """Return the state of every recipient, by its address."""
        return {path: fact["state"] for path, fact in self.recipients().items()}

    def why(self, id_: str) -> dict[str, Any]:
        """Return what `why` says of a message."""
        facts: dict[str, Any] = self.run("why", id_, "--json").json
        return facts

    def verdicts(self, id_: str) -> list[dict[str, Any]]:
        """Return the verdicts on a message, in order."""
        return [d for d in self.why(id_)["decisions"] if d["kind"] == "verdict"]

    def assert_balanced(self) -> None:
        """Check that every recipient that was scanned is accounted for (P1)."""
        status = self.run("status", "--json").json
        assert status["balanced"] is True
        assert status["states"]["in-flight"] == 0
        assert status["spooled"] == sum(status["states"].values())


def environment(**variables: str) -> dict[str, str]:
    """Return an environment without any of drainer's variables but these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DRAINER_")}
    return {**kept, **NO_DNS, **variables}
