"""Convert Exim's spool files to a message of ours; pure.

Identity: the message id in the ``-H`` file, the arrival time in microseconds, the
sender, and the first 4 KiB of the header section. The body is not part of it. Exim
removes ``-D`` before ``-H``, and so does drainer; a crash between the two must leave a
message that is still recognised. A message that cannot be read that far is identified
by its name, and a damaged ``-H`` also by its first 4 KiB.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from drainer.errors import MessageUnreadable
from drainer.mail.content import crlf
from drainer.mail.envelope import (
    Client,
    Envelope,
    Recipient,
    decode_orcpt,
    from_xtext,
    unique_recipients,
)
from drainer.mail.message import Problem
from drainer.mail.reply import printable
from drainer.sources.common.files import escape_name
from drainer.sources.common.queue_entry import SourceEntry, frame_damage, time_of
from drainer.sources.common.stored_text import (
    done_path_of,
    envelope_problem,
    flags_of,
    mailbox_of,
    notify_of,
    recipient_of,
    text_of,
)
from drainer.sources.common.walk import FilePlace
from drainer.sources.exim.header import EximHeader, EximRecipient, done_test
from drainer.sources.exim.layout import stem_of

_RET = {b"1": "FULL", b"2": "HDRS"}
_NOTIFY = {2: "NEVER", 4: "SUCCESS", 8: "FAILURE", 16: "DELAY"}
_MICROSECONDS = 6


@dataclass(slots=True)
class EximFiles:
    """The files of one message, as far as they were readable."""

    header: EximHeader | None = None
    #: The start of a ``-H`` that cannot be parsed.
    raw: bytes = b""
    journal: Sequence[bytes] = ()
    #: When the ``-H`` file was written; seconds since 1970.
    modified: float = 0
    #: The open ``-D`` file, or None when it cannot be opened.
    body: int | None = None
    #: Where the stored body starts in it, after the line that Exim locks.
    start: int = 0
    #: Bytes of the stored body; 0 = unknown.
    body_bytes: int = 0
    is_locked: bool = False
    #: The first problem that was found in the files.
    error: MessageUnreadable | None = None

    @property
    def is_wire(self) -> bool:
        """Return whether the stored body has CRLF line ends."""
        return bool(self.header and b"spool_file_wireformat" in self.header.variables)


class EximEntry(SourceEntry, frozen=True, kw_only=True):
    """A message of an Exim spool, with its open files."""

    parsed: EximFiles


@dataclass(slots=True)
class _Addresses:
    """The envelope while it is built, and the fault of its sender."""

    fault: str = ""
    recipients: list[Recipient] = field(default_factory=list)
    #: The errors_to of the pending recipients.
    errors_to: set[bytes] = field(default_factory=set)
    done: dict[str, None] = field(default_factory=dict)
    #: An address that is done but not a recipient: an alias's child.
    has_children: bool = False
    #: A pending recipient that may be such an alias.
    has_parents: bool = False


def describe(
    files: EximFiles, place: FilePlace, chunks: Callable[[], Iterator[bytes]]
) -> EximEntry:
    """Return the message of these files; ``chunks`` yields its content."""
    header = files.header or EximHeader(b"", b"", 0, 0)
    addresses = _sort(header, files.journal)
    envelope = _envelope(header, addresses)
    return EximEntry(
        native_id=stem_of(place.name),
        arrived=_arrival_time(files),
        envelope=envelope,
        chunks=chunks,
        raw_bytes=_size(files),
        stable=_stable(files, stem_of(place.name)),
        files=(place,),
        head=b"".join(crlf([header.section])),
        client=_client(header.variables),
        login=text_of(header.variables.get(b"auth_id", b"")),
        flags=_flags(header, addresses),
        problem=_file_problem(files) or _mail_problem(header, envelope, addresses),
        queue=escape_name(place.parts[0]),
        parsed=files,
    )


def _stable(files: EximFiles, stem: str) -> bytes:
    header = files.header
    if header is None:
        return frame_damage(stem, files.raw)
    time = b"%d.%06d" % (header.received, _microseconds(header))
    parts = (header.id, time, header.sender)
    return b"".join(b"%d " % len(part) + part for part in parts)


def _size(files: EximFiles) -> int:
    if files.header is None:
        return 0
    section = files.header.section
    size = len(section) + section.count(b"\n") + len("\r\n") + files.body_bytes
    return size + (0 if files.is_wire else files.header.number(b"body_linecount"))


def _microseconds(header: EximHeader) -> int:
    """Return the fraction of ``.NNNNNN``; older versions write none."""
    digits = header.variables.get(b"received_time_usec", b"").removeprefix(b".")
    return int(digits) if digits.isdigit() and len(digits) <= _MICROSECONDS else 0


def _arrival_time(files: EximFiles) -> datetime:
    if files.header is None:
        return time_of(files.modified)
    moment = datetime.fromtimestamp(files.header.received, UTC)
    return moment.replace(microsecond=_microseconds(files.header))


def _file_problem(files: EximFiles) -> Problem | None:
    """Judge the files; a server that works on them explains missing parts."""
    if files.is_locked:
        return Problem(code="locked", detail="its -D file is locked by a process")
    if files.error:
        return Problem(code=files.error.code, detail=files.error.detail)
    return None


def _mail_problem(
    header: EximHeader, envelope: Envelope, addresses: _Addresses
) -> Problem | None:
    done = f"{len(header.recipients)} recipients, all of them done"
    problem = envelope_problem(envelope, addresses.fault, done)
    if problem is not None:
        return problem
    if b"N" in header.variables:
        return Problem(code="never-deliver", detail="it was submitted with exim -N")
    if header.sender and len(addresses.errors_to) > 1:
        senders = ", ".join(
            sorted(text_of(each or header.sender) for each in addresses.errors_to)[:5]
        )
        return Problem(code="many-senders", detail=printable(senders))
    return None


def _flags(header: EximHeader, addresses: _Addresses) -> tuple[str, ...]:
    return flags_of(
        {
            "frozen": b"frozen" in header.variables,
            "thawed": b"manual_thaw" in header.variables,
            "local-error": b"localerror" in header.variables,
            "delay-warned": header.warnings > 0,
            "children-done": addresses.has_children and addresses.has_parents,
        }
    )


def _sort(header: EximHeader, journal: Sequence[bytes]) -> _Addresses:
    """Separate the done recipients from the pending ones.

    The tree and the journal name the done addresses. Both also name the addresses that
    an alias became: if such an alias is still pending, part of its mail has arrived.
    """
    result = _Addresses()
    finished = [*header.done, *journal]
    is_done = done_test(finished)
    is_recipient = done_test([raw.address for raw in header.recipients])
    for raw in header.recipients:
        if is_done(raw.address):
            result.done[done_path_of(raw.address)] = None
        else:
            _add(raw, result)
    for address in finished:
        if address and not is_recipient(address):
            result.has_children = True
            child = recipient_of(address)
            if not child.fault:
                result.done[child.forward_path] = None
    return result


def _add(raw: EximRecipient, result: _Addresses) -> None:
    notify = notify_of(raw.notify, _NOTIFY)
    orcpt = decode_orcpt(raw.orcpt)
    result.recipients.append(recipient_of(raw.address, orcpt=orcpt, notify=notify))
    result.errors_to.add(raw.errors_to)
    result.has_parents = result.has_parents or not raw.is_child


def _envelope(header: EximHeader, addresses: _Addresses) -> Envelope:
    """Return the envelope.

    A router of Exim may have given recipients another sender (errors_to). If all have
    the same one, it is the sender; the null sender never changes.
    """
    sender = header.sender
    if sender and len(addresses.errors_to) == 1:
        sender = next(iter(addresses.errors_to)) or sender
    variables = header.variables
    reverse_path, addresses.fault = mailbox_of(sender) if sender else ("", "")
    return Envelope(
        reverse_path=reverse_path,
        recipients=unique_recipients(addresses.recipients),
        done=tuple(addresses.done),
        smtputf8=b"smtputf8" in variables,
        envid=from_xtext(variables.get(b"dsn_envid", b"")),
        ret=_RET.get(variables.get(b"dsn_ret", b""), ""),
    )


def _client(variables: dict[bytes, bytes]) -> Client:
    """Return the client; its address is written ``[ip]:port`` or ``[ip].port``."""
    address = variables.get(b"host_address", b"")
    if address.startswith(b"["):
        address = address[1:].partition(b"]")[0]
    return Client(
        address=text_of(address),
        name=text_of(variables.get(b"host_name", b"")),
        helo=text_of(variables.get(b"helo_name", b"")),
    )
