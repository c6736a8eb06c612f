"""The addresses in a delivery field, with the ESMTP parameters behind them; pure.

A field lists mailboxes, separated by commas, with or without angle brackets. Exchange
writes what its client said behind each one: ``X-Sender: <a@b> BODY=7bit``,
``X-Receiver: <c@d> NOTIFY=NEVER ORCPT=rfc822;c@d`` (its replay directory).
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from drainer.mail.envelope import (
    Envelope,
    Recipient,
    decode_orcpt,
    from_xtext,
)
from drainer.sources.common.stored_text import recipient_of

_PARAMETERS = re.compile(
    r"(?:[ \t]+(?:[A-Za-z0-9-]+=[^ \t]+|SMTPUTF8))+", re.IGNORECASE
)
_ROUTE = re.compile(r"@[A-Za-z0-9_.@,-]{1,1000}:")
"""A source route, which servers ignore (RFC 5321 4.1.1.3)."""
_NOTIFY = ("NEVER", "SUCCESS", "FAILURE", "DELAY")
_LOCAL_START = re.compile(r"[ \t]*\w[\w.,+-]{0,63}")
_MAX_NOTIFY_LENGTH = 60
_BODIES = {"7BIT": "7bit", "8BITMIME": "8bit"}


class ListedPath(NamedTuple):
    """One address of a field."""

    #: Without angle brackets; it may not be a mailbox.
    text: str
    #: By name, in upper case.
    parameters: Mapping[str, str]

    def recipient(self) -> Recipient:
        """Return the recipient that it names; a bad address is its fault."""
        named = self.parameters
        orcpt = named.get("ORCPT", "")
        orcpt = orcpt if ";" in orcpt or not orcpt else f"rfc822;{orcpt}"
        notify = {word.upper() for word in named.get("NOTIFY", "").split(",")}
        return recipient_of(
            self.text,
            orcpt=decode_orcpt(orcpt.encode("utf-8", "replace")),
            notify=tuple(word for word in _NOTIFY if word in notify)
            if "NEVER" not in notify
            else ("NEVER",),  # RFC 3461 4.1
        )

    def envelope(self, reverse_path: str) -> Envelope:
        """Return an envelope with its parameters of MAIL, and no recipients."""
        named = self.parameters
        ret = named.get("RET", "").upper()
        return Envelope(
            reverse_path=reverse_path,
            body=_BODIES.get(named.get("BODY", "").upper(), ""),
            smtputf8="SMTPUTF8" in named,
            envid=from_xtext(named.get("ENVID", "").encode("utf-8", "replace")),
            ret=ret if ret in ("FULL", "HDRS") else "",
        )


def paths_of(value: str) -> Iterator[ListedPath]:
    """Yield the addresses of an unfolded value; an empty one between commas too."""
    for part in _split(value) if "," in value else (value,):
        text = part.strip(" \t")
        end = _end_of_path(text)
        found = _PARAMETERS.fullmatch(text, end)
        named: dict[str, str] = {}
        if found:
            text = text[:end]
            for word in found[0].split():
                name, _, given = word.partition("=")
                named[name.upper()] = given
        if text.startswith("<") and text.endswith(">"):
            route = _ROUTE.match(text, 1)
            text = text[route.end() if route else 1 : -1]
        yield ListedPath(text, named)


def _end_of_path(text: str) -> int:
    """Return where an address ends: after its bracket, or before a blank."""
    if text.find(" ") < 0 and text.find("\t") < 0:
        return len(text)
    ends = ">" if text.startswith("<") else " \t"
    for index, char, is_quoted in _chars(text):
        if char in ends and not is_quoted:
            return index + (ends == ">")
    return len(text)


def _split(value: str) -> Iterator[str]:
    """Split at commas outside of quotes, routes and NOTIFY, in linear time."""
    start = end_of_route = 0
    for index, char, is_quoted in _chars(value):
        if char == "<" and not is_quoted:
            route = _ROUTE.match(value, index + 1)
            end_of_route = route.end() if route else end_of_route
        if index < end_of_route:
            continue
        if char != "," or is_quoted or _is_in_local_part(value, start, index):
            continue
        if not _is_in_notify(value, start, index):
            yield value[start:index]
            start = index + 1
    yield value[start:]


def _is_in_local_part(value: str, start: int, comma: int) -> bool:
    """Return whether a comma is part of an address that its server did not quote.

    Such as ``a,b@x``: a list has a blank behind its comma, or an ``@`` before it.
    """
    is_before = _LOCAL_START.fullmatch(value, start, comma)
    return bool(is_before) and value[comma + 1 : comma + 2].isalnum()


def _is_in_notify(value: str, start: int, comma: int) -> bool:
    if not value[comma + 1 : comma + 2].isalpha():
        return False
    start = max(start, comma - _MAX_NOTIFY_LENGTH)
    blank = max(value.rfind(" ", start, comma), value.rfind("\t", start, comma))
    word = value[blank + 1 : comma] if blank >= 0 else ""
    return word[: len("NOTIFY=")].upper() == "NOTIFY="


def _chars(value: str) -> Iterator[tuple[int, str, bool]]:
    """Yield each character with its place, and whether it is within quotes."""
    is_quoted = is_escaped = False
    for index, char in enumerate(value):
        if is_escaped:
            is_escaped = False
            yield index, char, True
        elif char == '"':
            is_quoted = not is_quoted
            yield index, char, True
        else:
            is_escaped = is_quoted and char == "\\"
            yield index, char, is_quoted
