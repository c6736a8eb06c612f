"""A message as a source lists it, and the problems that hold it."""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from msgspec import Struct, field

from drainer.mail.envelope import Client, Envelope

#: code -> (what it means, may an operator's `release` overrule it?)
PROBLEMS: dict[str, tuple[str, bool]] = {
    "incomplete": ("the backup has not finished writing this message", False),
    "locked": ("a server is working on this message now", False),
    "corrupt": ("the spool file is damaged", False),
    "unreadable": ("the spool file cannot be read", False),
    "not-a-file": ("not a regular file; drainer follows no links or devices", False),
    "vanished": ("the spool file is gone or is another message now", False),
    "done-by-backup": ("the backup has delivered or bounced it itself", False),
    "no-envelope": ("no trace header of the backup names the recipients", False),
    "bad-address": ("an address cannot be written into an SMTP command", False),
    "unproven": ("nothing proves that this copy of it is complete", True),
    "filter-due": ("the backup wanted a content filter to see it first", True),
    "probe": ("an address verification probe, not mail", False),
    "never-deliver": ("the backup was configured never to deliver it", True),
    "many-senders": ("its recipients have different reverse paths", True),
    "quarantined": ("the backup put it into quarantine", True),
    "local-delivery": ("the backup wanted to deliver it to a user of its own", True),
    "bounce-due": ("a report that the backup has not written yet, not mail", False),
    "not-cleaned": ("Postfix has not processed this submission yet", False),
    "marked-corrupt": ("the backup marked the file as corrupt", False),
    "trashed": ("a reader marked it as trash (Maildir flag T)", True),
    "draft": ("a reader's draft, not received mail (Maildir flag D)", True),
    "compressed": ("the content is compressed by the mail store", False),
    "bare-newline": ("a bare CR or LF in the content (RFC 5321 2.3.8)", False),
    "too-many-hops": ("too many Received fields: a mail loop? (RFC 5321 6.3)", True),
    "not-for-this-primary": ("the domain is not in [primary] domains", True),
    "unknown-recipient": (
        "a list of recipients, or the primary, does not have it",
        True,
    ),
    "no-route": ("the MX records of its domain name no server to deliver to", True),
    "too-large": ("larger than the primary's SIZE limit (RFC 1870)", False),
    "needs-smtputf8": ("needs SMTPUTF8, which the primary does not offer", False),
    "needs-8bitmime": ("has 8-bit content, the primary lacks 8BITMIME", False),
    "ambiguous": (
        "several messages look alike, so it is unknown which of them was sent",
        True,
    ),
    "defect": ("drainer itself failed on this message; please report it", False),
    "taken-elsewhere": ("a drainer with another ledger has it now", False),
    "in-doubt": ("another drainer died and may have sent it; see its ledger", True),
    "requires-tls": ("it asks for REQUIRETLS, which drainer cannot guarantee", False),
}


HOST_LIMIT = "host-limit"
"""This code holds no message: this host had no file descriptor free for it."""
BEHIND_BREAKER = "breaker-open"
"""This code holds no message: it waits and is not tried. Its detail is the primary's
reply to other messages."""


class Problem(Struct, frozen=True, kw_only=True):
    """Why drainer cannot replay a message in its present state."""

    #: A key of PROBLEMS.
    code: str
    #: What exactly was found; may quote hostile bytes: escape before printing.
    detail: str

    @property
    def releasable(self) -> bool:
        """Return whether an operator's `release` may overrule the problem."""
        return PROBLEMS[self.code][1]

    def __str__(self) -> str:
        """Return it as text for people."""
        if self.code in (BEHIND_BREAKER, HOST_LIMIT):
            return self.detail
        return f"{self.code}: {PROBLEMS[self.code][0]} ({self.detail})"


UNSCANNED = "unscanned"
"""This code holds no message: a scanner must look at it, and does not answer."""


class ScanProblem(Problem, frozen=True, kw_only=True):
    """What a scanner of ``[scan]`` has found, or that it does not answer.

    The code is ``scan-NAME`` with the scanner's name, or UNSCANNED.
    """

    #: What the record of the decision says of it: names and values.
    evidence: tuple[tuple[str, object], ...] = ()
    #: How long the scanner is asked nothing; of UNSCANNED only.
    wait: timedelta = timedelta(0)

    @property
    def releasable(self) -> bool:
        """Return True: an operator may know better than a scanner."""
        return True

    def __str__(self) -> str:
        """Return it as text for people."""
        return self.detail


class ContentFacts(NamedTuple):  # a tuple is fast to send between processes
    """The facts of one pass over the content; sizes in bytes, with CRLF line ends."""

    size_bytes: int
    has_8bit: bool
    #: 8-bit bytes in the header section.
    header_8bit: bool
    bare_newlines: int
    #: Number of Received fields (RFC 5321 6.3).
    hops: int
    #: Hex SHA-256 of the content; '' = not computed.
    sha256: str = ""
    #: It is more than text: a filter for attachments would look at it.
    has_attachment: bool = False


class Content(Protocol):
    """The content of one message, streamed.

    ``chunks`` yields it with CRLF line ends, including a final CRLF, before
    dot-stuffing; each call yields the same. Raises MessageUnreadable when the spool
    file is damaged, gone or changed.
    """

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces of any size."""


class Message(Struct, frozen=True, kw_only=True):
    """One message of a spool, without its content."""

    #: 32 hex digits, computed from its start; the same for a renamed or copied spool
    #: file. Several messages may share it.
    identity: str
    #: URL of its source.
    source: str
    #: The backup's own name for it: a queue id, a Maildir base name.
    native_id: str
    #: The part of the spool: 'deferred', 'new', '.Folder/cur'.
    queue: str
    #: Where the source finds it again; relative to the source.
    locator: str
    arrived: datetime
    envelope: Envelope
    #: In bytes, as the spool says; an estimate until the content was read.
    size_bytes: int = 0
    client: Client = field(default_factory=Client)
    login: str = ""
    flags: tuple[str, ...] = ()
    message_id: str = ""
    problem: Problem | None = None
    #: Distinguishes messages with one identity; the ledger assigns it once.
    number: int = 0
    #: Hex SHA-256 of the whole content as transmitted; '' = not read yet.
    sha256: str = ""
    #: Another message has the same identity and content: only its locator differs.
    has_twin: bool = False

    @property
    def id(self) -> str:
        """The drainer id: 32 hex digits, unique to this message."""
        if not self.number:
            return self.identity
        return make_id(self.identity, self.number)


class SpooledMessage(Struct, frozen=True, kw_only=True):
    """A listed message together with a handle to its content."""

    message: Message
    content: Content


def make_id(identity: str, number: int) -> str:
    """Return the drainer id of the message with this number: 32 hex digits.

    Most identities belong to one message, whose number is 0.
    """
    if not number:
        return identity
    return hashlib.sha256(f"{identity} {number}".encode()).hexdigest()[:32]
