"""From a source or the ledger to transactions that a session can send.

Everything that reads the spool runs in a thread: listing, surveying, opening again.
Reading changes nothing (promise P9).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from drainer.bounce.quarantine.store import Quarantine, open_message
from drainer.errors import MessageUnreadable
from drainer.mail.content import survey
from drainer.mail.envelope import Recipient
from drainer.mail.message import ContentFacts, Problem, SpooledMessage
from drainer.policy.admission.admit import Admission, admit
from drainer.policy.admission.selection import Selection, summarize
from drainer.policy.recipient.delivery import (
    ClaimedRecipient,
    Delivery,
    ScannedMessage,
    parts,
    redirect_all,
)
from drainer.smtp.transaction import Transaction
from drainer.sources.protocol import Source

NOTHING = ContentFacts(
    size_bytes=0,
    has_8bit=False,
    header_8bit=False,
    bare_newlines=0,
    hops=0,
)


def examine(
    spooled: SpooledMessage, rules: Admission, *, digest: bool = False
) -> ScannedMessage:
    """Survey a message's content and decide what holds it; never raise.

    ``digest`` asks for the content's SHA-256 as well.
    """
    facts: ContentFacts | None = None
    problem = spooled.message.problem
    try:
        facts = survey(spooled.content.chunks(), digest=digest)
    except MessageUnreadable as error:
        problem = problem or Problem(code=error.code, detail=error.detail)
    if problem is not spooled.message.problem:
        message = replace(spooled.message, problem=problem)
        spooled = SpooledMessage(message=message, content=spooled.content)
    return admit(spooled, facts, rules)


def select_messages(
    source: Source, rules: Admission, selection: Selection, *, digest: bool = False
) -> Iterator[ScannedMessage | None]:
    """Scan a source and examine what is selected; yield None for each of the others.

    Raises SourceError as ``scan`` does. ``digest`` as for ``examine``.
    """
    if selection.is_all:
        for spooled in source.scan():
            yield examine(spooled, rules, digest=digest)
        return
    for spooled in source.scan():
        scanned = None
        paths = [r.forward_path for r in spooled.message.envelope.recipients]
        # drainer does not read what the selection skips anyway; its size is known
        # later.
        if selection.takes(summarize(spooled.message, None), paths):
            scanned = examine(spooled, rules, digest=digest)
            size = scanned.facts.size_bytes if scanned.facts else None
            size = spooled.message.size_bytes if size is None else size
            if not selection.takes_size(size):
                scanned = None
        yield scanned


@dataclass(slots=True)
class Loader:
    """Turns deliveries into transactions that the primary can take."""

    sources: dict[str, Source]
    rules: Admission
    #: Recipients per transaction; lowered when the primary allows fewer.
    max_recipients: int
    #: Where drainer copies a message before a refusal of it may become final.
    quarantine: Quarantine | None = None
    #: drainer reports deliveries to senders who asked for it: then it is copied as
    #: well.
    reports_success: bool = False
    #: Copies of delivered mail that the primary may have lost.
    kept: Quarantine | None = None

    def at_hand(
        self, delivery: Delivery
    ) -> list[tuple[Transaction, Problem | None]] | None:
        """Return the transactions of a delivery that was just scanned.

        None: the spool must be read (``read``).
        """
        spooled, facts = delivery.spooled, delivery.facts
        if spooled is None or facts is None:
            return None
        if self.reports_success and delivery.wants_success:
            return None
        return [
            (Transaction(delivery=part, spooled=spooled, facts=facts), None)
            for part in self._parts(delivery)
        ]

    def read(self, delivery: Delivery) -> list[tuple[Transaction, Problem | None]]:
        """Return the transactions of a delivery, and what forbids each of them.

        It reads the spool, so run it in a thread.
        """
        return list(self._reopened(delivery))

    def _reopened(
        self, delivery: Delivery
    ) -> Iterator[tuple[Transaction, Problem | None]]:
        placeholder = SpooledMessage(message=delivery.message, content=_NoContent())
        message = delivery.message
        if message.has_twin and all(each.released for each in delivery.claimed):
            message = replace(message, has_twin=False)  # the operator takes either
        try:
            spooled = open_message(self.sources, self.quarantine, message, self.kept)
        except MessageUnreadable as error:
            problem = Problem(code=error.code, detail=error.detail)
            yield (
                Transaction(delivery=delivery, spooled=placeholder, facts=NOTHING),
                problem,
            )
            return
        scanned = examine(spooled, self.rules)
        facts = scanned.facts or NOTHING
        for objection, claimed in self._sorted(delivery, scanned):
            whole = delivery.whole and len(claimed) == len(delivery.claimed)
            for part in self._parts(replace(delivery, claimed=claimed, whole=whole)):
                if objection is None and self._needs_copy(part):
                    part = self._kept(part, spooled)  # noqa: PLW2901 - the same part
                yield (
                    Transaction(delivery=part, spooled=spooled, facts=facts),
                    objection,
                )

    def _needs_copy(self, delivery: Delivery) -> bool:
        return delivery.confirms or (self.reports_success and delivery.wants_success)

    def _kept(self, delivery: Delivery, spooled: SpooledMessage) -> Delivery:
        """Return the delivery of a message whose copy is kept, if there is room."""
        if self.quarantine is None:
            return delivery
        try:
            self.quarantine.keep(spooled, delivery.claimed)
        except (MessageUnreadable, OSError):
            return delivery  # then no refusal of it becomes final
        return replace(delivery, kept=True)

    def _sorted(
        self, delivery: Delivery, scanned: ScannedMessage
    ) -> Iterator[tuple[Problem | None, tuple[ClaimedRecipient, ...]]]:
        """Yield what forbids recipients (None: nothing), with those recipients."""
        recipients = scanned.spooled.message.envelope.recipients
        pending = {each.forward_path: each for each in recipients}
        found: dict[Problem | None, list[ClaimedRecipient]] = {}
        for claimed in delivery.claimed:
            problem = self._objection(claimed, scanned, pending)
            found.setdefault(problem, []).append(claimed)
        yield from ((problem, tuple(those)) for problem, those in found.items())

    def _objection(
        self,
        claimed: ClaimedRecipient,
        scanned: ScannedMessage,
        pending: Mapping[str, Recipient],
    ) -> Problem | None:
        """Return why a recipient may not be sent to, now that it was read again."""
        path, problem = claimed.recipient.forward_path, scanned.problem
        if problem is not None and not (claimed.released and problem.releasable):
            return problem
        if path not in pending:
            return Problem(code="done-by-backup", detail="the spool says so now")
        objection = self.rules.objection(pending[path], scanned.facts)
        if objection and not (claimed.released and objection.releasable):
            return objection
        return None

    def _parts(self, delivery: Delivery) -> list[Delivery]:
        """Split a delivery: VERP takes one recipient, and the primary has a limit."""
        if self.rules.redirect.table:
            delivery = replace(
                delivery, claimed=redirect_all(delivery.claimed, self.rules.redirect)
            )
        size = 1 if delivery.message.envelope.verp else self.max_recipients
        if len(delivery.claimed) <= size:
            return [delivery]
        return [
            replace(delivery, claimed=part, whole=False)
            for part in parts(delivery.claimed, size)
        ]


class _NoContent:
    """The content of a message that could not be opened."""

    def chunks(self) -> Iterator[bytes]:
        """Raise: the caller has overlooked the problem."""
        code, detail = "vanished", "it could not be opened"
        raise MessageUnreadable(code, detail)
