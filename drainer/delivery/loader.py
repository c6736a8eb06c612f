"""From a source or the ledger to work that a session can send.

Everything that reads the spool runs in a thread: listing, surveying, opening
again. Reading changes nothing (promise P9).
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from drainer.bounce.quarantine.store import Quarantine, open_message
from drainer.errors import MessageUnreadable
from drainer.mail.content import survey
from drainer.mail.message import ContentFacts, Problem, SpooledMessage
from drainer.policy.admission.admit import Admission, admit
from drainer.policy.admission.selection import Selection, known
from drainer.policy.recipient.delivery import (
    ClaimedRecipient,
    Delivery,
    ScannedMessage,
    parts,
    redirected,
)
from drainer.smtp.transaction import Transaction
from drainer.sources.protocol import Source

NOTHING = ContentFacts(
    size_bytes=0,
    has_8bit=False,
    header_8bit=False,
    has_nul=False,
    bare_newlines=0,
    hops=0,
)


def examine(
    spooled: SpooledMessage, rules: Admission, *, digest: bool = False
) -> ScannedMessage:
    """Survey a message's content and decide what holds it; never raises.

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


def chosen(
    source: Source, rules: Admission, selection: Selection, *, digest: bool = False
) -> Iterator[ScannedMessage | None]:
    """Scan a source and examine what is selected; None stands for each of the rest.

    Raises SourceError as ``scan`` does. ``digest`` as for ``examine``.
    """
    if selection.is_all:
        for spooled in source.scan():
            yield examine(spooled, rules, digest=digest)
        return
    for spooled in source.scan():
        scanned = None
        paths = [r.forward_path for r in spooled.message.envelope.recipients]
        # What is passed over anyhow is not read; its size is known afterwards.
        if selection.takes(known(spooled.message, None), paths):
            scanned = examine(spooled, rules, digest=digest)
            size = scanned.facts.size_bytes if scanned.facts else None
            size = spooled.message.size_bytes if size is None else size
            if not selection.takes_size(size):
                scanned = None
        yield scanned


@dataclass(slots=True)
class Loader:
    """Turns jobs into work, in transactions that the primary can take."""

    sources: dict[str, Source]
    rules: Admission
    #: Recipients per transaction; learnt downwards when the primary says so.
    max_recipients: int
    #: Where a message is copied to before a refusal of it may become final.
    quarantine: Quarantine | None = None
    #: Senders are told of deliveries if they asked for it: then it is copied as well.
    tells: bool = False

    def is_at_hand(self, job: Delivery) -> bool:
        """Whether ``works`` touches no disk."""
        if self.tells and job.wants_success:
            return False
        return job.spooled is not None and job.facts is not None

    def read(self, job: Delivery) -> list[tuple[Transaction, Problem | None]]:
        """Return ``works`` as a list; it may block, so run it in a thread."""
        return list(self.works(job))

    def works(self, job: Delivery) -> Iterator[tuple[Transaction, Problem | None]]:
        """Yield the transactions of a job, or what forbids each of them.

        Reads the spool when the job has not just been scanned.
        """
        if job.spooled is None or job.facts is None or not self.is_at_hand(job):
            yield from self._reopened(job)
            return
        for part in self._parts(job):
            yield Transaction(job=part, spooled=job.spooled, facts=job.facts), None

    def _reopened(self, job: Delivery) -> Iterator[tuple[Transaction, Problem | None]]:
        placeholder = SpooledMessage(message=job.message, content=_NoContent())
        message = job.message
        if message.has_twin and all(each.released for each in job.claimed):
            message = replace(message, has_twin=False)  # the operator takes either
        try:
            spooled = open_message(self.sources, self.quarantine, message)
        except MessageUnreadable as error:
            problem = Problem(code=error.code, detail=error.detail)
            yield Transaction(job=job, spooled=placeholder, facts=NOTHING), problem
            return
        scanned = examine(spooled, self.rules)
        facts = scanned.facts or NOTHING
        for objection, claimed in self._sorted(job, scanned):
            whole = job.whole and len(claimed) == len(job.claimed)
            for part in self._parts(replace(job, claimed=claimed, whole=whole)):
                if objection is None and self._needs_copy(part):
                    part = self._kept(part, spooled)  # noqa: PLW2901 - the same part
                yield Transaction(job=part, spooled=spooled, facts=facts), objection

    def _needs_copy(self, job: Delivery) -> bool:
        return job.confirms or (self.tells and job.wants_success)

    def _kept(self, job: Delivery, spooled: SpooledMessage) -> Delivery:
        """Return the job of a message of which a copy is kept, if there is room."""
        if self.quarantine is None:
            return job
        try:
            self.quarantine.keep(spooled, job.claimed)
        except (MessageUnreadable, OSError):
            return job  # then no refusal of it becomes final
        return replace(job, kept=True)

    def _sorted(
        self, job: Delivery, scanned: ScannedMessage
    ) -> Iterator[tuple[Problem | None, tuple[ClaimedRecipient, ...]]]:
        """Yield what forbids recipients (None: nothing) with those whom it concerns."""
        pending = {r.forward_path for r in scanned.spooled.message.envelope.recipients}
        found: dict[Problem | None, list[ClaimedRecipient]] = {}
        for claimed in job.claimed:
            problem = self._objection(claimed, scanned.problem, pending)
            found.setdefault(problem, []).append(claimed)
        yield from ((problem, tuple(those)) for problem, those in found.items())

    def _objection(
        self,
        claimed: ClaimedRecipient,
        problem: Problem | None,
        pending: Container[str],
    ) -> Problem | None:
        """Return why a recipient may not be sent to, now that it was read again."""
        path = claimed.recipient.forward_path
        if problem is not None and not (claimed.released and problem.releasable):
            return problem
        if path not in pending:
            return Problem(code="done-by-backup", detail="the spool says so now")
        objection = self.rules.objection(path)
        if objection and not (claimed.released and objection.releasable):
            return objection
        return None

    def _parts(self, job: Delivery) -> Iterator[Delivery]:
        """Cut a job: VERP takes one recipient, and the primary has a limit."""
        if self.rules.redirect:
            job = replace(job, claimed=redirected(job.claimed, self.rules.redirect))
        size = 1 if job.message.envelope.verp else self.max_recipients
        if len(job.claimed) <= size:
            yield job
            return
        for part in parts(job.claimed, size):
            yield replace(job, claimed=part, whole=False)


class _NoContent:
    """The content of a message that could not be opened."""

    def chunks(self) -> Iterator[bytes]:
        """Refuse: whoever asks has overlooked the problem."""
        code, detail = "vanished", "it could not be opened"
        raise MessageUnreadable(code, detail)
