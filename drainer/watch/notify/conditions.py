"""What a person wants to know, as the ledger and this host show it now."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drainer.config import Config
from drainer.ledger.query.digest import fingerprint
from drainer.ledger.query.status import status_facts
from drainer.ledger.reader import LedgerReader
from drainer.policy.pacing.rate import parse_size
from drainer.policy.recipient.state import FINAL, State
from drainer.policy.watch.notices import Notice
from drainer.runtime.units import describe_duration, format_size

_FINAL = [state.value for state in FINAL]
_WAITING = (State.PENDING, State.IN_FLIGHT, State.DEFERRED, State.UNKNOWN)
_DEFECT = "local-defect"


class Movement:
    """When the number of delivered recipients changed last."""

    def __init__(self) -> None:
        self._delivered = -1
        self._since = 0.0

    def still(self, delivered: int, now: float) -> float:
        """Return the seconds for which nothing was delivered."""
        if delivered != self._delivered:
            self._delivered, self._since = delivered, now
        return now - self._since


def find_conditions(
    reader: LedgerReader, config: Config, folder: Path, still: Movement, now: float
) -> dict[str, Notice]:
    """Return what holds now, by kind.

    ``folder`` is on the disk of the ledger; ``now`` is a monotonic clock, in seconds.
    """
    facts = status_facts(reader, config.retry.lifetime)
    states = facts["states"]
    remaining = sum(states.values()) - sum(states[name] for name in _FINAL)
    numbers = {"delivered": states["delivered"], "remaining": remaining}
    seconds = still.still(states["delivered"], now)
    notices = [
        *_of_ledger(reader, config, facts, numbers),
        *_of_disk(config, folder, numbers),
    ]
    found = {each.event: each for each in notices}
    running = bool(facts["run"]) and facts["run"]["ended"] is None
    waiting = sum(states[state.value] for state in _WAITING)
    limit = config.notify.stalled_after.total_seconds()
    if running and waiting and seconds >= limit and "stopped" not in found:
        found["stalled"] = Notice(
            event="stalled",
            key="stalled",
            subject=f"nothing was delivered for {describe_duration(seconds)}",
            cause=f"a drain runs, and {waiting} recipients wait",
            command="drainer status",
            numbers=dict(numbers),
        )
    if not running and facts["run"] and facts["spooled"]:
        found["done"] = _done(facts["run"], numbers)
    events = config.notify.events
    wanted = {"stopped" if each == "resumed" else each for each in events}
    return {event: notice for event, notice in found.items() if event in wanted}


def _of_ledger(
    reader: LedgerReader,
    config: Config,
    facts: dict[str, Any],
    numbers: dict[str, int],
) -> Iterator[Notice]:
    yield from _of_breakers(facts, numbers)
    first = facts["expires_first"]
    if first and first["left"] < config.notify.expires_within.total_seconds():
        yield Notice(
            event="expires",
            key="expires",
            subject=f"mail expires in {describe_duration(first['left'])}",
            cause=f"{first['native_id']} is the first; others may follow",
            command=f"drainer why {first['id'][:12]}",
            numbers={**numbers, "seconds_left": first["left"]},
        )
    defects = sum(r["count"] for r in reader.reasons() if r["rule"] == _DEFECT)
    if defects:
        yield Notice(
            event="defect",
            key=str(defects),
            subject=f"{defects} recipients are held because of a defect of drainer",
            cause="drainer failed on these messages; the others are not affected",
            command="drainer list --state held",
            numbers={**numbers, "defects": defects},
        )


def _of_breakers(facts: dict[str, Any], numbers: dict[str, int]) -> Iterator[Notice]:
    """Yield one condition for all breakers that are open, each by its route."""
    stopped = [each for each in facts["breakers"] if each["state"] == "open"]
    if not stopped:
        return
    routes = dict.fromkeys(each["route"] for each in stopped)
    causes = [
        f"{b['route']} {b['scope']}: {b['reason']} {fingerprint(b['reply'])}".strip()
        for b in stopped
    ]
    yield Notice(
        event="stopped",
        key="; ".join(f"{b['route']} {b['scope']} {b['reason']}" for b in stopped),
        subject=f"delivery to {', '.join(routes)} is stopped",
        cause="; ".join(causes),
        command="drainer status",
        numbers=dict(numbers),
    )


def _of_disk(config: Config, folder: Path, numbers: dict[str, int]) -> Iterator[Notice]:
    free, least = _free(folder), parse_size(config.notify.disk_free)
    if free < least:
        yield Notice(
            event="disk",
            key="disk",
            subject=f"the disk of the ledger has only {format_size(free)} free",
            cause="drainer stops before the final dot when it cannot write",
            command=f"df {folder}",
            numbers={**numbers, "free_bytes": free},
        )


def _done(run: dict[str, Any], numbers: dict[str, int]) -> Notice:
    left, code = numbers["remaining"], run["exit"]
    how = "was killed" if code is None else f"ended with exit status {code}"
    subject = f"{left} recipients remain" if left else "every recipient is final"
    return Notice(
        event="done",
        key=f"{code} {numbers['delivered']} {left}",
        subject=f"the drain is over: {subject}",
        cause=f"the drain to {', '.join(run['routes'])} {how}",
        command="drainer status" if left else "drainer report",
        numbers=dict(numbers),
    )


def _free(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder, or one above it."""
    for each in (folder, *folder.parents):
        if each.exists():
            return shutil.disk_usage(each).free
    return 0
