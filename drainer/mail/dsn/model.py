"""The data of a DSN: one message, its recipients, and what became of each."""

import enum
import ipaddress
import re
from datetime import datetime

from msgspec import Struct

from drainer.mail.envelope import Envelope, Recipient

_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,255}|\[[A-Za-z0-9.:]{1,253}\]")


class DsnAction(enum.StrEnum):
    """What happened to the recipients (RFC 3464 2.3.3)."""

    FAILED = "failed"
    RELAYED = "relayed"


class CannotReport(ValueError):
    """This sender cannot get a DSN: its address cannot be written into it."""


class RecipientStatus(Struct, frozen=True, kw_only=True):
    """One recipient, and what happened to it."""

    recipient: Recipient
    #: Enhanced status code; X.0.0 of the right class replaces an invalid one.
    status: str
    #: The primary's reply on one line; '' when it gave none.
    reply: str = ""
    #: The rule that decided; it supplies the words when the code has none.
    rule: str = ""
    last_attempt: datetime | None = None


class Dsn(Struct, frozen=True, kw_only=True):
    """All data of a DSN."""

    action: DsnAction = DsnAction.FAILED
    envelope: Envelope
    statuses: tuple[RecipientStatus, ...]
    #: Our own host name; DSNs come from ``MAILER-DAEMON`` there.
    hostname: str
    #: The primary's name.
    primary: str
    #: Derived from what failed, so that a rerun after a crash repeats it (report_id).
    message_id: str
    date: datetime
    arrived: datetime
    helo: str = ""
    #: Our name for the message.
    log_id: str = ""
    #: The original: its header section; and all of it, unless it was refused for its
    #: content or sent with REQUIRETLS.
    head: bytes = b""
    content: bytes = b""
    #: What the next hop of the DSN supports.
    smtputf8: bool = False
    eight_bit: bool = False


def mta_of(name: str) -> str:
    """Return a host as an MTA name of type dns; addresses in brackets.

    RFC 3464 2.1.2, RFC 5321 4.1.3; '' for a name that a DSN must not contain.
    """
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return host_of(name)
    kind = "IPv6:" if address.version == 6 else ""  # noqa: PLR2004
    return f"[{kind}{address}]"


def host_of(name: str) -> str:
    """Return a host's name or address if a DSN may contain it; else ''."""
    return name if _HOST.fullmatch(name) else ""
