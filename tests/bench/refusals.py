"""The same mail at the same broken primaries, by `postqueue -f` and by drainer.

Each flushes once while the primary is broken; then it is well, and each goes on. What
counts is who was bounced that the primary, when it is well, takes: a false bounce.
Postfix runs with its defaults; its reports to the senders are thrown away.
"""

import re
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.mta.postfix import PrivatePostfix, instance_directory, wait_until
from tests.support.mta.roles import backup
from tests.support.scenarios.backup import PATIENCE, Backup
from tests.support.scenarios.primaries import Mail, Scenario
from tests.support.scenarios.refusals import SCENARIOS, few_unknown
from tests.support.smtp_peer.peer import PeerThread

LIMIT_SECONDS: Final = 60
_STATUS: Final = re.compile(r" to=<([^>]*)>, .* status=(sent|bounced|deferred) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What became of the recipients."""

    delivered_at_once: int
    delivered_in_the_end: int
    falsely_bounced: int
    exit: int | None = None


def run(*, unknown_among: int) -> None:
    """Print a table, and how a drain with few unknown recipients ends."""
    print(_HEAD)
    totals = [0, 0]
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as name:
            spool = Path(name) / "queue"
            ours_and_theirs = _flush(scenario, spool), _drain(scenario, spool)
        for n, counted in enumerate(ours_and_theirs):
            totals[n] += counted.falsely_bounced
        print(_row(scenario, *ours_and_theirs), flush=True)
    print(f"false bounces in all: Postfix {totals[0]}, drainer {totals[1]}")
    if unknown_among:
        _few_unknown(few_unknown(unknown_among))


# ---- Postfix


def _flush(scenario: Scenario, copy: Path) -> Counted:
    """Flush the mail; a copy of its queue from before is left for the other."""
    with instance_directory() as base, PeerThread(scenario.broken()) as primary:
        here = {
            "defer_transports": "relay",
            "relay_transport": f"relay:[127.0.0.1]:{primary.port}",
            "default_transport": "discard:",
        }
        with backup(base, domains=scenario.domains, parameters=here) as server:
            _submit(server, scenario.mail)
            server.wait_queue(len(scenario.mail))
            copy.mkdir()
            subprocess.run(
                ["cp", "-a", str(server.queue_dir / "deferred"), str(copy)], check=True
            )
            server.set(defer_transports="")
            server.reload()
            first = _flushed(server, set(scenario.recipients))
            primary.script = scenario.well()
            left = {path for path, status in first.items() if status == "deferred"}
            second = _flushed(server, left)
    bounced = {p for p, s in (first | second).items() if s == "bounced"}
    return Counted(
        delivered_at_once=_sent(first),
        delivered_in_the_end=_sent(first | second),
        falsely_bounced=len(bounced - scenario.never),
    )


def _submit(server: PrivatePostfix, mail: Iterable[Mail]) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        for each in mail:
            client.sendmail(each.sender, each.recipients, each.text)


def _flushed(server: PrivatePostfix, waiting: set[str]) -> dict[str, str]:
    """Flush, and return the status of each of these recipients."""
    if not waiting:
        return {}
    before = len(server.log())
    server.flush()

    def told() -> dict[str, str]:
        return {
            path: status
            for path, status in _STATUS.findall(server.log()[before:])
            if path in waiting
        }

    wait_until(
        lambda: told().keys() == waiting,
        timeout=LIMIT_SECONDS,
        what=f"the end of {len(waiting)} deliveries",
    )
    server.wait_queue(0, ("incoming", "active"))
    return told()


def _sent(statuses: dict[str, str]) -> int:
    return list(statuses.values()).count("sent")


# ---- drainer


def _drain(scenario: Scenario, queue: Path) -> Counted:
    """Drain a copy of the same queue, then until nothing is missing."""
    with PeerThread(scenario.broken()) as primary:
        here = Backup(queue.parent, port=primary.port)
        (here.spool / "deferred").rmdir()
        (queue / "deferred").rename(here.spool / "deferred")
        here.adapt(scenario, known_good=True)
        code = here.empty().code
        at_once = list(here.states().values()).count("delivered")
        primary.script = scenario.well()
        wanted = set(scenario.recipients) - scenario.never
        deadline = time.monotonic() + PATIENCE
        while _with(here, "delivered") != wanted and time.monotonic() < deadline:
            here.empty_all()
    judged = _with(here, "bounced") | _with(here, "quarantined")
    return Counted(
        delivered_at_once=at_once,
        delivered_in_the_end=len(_with(here, "delivered")),
        falsely_bounced=len(judged - scenario.never),
        exit=code,
    )


def _with(here: Backup, state: str) -> set[str]:
    return {path for path, found in here.states().items() if found == state}


def _few_unknown(scenario: Scenario) -> None:
    """Drain a large queue of which few recipients do not exist."""
    with (
        tempfile.TemporaryDirectory() as name,
        PeerThread(scenario.broken()) as primary,
    ):
        here = Backup(Path(name), port=primary.port)
        here.prepare(scenario, known_good=True)
        begun = time.monotonic()
        code = here.empty().code
        seconds = time.monotonic() - begun
        states = list(here.states().values())
    print(
        f"{len(states)} messages, {len(scenario.never)} of them to unknown users: exit"
        f" {code}, {states.count('delivered')} delivered,"
        f" {states.count('bounce-pending')} in bounce-pending, {seconds:.1f} s"
    )


# ---- the table

_HEAD: Final = (
    "| the primary | recipients | Postfix: false bounces | delivered at once, in the"
    " end | drainer: false bounces | delivered at once, in the end | exit |\n"
    "|---|---|---|---|---|---|---|"
)


def _row(scenario: Scenario, theirs: Counted, ours: Counted) -> str:
    count = len(scenario.recipients)
    missing = f", {len(scenario.never)} unwanted" if scenario.never else ""
    cells = [scenario.words, f"{count}{missing}"]
    for counted in (theirs, ours):
        cells.append(str(counted.falsely_bounced))
        cells.append(f"{counted.delivered_at_once}, {counted.delivered_in_the_end}")
    return f"| {' | '.join(cells)} | {ours.exit} |"
