"""``postfix:live``: the queue of a running Postfix, on the backup itself.

Its queue manager would send the same mail. So a drain first holds the mail that it will
send (postsuper -h), sends from there, removes what is finished (-d) and releases the
rest (-H). Each message is written into a note before it is held (postfix_note), so that
none stays hidden in hold when drainer dies.

Mail held by others, and mail for other servers, belongs to Postfix and is not touched.
Queue ids are reused: a name counts only together with the message's identity.
"""

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from drainer.errors import MessageUnreadable, UsageError
from drainer.mail.message import Message, Problem, SpooledMessage
from drainer.policy.admission.admit import Admission
from drainer.runtime.process import utcnow
from drainer.sources.common.files import OpenFiles, batches, directory, sync_directory
from drainer.sources.common.processes import is_locked
from drainer.sources.common.walk import FilePlace, QueueEntry, place_of
from drainer.sources.postfix.hold import PostfixHold
from drainer.sources.postfix.instance import PostfixInstance
from drainer.sources.postfix.layout import (
    DEFAULT_QUEUES,
    HELD,
    QUEUES,
    hash_directories,
)
from drainer.sources.postfix.message import PostfixEntry
from drainer.sources.postfix.note import HoldEntry
from drainer.sources.protocol import HeldCount, Nexthop, SourceFormat, SourceOption

_ID = re.compile(r"[0-9A-Za-z_]+")
PASSES = 5
"""Passes over the queues, because mail moves between them in the meantime."""
PATIENCE = 60.0
"""Seconds that a scan waits for deliveries that had already started."""
LOOK_AGAIN = 0.2


