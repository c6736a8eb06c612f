"""What drainer sends to every content scanner, and what the scanner answers."""

from collections.abc import Callable
from datetime import timedelta
from typing import Literal, Protocol

from msgspec import Struct

from drainer.mail.message import Content, Message
from drainer.policy.admission.content_scan import HoldRule, ScanAnswer


class ScannerSettings(Struct, frozen=True, kw_only=True):
    """One scanner of ``[scan]``: where it is, and what its answers mean."""

    name: str
    protocol: Literal["rspamd", "spamd", "clamd", "command"]
    #: HOST:PORT or unix:/PATH; not of a command.
    address: str = ""
    #: A program and its arguments.
    command: tuple[str, ...] = ()
    #: Whose rules it applies: a user of spamd, an id of rspamd's settings.
    profile: str = ""
    timeout: timedelta = timedelta(seconds=30)
    #: How many messages it gets at the same time.
    concurrency: int = 4
    #: A larger message is sent without it.
    max_bytes: int = 25_000_000
    rule: HoldRule = HoldRule()
    #: Whether a message waits while it does not answer; else it is sent without it.
    defers: bool = True
    #: How long an answer counts for the same content.
    cache: timedelta = timedelta(days=1)
    #: How long it is asked nothing while it fails, one pause after another.
    pauses: tuple[timedelta, ...] = (timedelta(minutes=1),)
    #: The primary filters what XCLIENT names the client of: it is not asked about that.
    primary_filters: bool = False


class ScanRequest(Struct, frozen=True, kw_only=True):
    """A message to look at, with its envelope."""

    message: Message
    #: Those that it would be sent to.
    recipients: tuple[str, ...]
    content: Content
    #: Of the content, in bytes.
    size: int
    #: Of the content; '' = not known, so that no answer is remembered.
    sha256: str = ""
    #: An operator has released these recipients: what scanners said of the content
    #: before was known to that operator, and holds it no more.
    released: bool = False
    #: Asked late: whether XCLIENT would name the original client to the primary.
    is_client_named: Callable[[], bool] = lambda: False


class ScannerFailure(Exception):
    """A scanner gave no answer that says anything about the content."""


class ContentScanner(Protocol):
    """One scanner, by its own protocol. A call may be cancelled at any time."""

    async def scan(self, request: ScanRequest) -> ScanAnswer:
        """Return its answer; it has no time limit of its own.

        Raises ScannerFailure, OSError or EOFError without one, and MessageUnreadable as
        the content does.
        """
        ...

    async def ping(self) -> str:
        """Return who answers, in a few words; raises as ``scan`` does."""
        ...
