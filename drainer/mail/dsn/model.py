"""What a report to a sender is made of: one message, its recipients, their fates."""

import enum
import ipaddress
import re
from datetime import datetime

from drainer.mail.envelope import Envelope, Recipient
from drainer.runtime.values import dataclass

_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,255}|\[[A-Za-z0-9.:]{1,253}\]")


class DsnAction(enum.StrEnum):
    """What became of the recipients (RFC 3464 2.3.3)."""

    FAILED = "failed"
    RELAYED = "relayed"


class CannotReport(ValueError):
    """This sender cannot be told: its address cannot stand in the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientStatus:
    """One recipient, and what became of it."""

    recipient: Recipient
    #: Enhanced status code; X.0.0 of the right class is put for a bad one.
    status: str
    #: The primary's reply on one line; '' when it gave none.
    reply: str = ""
    #: The rule that judged; it finds words where the code has none.
    rule: str = ""
    last_attempt: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """All that a report is made of."""

    action: DsnAction = DsnAction.FAILED
    envelope: Envelope
    fates: tuple[RecipientStatus, ...]
    #: Our own host name; reports come from ``MAILER-DAEMON`` there.
    hostname: str
    #: The primary's name.
    primary: str
    #: Derived from what failed, so that a crash repeats it (bounce_limits.report_id).
    message_id: str
    date: datetime
    arrived: datetime
    helo: str = ""
    #: Our name for the message.
    log_id: str = ""
    #: The original: its header section; and all of it, but for what was refused for
    #: its content or sent with REQUIRETLS.
    head: bytes = b""
    content: bytes = b""
    #: What the next hop of the report takes.
    smtputf8: bool = False
    eight_bit: bool = False


def mta_of(name: str) -> str:
    """Return a host as an MTA name of the type dns: addresses in brackets.

    RFC 3464 2.1.2, RFC 5321 4.1.3; '' for what may not stand in a report.
    """
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return host_of(name)
    kind = "IPv6:" if address.version == 6 else ""  # noqa: PLR2004
    return f"[{kind}{address}]"


def host_of(name: str) -> str:
    """Return a host's name or address that may stand in a report; '' for another."""
    return name if _HOST.fullmatch(name) else ""
