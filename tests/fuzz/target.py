"""What a fuzzer needs: a parser to feed, bytes to begin with, ways to spoil them.

A target takes octets and returns, or raises: what a parser may raise for bad input
is caught by the target, so that whatever leaves it is a finding.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drainer.ledger.codec import listing_of
from drainer.mail.message import PROBLEMS
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.smtp.commands import mail_command, misfit, rcpt_command

MAX_BYTES = 20_000
"""Of an input; what takes longer than its size explains shows with less."""

PEER = {"size": "", "8bitmime": "", "smtputf8": "", "dsn": "", "pipelining": ""}

Run = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser of one kind of input."""

    name: str
    #: Called once with a folder of its own; returns what is called with each input.
    prepare: Callable[[Path], Run]
    #: Sound inputs; the more of the format they show, the better.
    seeds: Sequence[bytes]
    #: Words of the format, to be strewn in.
    tokens: Sequence[bytes] = ()


def stateless(name: str, run: Run, seeds: Sequence[bytes], *tokens: bytes) -> Target:
    """Return a target that needs no folder."""
    return Target(name=name, prepare=lambda _: run, seeds=seeds, tokens=tokens)


# ---- what must hold of every message, whatever it was read from


def check_message(scanned: ScannedMessage) -> None:
    """Assert that a message may be stored, shown and sent as it stands."""
    message = scanned.spooled.message
    assert re.fullmatch("[0-9a-f]{32}", message.id)
    for text in (message.native_id, message.queue, message.locator, message.message_id):
        assert text.isprintable()
    for problem in (message.problem, scanned.problem):
        assert problem is None or (problem.code in PROBLEMS and problem.detail)
    assert {each.code for each in scanned.problems if each} <= set(PROBLEMS)
    listing = listing_of(scanned, None)
    for row in (listing.message, *listing.recipients):
        json.dumps(row).encode()
        assert all("\0" not in each for each in row.values() if isinstance(each, str))
        "".join(each for each in row.values() if isinstance(each, str)).encode()
    if scanned.problem is None and scanned.facts is not None:
        check_commands(scanned)


def check_commands(scanned: ScannedMessage) -> None:
    """Assert that no command has a line end, or more words than it should.

    drainer never sends to a recipient with a fault.
    """
    message, facts = scanned.spooled.message, scanned.facts
    assert facts is not None
    recipients = [each for each in message.envelope.recipients if not each.fault]
    for few in (recipients, recipients[:1]):
        if misfit(message, facts, few, PEER) is None:
            check_line(mail_command(message, facts, few, PEER))
    for each in recipients:
        check_line(rcpt_command(each, PEER))


_COMMAND = re.compile(rb'[A-Z]+ [A-Z]+:<(?:"(?:[^"\\]|\\.)*"|[^">])*>(.*)')


def check_line(command: bytes) -> None:
    """Assert that this is one line of text."""
    assert not re.search(rb"[\0-\x1f\x7f]", command)
    command.decode()
    match = _COMMAND.fullmatch(command)  # xtext may hold a >, and so may a quoted path
    assert match, command
    for word in match[1].split():
        assert re.fullmatch(rb"[A-Z0-9]+(=[^= ]*)?", word), command


# ---- spoiling

OPERATIONS = 6
_NUMBER = re.compile(rb"[0-9]+")
_NUMBERS = (b"0", b"-1", b"1", b"4294967295", b"9" * 30, b"2147483648")
_WORDS = (b"\0", b"\n", b"\r", b"\r\n", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xae",
          b"\x1b[31m", b" ", b"@", b"<", b">", b'"', b"\\", b"%", b"=")  # fmt: skip

Change = tuple[int, int, int]
"""Which operation, where, and how far or which word; any whole numbers will do."""


def spoil(data: bytes, changes: Sequence[Change], tokens: Sequence[bytes]) -> bytes:
    """Return the data after some changes, each of which makes sense to some format."""
    words = (*_WORDS, *tokens)
    for operation, place, extent in changes:
        data = _change(data, operation % OPERATIONS, (place, extent), words)
    return data[:MAX_BYTES]


def _change(
    data: bytes, operation: int, where: tuple[int, int], words: Sequence[bytes]
) -> bytes:
    place, extent = where[0] % (len(data) + 1), where[1]
    end = min(len(data), place + extent % 64)
    if operation == 0:
        return data[:place]
    if operation == 1:
        return data[:place] + data[end:]
    if operation == 2:
        return data[:place] + words[extent % len(words)] + data[place:]
    if operation == 3:
        return data[:place] + data[place:end] * (2 + extent % 50) + data[end:]
    if operation == 4:
        return data[:place] + bytes((extent % 256,)) + data[place + 1 :]
    numbers = list(_NUMBER.finditer(data))
    if not numbers:
        return data
    found = numbers[place % len(numbers)]
    number = _NUMBERS[extent % len(_NUMBERS)]
    return data[: found.start()] + number + data[found.end() :]
