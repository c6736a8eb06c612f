"""The throttle, from the times of MAIL at the receiver.

The receiver is a thread of this process, so whatever piled up before it while it did
not run counts as come at once. The last column takes the times at which MAIL was
written instead, from the ledger: what is over the burst in the other one only, is the
receiver's.
"""

import contextlib
import math
import sqlite3
import tempfile
from pathlib import Path

from drainer.policy.pacing.rate import message_rate
from tests.support.command.installed import Drainer, drain_arguments, write_maildir
from tests.support.scenarios.arrivals import achieved, most_over
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script

RATES = (1, 20, 500)
DELAYS = (0.0, 0.4)
TAKEN = "250 2.0.0 taken"
ROUND_TRIP = 0.1
"""Seconds that a message may take besides its dot, for the number of connections."""

_HEAD = (
    "rate/s  dot ms  connections  messages  seconds  achieved/s  of the rate"
    "  burst  worst window  over the burst  when written"
)


def run(*, seconds: int) -> None:
    """Measure each rate for so long, with a quick primary and with a slow one."""
    print(_HEAD)
    for rate in RATES:
        for delay in DELAYS:
            print(_measure(rate, delay, seconds), flush=True)


def _measure(rate: int, delay: float, seconds: int) -> str:
    connections = min(500, math.ceil(rate * (delay + ROUND_TRIP)) + 2)
    burst = message_rate(rate, None).burst
    script = Script(dot=Delay(delay, TAKEN) if delay else TAKEN)
    with tempfile.TemporaryDirectory() as name, PeerThread(script) as peer:
        folder = Path(name)
        write_maildir(folder / "spool", rate * seconds + 1)
        command = Drainer(folder / "ledger.db", {"DRAINER_PRIMARY__HELO": "b.example"})
        options = ("--no-check", "--rate", f"{rate}/second")
        more = ("--connections", connections)
        arguments = drain_arguments(folder / "spool", peer.port, *options, *more)
        result = command.execute(*arguments, timeout=seconds * 2 + 60)
        assert result.code == 0, result.stderr
        times = [message.mail_at for message in peer.transactions]
        written = most_over(_written(command.ledger), rate) - burst
    worst = most_over(times, rate)
    over = worst - burst
    return (
        f"{rate:6}  {delay * 1000:6.0f}  {connections:11}  {len(times):8}"
        f"  {max(times) - min(times):7.2f}  {achieved(times):10.3f}"
        f"  {100 * achieved(times) / rate:9.2f} %  {burst:5.0f}  {worst:12.2f}"
        f"  {over:+6.2f}, {1000 * over / rate:+3.0f} ms  {written:+12.2f}"
    )


def _written(ledger: Path) -> list[float]:
    """Return when each MAIL was written."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute("SELECT started FROM attempts").fetchall()
    return [micros / 1e6 for (micros,) in rows]
