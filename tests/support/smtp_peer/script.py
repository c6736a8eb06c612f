"""What a scripted peer shall do, and what it keeps of what it saw: plain data.

A ``Script`` has one answer for each command. An answer is a step, or a function from
the ``View`` of the moment to a step; a step is a reply or an action:

    Script(rcpt="450 4.2.1 busy")
    Script(rcpt=per_recipient({"b@example.org": "550 5.1.1 unknown"}))
    Script(dot=in_turn("451 4.3.0 later", Drop(), "250 2.0.0 ok"))
    Script(rset=lambda view: Drop() if view.connection > 10 else "250 2.0.0 ok")

A reply is written without its CRLF; lines of a longer one are parted by LF.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

# ---- steps


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection without a reply."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection so that the client gets ECONNRESET."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing, for some seconds or until the client leaves.

    A deaf peer reads nothing meanwhile either, so that a client with much to say cannot
    write.
    """

    seconds: float | None = None
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """Take the next step after some seconds."""

    seconds: float
    then: "Step"


@dataclass(frozen=True, slots=True)
class Raw:
    """Send these bytes as the reply: odd line ends, half a reply, several at once."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Garbage(Raw):
    """Send what is no reply at all."""

    data: bytes = b"\x00\xff\xfe what?\r\n"


@dataclass(frozen=True, slots=True)
class Trickle:
    """Send these bytes one by one, with a pause of some seconds between them."""

    data: bytes
    pause: float


@dataclass(frozen=True, slots=True)
class ReplyThenDrop:
    """Reply, then close the connection."""

    reply: str


Step: TypeAlias = str | Drop | Reset | Stall | Delay | Raw | Trickle | ReplyThenDrop

# ---- steps amid the content, taken once so many bytes of it (still stuffed) came


@dataclass(frozen=True, slots=True)
class EarlyReply:
    """Reply before the final dot, then close, or swallow the rest and say no more."""

    after_bytes: int
    reply: str
    then_drop: bool = False


@dataclass(frozen=True, slots=True)
class DropInBody:
    """Close the connection amid the content."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class StallInBody:
    """Stop reading amid the content until the client leaves."""

    after_bytes: int


BodyStep: TypeAlias = EarlyReply | DropInBody | StallInBody

# ---- what was seen


@dataclass(slots=True)
class Command:
    """One command line, ``b"."`` for the end of data. Times are time.monotonic()."""

    connection: int
    at: float
    #: Without its line end.
    line: bytes
    #: What was answered; empty when nothing was.
    reply: str = ""
    answered_at: float | None = None


@dataclass(slots=True)
class Recipient:
    """One RCPT command of a transaction; parameter names are in upper case."""

    forward_path: str
    parameters: dict[str, str]
    command: Command

    @property
    def reply(self) -> str:
        """What RCPT was answered."""
        return self.command.reply

    @property
    def accepted(self) -> bool:
        """Whether the recipient was accepted."""
        return self.reply.startswith("2")


@dataclass(slots=True)
class Message:
    """One transaction, from its MAIL command."""

    #: Empty for the null sender; quoted as on the wire.
    reverse_path: str
    parameters: dict[str, str]
    connection: int
    #: Counted from 1 on its connection.
    transaction: int
    mail: Command
    tls: bool = False
    recipients: list[Recipient] = field(default_factory=list)
    #: As it was before dot-stuffing, with CRLF; None until its final dot arrived.
    content: bytes | None = None
    dot: Command | None = None
    #: LMTP: the recipients whose reply to the final dot was positive.
    taken: list[str] = field(default_factory=list)

    @property
    def mail_at(self) -> float:
        """When MAIL arrived."""
        return self.mail.at

    @property
    def reply(self) -> str:
        """What the final dot was answered; empty when it was not."""
        return self.dot.reply if self.dot else ""

    @property
    def accepted(self) -> bool:
        """Whether the peer took responsibility."""
        return self.reply.startswith("2")

    @property
    def forward_paths(self) -> list[str]:
        """The recipients that were accepted."""
        return [
            recipient.forward_path
            for recipient in self.recipients
            if recipient.accepted
        ]


# ---- what is asked


@dataclass(frozen=True, slots=True)
class View:
    """What an answer may depend on."""

    command: Command
    #: Counted from 1.
    connection: int
    #: Counted from 1 on the connection; for MAIL it is the number that this one would
    #: have.
    transaction: int
    #: The transaction under way, with reverse path, recipients and content so far.
    message: Message | None
    #: The mailbox of the present MAIL or RCPT, else empty.
    path: str = ""
    #: User and password of the present AUTH.
    login: tuple[str, str] | None = None
    tls: bool = False


Answer: TypeAlias = Step | Callable[[View], Step]
BodyAnswer: TypeAlias = BodyStep | Callable[[View], BodyStep | None] | None

EXTENSIONS = (
    "PIPELINING",
    "SIZE 52428800",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "ENHANCEDSTATUSCODES",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """All answers of a peer; the defaults accept everything."""

    name: str = "peer.example"
    banner: Answer = "220 peer.example ESMTP"
    #: What EHLO offers; STARTTLS is offered as well while there is a ``tls`` not yet in
    #: use.
    extensions: tuple[str, ...] = EXTENSIONS
    #: Instead of name and extensions.
    ehlo: Answer | None = None
    helo: Answer | None = None
    starttls: Answer = "220 2.0.0 go ahead"
    auth: Answer = "235 2.7.0 welcome"
    xforward: Answer = "250 2.0.0 ok"
    mail: Answer = "250 2.1.0 ok"
    rcpt: Answer = "250 2.1.5 ok"
    #: None: 354, or 554 when no recipient was accepted, as servers do.
    data: Answer | None = None
    body: BodyAnswer = None
    #: None: 250, or 554 when no recipient was accepted.
    dot: Answer | None = None
    rset: Answer = "250 2.0.0 ok"
    noop: Answer = "250 2.0.0 ok"
    quit: Answer = ReplyThenDrop("221 2.0.0 bye")
    #: Seconds of silence between commands after which it says 421 and closes.
    idle: float | None = None
    tls: ssl.SSLContext | None = None
    #: TLS from the first byte, as on port 465.
    implicit_tls: bool = False
    #: LHLO instead of EHLO, and ``dot`` is asked for each accepted recipient, which is
    #: the path of the view (RFC 2033).
    lmtp: bool = False


def per_recipient(
    replies: Mapping[str, Step], default: Step = "250 2.1.5 ok"
) -> Answer:
    """Answer MAIL or RCPT by its mailbox."""
    return lambda view: replies.get(view.path, default)


def in_turn(*steps: Step) -> Answer:
    """Take one step after the other, over all connections; the last one stays."""
    left = list(steps)
    return lambda _view: left.pop(0) if len(left) > 1 else left[0]
