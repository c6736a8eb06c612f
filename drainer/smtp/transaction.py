"""What a session works on: one transaction."""

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from drainer.errors import MessageUnreadable
from drainer.mail.echo import MAX_HEAD, SentData
from drainer.mail.envelope import AddressError, Recipient
from drainer.mail.message import ContentFacts, Problem, SpooledMessage
from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.bounce.facts import is_private, parse_address
from drainer.policy.classify.classifier import Answer
from drainer.policy.recipient.delivery import ClaimedRecipient, Delivery
from drainer.policy.recipient.judge import RecipientResult
from drainer.smtp.commands import Extensions, misfit, sender_of

WORTH_TELLING = 0.001
"""Seconds of waiting for the rate above which the trace shows it."""
MAX_STAGE_TEXT = 500
"""Characters of a reply that are kept with the time of its stage."""
_AFTER_RCPT = frozenset((Stage.DATA, Stage.BODY, Stage.DOT))


class Transaction(Struct, kw_only=True):
    """One transaction: what to send, and its results so far."""

    delivery: Delivery
    spooled: SpooledMessage
    facts: ContentFacts
    attempt: int = 0
    started: float = 0.0
    #: The same by the clock of the day; None: it is not opened yet.
    began: datetime | None = None
    #: Seconds that it waited for the rate limiter.
    waited: float = 0.0
    #: What scanners of its content said, in words.
    scanned: str = ""
    #: When the primary could start on it: MAIL may have been sent behind a final dot.
    turn: float = 0.0
    #: The final dot was sent, or is about to be; and when it was.
    dotted: bool = False
    dotted_at: float = 0.0
    #: The EHLO keywords that its MAIL and RCPT made use of.
    offer: Collection[str] = ()
    #: Each accepted recipient has a reply of its own to the final dot (LMTP).
    own_replies: bool = False
    #: Its MAIL was sent behind the final dot of another one.
    behind_dot: bool = False
    #: The session ended at that dot.
    spoilt: bool = False
    #: The 354 to DATA proved that every reply to the envelope was its own.
    in_step: bool = False
    results: dict[int, RecipientResult] = field(default_factory=dict)
    accepted: list[ClaimedRecipient] = field(default_factory=list)
    #: The primary offers DSN: it reports what it delivers.
    has_dsn: bool = False
    #: (stage, seconds since MAIL was written, the answer).
    stages: list[tuple[Stage, float, str]] = field(default_factory=list)

    @property
    def addressed(self) -> list[ClaimedRecipient]:
        """The recipients that have a RCPT of their own."""
        return [claimed for claimed in self.delivery.claimed if claimed.twin_of is None]

    @property
    def rcpts(self) -> int:
        """How many those are."""
        return len(self.addressed)

    @property
    def doubts(self) -> int:
        """How often the reply to its final dot was lost before."""
        return max([claimed.doubts for claimed in self.delivery.claimed])

    def misfit(
        self, peer: Extensions, claimed: Sequence[ClaimedRecipient]
    ) -> Problem | None:
        """Return why this primary cannot take the message for these recipients."""
        recipients = [each.recipient for each in claimed]
        return misfit(self.spooled.message, self.facts, recipients, peer)

    def end(self, claimed: ClaimedRecipient, stage: Stage, answer: Answer) -> None:
        """Record how this recipient's attempt ended."""
        ending = RecipientResult(
            claimed=claimed,
            stage=stage,
            answer=answer,
            accepted=len(self.accepted),
            own_reply=self.own_replies,
        )
        self.results.setdefault(claimed.n, ending)

    def void(self, stage: Stage, answer: Answer) -> None:
        """Give every recipient this result, whatever was recorded before."""
        self.results.clear()
        self.accepted.clear()
        self.end_rest(stage, answer)

    def answers(self, those: Callable[[Answer], bool]) -> list[Answer]:
        """Return those of the recipients' answers, in order."""
        return [each.answer for each in self.results.values() if those(each.answer)]

    def replace(self, those: Callable[[Answer], bool], answer: Answer) -> None:
        """Give this answer to every recipient that has one of those."""
        for n, result in self.results.items():
            if those(result.answer):
                self.results[n] = replace(result, answer=answer)

    def end_rest(self, stage: Stage, answer: Answer) -> None:
        """Give every recipient without a result this one; a twin its first's."""
        if len(self.results) == len(self.delivery.claimed):
            return
        for claimed in self.delivery.claimed:
            first = None if claimed.twin_of is None else self.results[claimed.twin_of]
            if first is not None:
                self.results.setdefault(claimed.n, replace(first, claimed=claimed))
            else:
                self.end(claimed, stage, answer)

    @property
    def seconds_for_dot(self) -> float | None:
        """How long the reply to the final dot took; None when none came."""
        if not self.stages or self.stages[-1][0] is not Stage.DOT or not self.dotted:
            return None
        return self.started + self.stages[-1][1] - self.dotted_at

    @property
    def seconds_for_rcpt(self) -> float | None:
        """Return a recipient's time, with a part of MAIL's; None if none was asked."""
        times = [offset for stage, offset, _ in self.stages if stage is Stage.RCPT]
        if not times:
            return None
        return max(0.0, self.started + times[-1] - self.turn) / len(times)

    def sent(self, stage: Stage) -> SentData:
        """Return what it sent up to a stage, and a stranger chose.

        From DATA on that includes the start of the content, which is read again.
        """
        message = self.delivery.message
        recipients = [claimed.recipient for claimed in self.delivery.claimed]
        with contextlib.suppress(AddressError):
            recipients.append(Recipient(forward_path=sender_of(message, recipients)))
        client, names = message.client, (message.client.name, message.client.helo)
        address = parse_address(client.address)
        is_stranger = address is not None and not is_private(address)
        return SentData(
            addresses=(
                message.envelope.reverse_path,
                *(each.forward_path for each in recipients),
                *(each.orcpt.partition(";")[2] for each in recipients),
            ),
            client=(client.address, *names) if is_stranger else (),
            texts=(message.envelope.envid, message.login, message.message_id, *names),
            head=self._head() if stage in _AFTER_RCPT else b"",
        )

    def _head(self) -> bytes:
        found = b""
        with contextlib.suppress(MessageUnreadable):
            for chunk in self.spooled.content.chunks():
                found += chunk[:MAX_HEAD]
                if len(found) >= MAX_HEAD:
                    break
        return found

    def note(self, stage: Stage, answer: Reply | Lost) -> None:
        """Keep the time of a stage for the trace."""
        self.stages.append((stage, time.monotonic() - self.started, str(answer)))

    @property
    def timeline(self) -> tuple[tuple[str, int, str], ...]:
        """What took time, for the trace: name, microseconds since MAIL, the answer."""
        before = []
        if self.waited >= WORTH_TELLING:
            before.append(("throttle.wait", 0, f"{self.waited:.3f} s"))
        if self.scanned:
            before.append(("content.scan", 0, self.scanned[:MAX_STAGE_TEXT]))
        timed = [
            (str(stage), int(seconds * 1e6), answer[:MAX_STAGE_TEXT])
            for stage, seconds, answer in self.stages
        ]
        return (*before, *timed)