class PostfixLive(PostfixHold):
    """A running Postfix as a source."""

    #: Postfix runs, and tries again what the primary deferred.
    _keeps_open_messages = False

    def __init__(
        self,
        path: str | os.PathLike[str] = "",
        *,
        queues: Sequence[str] = DEFAULT_QUEUES,
        acknowledge: Literal["remove"] = "remove",
    ) -> None:
        """Ask the Postfix of a configuration directory ('' = default); SourceError."""
        del acknowledge  # it has only one value
        self._postfix = PostfixInstance(str(path))
        super().__init__(self._postfix.queue_directory, queues=queues)
        self.url = f"postfix:live={self._postfix.directory}"

    def other_parts(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield nothing: what drainer does not take stays with the server that runs."""
        return iter(())

    def refuse_if_live(self) -> None:
        """Refuse a user who may not hold mail, and queues that others hold."""
        if os.geteuid():
            message = "only root may put mail on hold"
            raise UsageError(message, hint="run drainer as root, on the backup")
        others = [queue for queue in self._queues if queue not in DEFAULT_QUEUES]
        if others:
            message = f"{self.url} does not drain {', '.join(others)}"
            hint = f"it reads {', '.join(DEFAULT_QUEUES)}; release the mail (postsuper)"
            raise UsageError(message, hint=hint)

    def domains(self) -> tuple[str, ...]:
        """Return the domains of ``relay_domains``, tables included."""
        relayed = self._postfix.relay_domains()
        hint = "set [primary] domains to those that the primary accepts"
        if relayed.unreadable:
            words = "; ".join(relayed.unreadable)
            message = f"cannot read relay_domains of {self.url}: {words}"
            raise UsageError(message, hint=hint)
        if not relayed.domains:
            message = f"relay_domains of {self.url} is empty: no mail is for a primary"
            raise UsageError(message, hint=hint)
        return relayed.domains

    @property
    def hostname(self) -> str:
        """The name of this Postfix."""
        return self._postfix.hostname

    def nexthops(self) -> Mapping[Nexthop, Sequence[str]]:
        """Return the domains by the server that Postfix sends them to."""
        found = self._postfix.nexthops()
        doubts = [each.doubt for each in found if each.doubt]
        doubts += [
            f"{table} has a transport for {address}; drainer's routes are by domain"
            for table, address in self._postfix.address_transports()
            if address
        ]
        if doubts:
            command = f"drainer init --from-postfix {self._postfix.directory}"
            hint = f"give --to, or write a configuration with: {command}"
            raise UsageError(doubts[0], hint=hint)
        return found

    # --- hold

    def take(self, note: Path, rules: Admission | None) -> Iterator[HeldCount]:
        """Hold the messages with a recipient that the rules admit."""
        self._open(note)
        if rules is None:
            return
        left: set[str] = set()
        for _ in range(PASSES):
            total = 0
            with self._look_for_reports():
                for batch in batches(self._find_wanted(rules, left)):
                    held = self._hold({place: each for place, each, _ in batch})
                    over = {place.name for place, _, is_over in batch if is_over}
                    total += len(held)
                    yield HeldCount(len(held), len(over & held))
            if not total:
                break
        yield HeldCount(left=len(left))

    def _find_wanted(
        self, rules: Admission, left: set[str]
    ) -> Iterator[tuple[FilePlace, str, bool]]:
        """Yield place, identity, and whether its time is over.

        ``left`` collects the mail for this primary that has a problem.
        """
        for entry in self.entries():
            place, name = entry.place, entry.place.name
            if entry.error or not entry.is_file or not _ID.fullmatch(name):
                continue
            try:
                with OpenFiles() as opened:
                    draft = self.load(place, entry.descriptor, opened)
                    message = self._build(draft, place).message
            except (FileNotFoundError, MessageUnreadable):
                continue
            recipients = message.envelope.recipients
            if all(map(rules.foreign, recipients)):
                continue
            problem = message.problem
            if problem is None and not all(each.fault for each in recipients):
                yield place, message.identity, self._is_over(draft)
            elif problem is None or problem.code != "incomplete":
                left.add(name)

    def _put_on_hold(self, places: Collection[FilePlace]) -> None:
        self._move("-h", [place.name for place in places], DEFAULT_QUEUES)

    def _release(self, names: Iterable[str]) -> None:
        self._move("-H", names)

    def _delete(self, names: Iterable[str]) -> None:
        self._move("-d", names)

    def _move(
        self, option: str, names: Iterable[str], queues: Sequence[str] = (HELD,)
    ) -> None:
        """Call postsuper, which keeps the note locked too until it ends; durable."""
        assert self._note is not None  # noqa: S101 - nothing is moved before take
        names = list(names)
        self._postfix.move(option, names, queues, keep=self._note.descriptor)
        for parts in {(HELD, *below) for n in names for below in hash_directories(n)}:
            sync_directory(self._root, parts)

    def _is_over(self, draft: PostfixEntry) -> bool:
        """Whether qmgr would bounce it at its next failing attempt (qmgr_active.c)."""
        records = draft.parsed.records
        created = records.attributes.get(b"create_time", b"")[:12]
        since = int(created) if created.isdigit() else (records.arrival or (0, 0))[0]
        limit = self._postfix.lifetime(null_sender=not records.sender)
        return utcnow() >= datetime.fromtimestamp(since, UTC) + limit

    # --- held messages

    def scan(self) -> Iterator[SpooledMessage]:
        """List the held messages; before ``take`` all messages, without any change."""
        if self._note is None:
            yield from super().scan()
            return
        with self._look_for_reports():
            yield from self._scan_held(self._note.entries())

    def _scan_held(self, ours: Mapping[str, HoldEntry]) -> Iterator[SpooledMessage]:
        busy: list[FilePlace] = []
        for entry in self.walk((HELD,)):
            name = entry.place.name
            if name not in ours:
                continue
            if _is_sent(name, entry.descriptor):
                busy.append(entry.place)
                continue
            # Read only now: an earlier delivery has marked its recipients.
            spooled = self.list_entry(entry)
            if spooled and spooled.message.identity == ours[name].identity:
                yield spooled
        yield from self._scan_busy(busy, ours)

    def _scan_busy(
        self, busy: Iterable[FilePlace], ours: Mapping[str, HoldEntry]
    ) -> Iterator[SpooledMessage]:
        """Wait for deliveries that had started when their mail was held."""
        deadline = time.monotonic() + PATIENCE
        for place in busy:
            name = place.name
            with directory(self._root, place.parts) as descriptor:
                while _is_sent(name, descriptor) and time.monotonic() < deadline:
                    time.sleep(LOOK_AGAIN)
                locked = _is_sent(name, descriptor)
                spooled = self.list_entry(QueueEntry(place, descriptor, is_file=True))
            if spooled and spooled.message.identity == ours[name].identity:
                yield _still_sent(spooled) if locked else spooled

    def _refuse_unless_ours(self, place: FilePlace) -> None:
        super()._refuse_unless_ours(place)
        with directory(self._root, place.parts) as descriptor:
            if _is_sent(place.name, descriptor):
                raise MessageUnreadable("locked", "Postfix is still delivering it")

    # --- before a final dot is sent

    def begin(self, messages: Sequence[Message]) -> set[str]:
        """Return those that are still on hold for us, or that no server has."""
        return {
            each.id
            for each in messages
            if self._note is None
            or self._lies_in_hold(each)
            or self._is_from_copy(each)
        }

    def _lies_in_hold(self, message: Message) -> bool:
        place = place_of(message.locator)
        return place.parts[0] == HELD and self.exists(place)


def _is_sent(name: str, directory_fd: int) -> bool:
    """Return whether an agent has it: each takes a shared lock (deliver_request.c)."""
    return is_locked(name, directory_fd, by_readers=True)


def _still_sent(spooled: SpooledMessage) -> SpooledMessage:
    problem = Problem(code="locked", detail="Postfix is still delivering it")
    message = replace(spooled.message, problem=problem)
    return SpooledMessage(message=message, content=spooled.content)


FORMAT = SourceFormat(
    make=PostfixLive,
    marks=(),
    options={
        "ack": SourceOption("acknowledge", ("remove",)),
        "queues": SourceOption("queues", QUEUES, is_list=True),
    },
    listing={"queues": (*DEFAULT_QUEUES, HELD)},
)
