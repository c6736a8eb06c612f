"""Traces, and log lines: projections of the ledger's decisions."""

from msgspec import Struct

LAST_WORDS = 20.0
"""Seconds that the export may take once the drain is over."""


class ExportOrder(Struct, frozen=True, kw_only=True):
    """What the export process exports, and where."""

    #: The URL of the ledger, with its password.
    ledger: str
    #: The folder of lock files.
    locks: str
    #: As in ``[telemetry]``.
    traces: str
    logs: str
    endpoint: str
    addresses: str
    rehearsal: bool = False
