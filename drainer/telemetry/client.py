"""The projection in a process of its own, so that it never slows a session.

The worker process is drainer.telemetry.worker. When our end of its socket closes, the
drain is over or dead; then it exports what is left, for a while, and ends.
"""

import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy.engine import URL

from drainer.config.telemetry import TelemetrySection
from drainer.runtime.workers import WorkerProcess, start
from drainer.telemetry import LAST_WORDS, ExportOrder

NICENESS = 5
"""Sessions come first, from its imports on; what is late is sent at the end."""


def make_nicer(pid: int) -> None:
    """Let a process have less of the processors than we have, where that is allowed.

    Without privileges no process may lower a niceness, and ours may be higher already.
    """
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, pid) < NICENESS:
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)


def start_export(
    telemetry: TelemetrySection,
    url: URL,
    locks: Path,
    spare_worker: WorkerProcess | None = None,
    *,
    rehearsal: bool = False,
) -> WorkerProcess | None:
    """Start exporting what ``[telemetry]`` asks for; None when it asks for nothing."""
    if not telemetry.exports:
        return None
    worker = spare_worker or start()
    make_nicer(worker.pid)
    order = telemetry.values_for(
        ExportOrder,
        ledger=url.render_as_string(hide_password=False),
        locks=str(locks),
        rehearsal=rehearsal,
    )
    worker.begin("export", order)
    return worker


def finish_export(worker: WorkerProcess, limit: float = LAST_WORDS + 5) -> bool:
    """Let it export the rest, for this many seconds; True when all was sent."""
    worker.link.close()
    return worker.wait(limit) == 0
