"""Name to the primary the client that the backup got the message from.

Both XCLIENT and XFORWARD are Postfix's (XCLIENT_README, XFORWARD_README), and offered
only to hosts that the primary trusts. XFORWARD is for its log and for filters behind
it, and lasts for one transaction. XCLIENT makes the session the client's, for
restrictions, policy services and milters as well. After it the session starts again,
without the right to another XCLIENT (Postfix asks whether the client has that right).
So each client needs a session of its own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from drainer.mail.envelope import Client, xtext
from drainer.mail.message import Message
from drainer.mail.reply import Reply
from drainer.policy.bounce.facts import is_private, parse_address
from drainer.smtp.commands import Extensions
from drainer.smtp.route import Route

XCLIENT, XFORWARD = "xclient", "xforward"

MAX_COMMAND_BYTES = 510
"""RFC 5321 4.5.3.1.4: a command line without its end; both READMEs say so, too."""

MAX_VALUE_BYTES = 255
"""Of a value, decoded: Postfix takes no longer one."""

_UNAVAILABLE = "[UNAVAILABLE]"
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_HELO = re.compile(r"[A-Za-z0-9_.:-]{1,253}|\[[A-Za-z0-9.:]{1,60}\]")
_IDENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(slots=True)
class ClientIntroduction:
    """The client that a session speaks for, and the commands that name it."""

    #: 'xclient', 'xforward', or '' when no client is named.
    kind: str
    #: What the primary takes, in capitals.
    attributes: frozenset[str]
    helo: str
    #: 'EHLO' or 'LHLO'.
    hello: str
    #: The client that has the session since XCLIENT; None = our own.
    speaker: Client | None = None
    #: Its reply has not been read yet.
    waiting: bool = False

    @classmethod
    def on(cls, route: Route, extensions: Extensions) -> "ClientIntroduction":
        """Return what route and primary have in common.

        With a login it is never XCLIENT, which would end it.
        """
        wanted = (XCLIENT, XFORWARD) if route.forward_client == "auto" else ()
        for kind in wanted or (route.forward_client,):
            may = kind != XCLIENT or route.login is None
            if may and kind in extensions:
                words = frozenset(extensions[kind].upper().split())
                return cls(kind, words, route.helo, route.hello)
        return cls("", frozenset(), route.helo, route.hello)

    @property
    def renews(self) -> bool:
        """Whether the session starts again after the command."""
        return self.kind == XCLIENT

    def speaks_for(self, message: Message) -> bool:
        """Return whether this session can send it: a client's remains that client's."""
        return self.speaker is None or self._client(message) == self.speaker

    def command(self, message: Message) -> bytes:
        """Return what goes before MAIL, with its line end; b'' for nothing."""
        client = self._client(message)
        if client is None or client == self.speaker:
            return b""
        if self.renews:
            self.speaker = client
        self.waiting = True
        line = self.kind.upper()
        for name, value in self._values(client, message):
            word = f" {name}={value}"
            if name in self.attributes and len(line + word) <= MAX_COMMAND_BYTES:
                line += word
        return line.encode() + b"\r\n"

    @property
    def ehlo(self) -> bytes:
        """Return the EHLO (or LHLO) after an XCLIENT, in the name of the client."""
        named = self.speaker.helo if self.speaker else ""
        name = named if _HELO.fullmatch(named) else self.helo
        return f"{self.hello} {name}\r\n".encode()

    def _client(self, message: Message) -> Client | None:
        """Return the client the message is from; None if the backup is the sender.

        The backup's own mail has no client.
        """
        if not self.kind or parse_address(message.client.address) is None:
            return None
        return message.client if not self.renews or may_speak(message) else None

    def _values(self, client: Client, message: Message) -> Iterator[tuple[str, str]]:
        """Yield attributes and values, the most important ones first."""
        address = parse_address(client.address)
        assert address is not None  # noqa: S101 - asked by the caller
        prefix = "IPV6:" if address.version == 6 else ""  # noqa: PLR2004
        yield "ADDR", f"{prefix}{address}"
        is_name = _HOST_NAME.fullmatch(client.name) and client.name != "unknown"
        is_name = is_name and parse_address(client.name) is None
        yield "NAME", client.name if is_name else _UNAVAILABLE
        if not self.renews and _IDENT.fullmatch(message.native_id):
            yield "IDENT", message.native_id
        if not self.renews:
            yield "SOURCE", "REMOTE"
        fits = len(client.helo.encode()) <= MAX_VALUE_BYTES
        yield "HELO", (xtext(client.helo) if fits else "") or _UNAVAILABLE


def may_speak(message: Message) -> bool:
    """Return whether XCLIENT may name the client of a message.

    The primary judges and trusts the client that XCLIENT names by its address. So
    drainer never names a client that logged in to the backup. Nor does it name a
    private address: it may be a filter that returned the message, with rights of its
    own there.
    """
    address = parse_address(message.client.address)
    return address is not None and not message.login and not is_private(address)


def narrow_extensions(extensions: Extensions, ehlo: Reply) -> dict[str, str]:
    """Return those of the extensions that the client is offered as well.

    drainer does not use what only the client is offered: nothing needs it.
    """
    words = frozenset(ehlo.text.lower().split())
    return {name: value for name, value in extensions.items() if name in words}
