"""Times as people read and write them: always with a date and a zone."""

import sys
from datetime import UTC, datetime

from drainer.cli.filters import time_ago
from drainer.errors import UsageError
from drainer.ledger.records import from_micros


def format_time(at: datetime | int | str | None, *, seconds: bool = True) -> str:
    """Return a time for people: local on a terminal, in UTC elsewhere; '' for none.

    ``at`` has a zone; or it is in microseconds since 1970, or as JSON has it. Options
    that take a time take it in this form too.
    """
    if at is None or at == "":
        return ""
    if isinstance(at, int):
        at = from_micros(at)
    elif isinstance(at, str):
        at = datetime.fromisoformat(at)
    local = at.astimezone(None if sys.stdout.isatty() else UTC)
    shown = local.isoformat(" ", "seconds" if seconds else "minutes")
    return shown.removesuffix("+00:00") + "Z" * shown.endswith("+00:00")


def require_time(text: str) -> datetime | None:
    """Return a time that an operator wrote; None for ''. UsageError when it is none.

    A duration is so long ago. A time without a zone is in UTC.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return time_ago(text)
        except UsageError as error:
            hint = "or write a time, e.g. 2026-11-30 or 2026-11-30T19:00Z"
            raise UsageError(str(error), hint=hint) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
