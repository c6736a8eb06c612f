"""`drainer census`: 100,000 recipients by a list, and 10,000 by a callout.

The list has two of three recipients. The primary of the callout is 50 ms away, and
knows them all; the limit of recipients is the route's own.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.delay import distance
from tests.bench.large import DOMAINS, write_queue
from tests.bench.machine import Noise
from tests.support.command.installed import Drainer
from tests.support.command.processes import Peaks
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, Step, View

RECIPIENTS, ASKED = 100_000, 10_000
ROUND_TRIP = 50
"""Milliseconds."""
CONNECTIONS = 5
LIMIT = 200
"""Recipients a second."""


def run(folder: Path) -> None:
    """Print a line for each of both."""
    spool, known = folder / "spool", folder / "known"
    print(f"making a queue of {RECIPIENTS} messages ...", flush=True)
    write_queue(spool, RECIPIENTS)
    users = (f"user{n}@{DOMAINS[n % len(DOMAINS)]}\n" for n in range(RECIPIENTS))
    known.write_text("".join(u for n, u in enumerate(users) if n % 3), "utf-8")
    noise = Noise.now(folder)
    before = os.times().children_user + os.times().children_system
    facts, seconds, peak = _census(folder, [f"postfix:{spool}", "--known", known])
    cpu = os.times().children_user + os.times().children_system - before
    assert facts["recipients"] == RECIPIENTS
    print(
        f"{RECIPIENTS} recipients by a list: {seconds:.1f} s, CPU {cpu:.1f} s,"
        f" {peak:.0f} MB,"
        f" {facts['unknown']} unknown; before it: {noise}"
    )
    _measure_callout(folder)


def _measure_callout(folder: Path) -> None:
    spool = folder / "asked"
    write_queue(spool, ASKED)
    script = Script(rcpt=_knows, extensions=("PIPELINING",))
    with PeerThread(script) as peer, distance(peer.port, ROUND_TRIP) as port:
        arguments = [f"postfix:{spool}", "--callout", "--to", f"127.0.0.1:{port}"]
        facts, seconds, _ = _census(folder, arguments)
    assert facts["known"] == ASKED, facts["callouts"]
    times = [each.at for each in peer.commands if each.line.startswith(b"RCPT")]
    busiest = max(Counter(int(at) for at in times).values())
    print(
        f"{ASKED} recipients by a callout, {ROUND_TRIP} ms away, {CONNECTIONS}"
        f" connections: {seconds:.1f} s; limit {LIMIT} a second, at most {busiest}"
    )


def _knows(view: View) -> Step:
    return "550 5.1.1 User unknown" if "drainer-census" in view.path else "250 ok"


def _census(
    folder: Path, arguments: Sequence[object]
) -> tuple[dict[str, Any], float, float]:
    """Run it on one core; return what it says, the seconds, and its peak in MB."""
    settings = {
        "DRAINER_PRIMARY__HELO": "backup.example",
        "DRAINER_PRIMARY__TLS": "off",
        "DRAINER_PRIMARY__CONNECTIONS": str(CONNECTIONS),
        "DRAINER_THROTTLE__RECIPIENTS": f"{LIMIT}/second",
    }
    command = Drainer(folder / "ledger.db", settings)
    begun = time.monotonic()
    process = command.start("census", *map(str, arguments), "--json")
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    with Peaks(process.pid, period=0.2) as peaks:
        stdout, stderr = process.communicate()
    seconds = time.monotonic() - begun
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1]), seconds, peaks.together / 1e6
