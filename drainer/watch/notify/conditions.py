"""What a person wants to know, as the ledger and this host show it now."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from drainer.config.notify import NotifySection
from drainer.ledger.query.digest import fingerprint
from drainer.ledger.query.status import standing
from drainer.ledger.reader import LedgerReader
from drainer.policy.pacing.rate import parse_size
from drainer.policy.recipient.state import FINAL, State
from drainer.policy.watch.notices import Condition
from drainer.runtime.units import describe_duration, format_size

_FINAL = [state.value for state in FINAL]
_WAITING = (State.PENDING, State.IN_FLIGHT, State.DEFERRED, State.UNKNOWN)
_DEFECT = "local-defect"


class NotifySettings(Struct, frozen=True, kw_only=True):
    """What is looked at."""

    section: NotifySection
    lifetime: timedelta
    #: A folder on the disk of the ledger.
    folder: Path


class Movement:
    """When the number of delivered recipients changed last."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._delivered = -1
        self._since = 0.0

    def still(self, delivered: int, now: float) -> float:
        """Return the seconds for which nothing was delivered."""
        if delivered != self._delivered:
            self._delivered, self._since = delivered, now
        return now - self._since


def find_conditions(
    reader: LedgerReader, settings: NotifySettings, still: Movement, now: float
) -> dict[str, Condition]:
    """Return what holds now, by kind; ``now`` is a monotonic clock, in seconds."""
    facts = standing(reader, settings.lifetime)
    states = facts["states"]
    remaining = sum(states.values()) - sum(states[name] for name in _FINAL)
    numbers = {"delivered": states["delivered"], "remaining": remaining}
    seconds = still.still(states["delivered"], now)
    found = dict(_of_ledger(reader, settings, facts, numbers))
    running = bool(facts["run"]) and facts["run"]["ended"] is None
    waiting = sum(states[state.value] for state in _WAITING)
    limit = settings.section.stalled_after.total_seconds()
    if running and waiting and seconds >= limit and "stopped" not in found:
        found["stalled"] = Condition(
            key="stalled",
            subject=f"nothing was delivered for {describe_duration(seconds)}",
            cause=f"a drain runs, and {waiting} recipients wait",
            command="drainer status",
            numbers=dict(numbers),
        )
    if not running and facts["run"] and facts["spooled"]:
        found["done"] = _done(facts["run"], numbers)
    wanted = settings.section.events
    kinds = {"resumed": "stopped"}
    return {
        kind: condition
        for kind, condition in found.items()
        if kind in wanted or kind in (kinds.get(each) for each in wanted)
    }


def _of_ledger(
    reader: LedgerReader,
    settings: NotifySettings,
    facts: dict[str, Any],
    numbers: dict[str, int],
) -> Iterator[tuple[str, Condition]]:
    yield from _of_breakers(facts, numbers)
    first = facts["expires_first"]
    if first and first["left"] < settings.section.expires_within.total_seconds():
        yield (
            "expires",
            Condition(
                key="expires",
                subject=f"mail expires in {describe_duration(first['left'])}",
                cause=f"{first['native_id']} is the first; others may follow",
                command=f"drainer why {first['id'][:12]}",
                numbers={**numbers, "seconds_left": first["left"]},
            ),
        )
    defects = sum(r["count"] for r in reader.reasons() if r["rule"] == _DEFECT)
    if defects:
        yield (
            "defect",
            Condition(
                key=str(defects),
                subject=f"{defects} recipients are held because of a defect of drainer",
                cause="drainer failed on these messages; the others are not affected",
                command="drainer list --state held",
                numbers={**numbers, "defects": defects},
            ),
        )
    yield from _of_disk(settings, numbers)


def _of_breakers(
    facts: dict[str, Any], numbers: dict[str, int]
) -> Iterator[tuple[str, Condition]]:
    """Yield one condition for all breakers that are open, each by its route."""
    stopped = [each for each in facts["breakers"] if each["state"] == "open"]
    if not stopped:
        return
    routes = dict.fromkeys(each["route"] for each in stopped)
    causes = [
        f"{b['route']} {b['scope']}: {b['reason']} {fingerprint(b['reply'])}".strip()
        for b in stopped
    ]
    yield (
        "stopped",
        Condition(
            key="; ".join(f"{b['route']} {b['scope']} {b['reason']}" for b in stopped),
            subject=f"delivery to {', '.join(routes)} is stopped",
            cause="; ".join(causes),
            command="drainer status",
            numbers=dict(numbers),
        ),
    )


def _of_disk(
    settings: NotifySettings, numbers: dict[str, int]
) -> Iterator[tuple[str, Condition]]:
    free, least = _free(settings.folder), parse_size(settings.section.disk_free)
    if free < least:
        yield (
            "disk",
            Condition(
                key="disk",
                subject=f"the disk of the ledger has only {format_size(free)} free",
                cause="drainer stops before the final dot when it cannot write",
                command=f"df {settings.folder}",
                numbers={**numbers, "free_bytes": free},
            ),
        )


def _done(run: dict[str, Any], numbers: dict[str, int]) -> Condition:
    """Return that the last drain is over."""
    left, code = numbers["remaining"], run["exit"]
    how = "was killed" if code is None else f"ended with exit status {code}"
    subject = f"{left} recipients remain" if left else "every recipient is final"
    return Condition(
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
