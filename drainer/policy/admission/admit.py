"""What drainer itself refuses to send, before the primary sees it."""

from collections.abc import Collection

from msgspec import Struct, field

from drainer.mail.envelope import AddressError, domain_of
from drainer.mail.message import ContentFacts, Message, Problem, SpooledMessage
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.policy.recipient.mapping import AddressMapping


class Admission(Struct, frozen=True, kw_only=True):
    """The rules of ``[primary]`` that concern single messages."""

    #: Recipient domains to send, in lower case; ``.example.org`` means the domains
    #: below it; empty means all.
    domains: Collection[str] = ()
    #: A message with more Received fields than this is in a loop (RFC 5321 6.3).
    max_hops: int = 48
    #: 'hold' or 'space'.
    bare_newlines: str = "hold"
    #: Where recipients are redirected to; the rules apply to those addresses.
    redirect: AddressMapping = field(default_factory=AddressMapping)

    def problem(self, message: Message, facts: ContentFacts) -> Problem | None:
        """Return why the message as a whole must not be sent, or None."""
        if message.problem is not None:
            return message.problem
        if not facts.size_bytes:  # no server accepts mail without adding a field
            return Problem(code="corrupt", detail="its content is empty")
        if facts.bare_newlines and self.bare_newlines == "hold":
            detail = f"{facts.bare_newlines} of them"
            return Problem(code="bare-newline", detail=detail)
        if facts.hops > self.max_hops:
            detail = f"{facts.hops} Received fields, the limit is {self.max_hops}"
            return Problem(code="too-many-hops", detail=detail)
        return None

    def objection(self, forward_path: str) -> Problem | None:
        """Return why nothing must be sent to this recipient, or None."""
        try:
            path = self.redirect.target(forward_path)
        except AddressError as error:
            return Problem(code="bad-address", detail=f"mapped, {error}")
        domain = domain_of(path)
        if not self.domains or not domain or self._names(domain):
            return None
        return Problem(code="not-for-this-primary", detail=domain)

    def foreign(self, forward_path: str) -> bool:
        """Return whether the recipient's domain belongs to another primary."""
        problem = self.objection(forward_path)
        return problem is not None and problem.code == "not-for-this-primary"

    def _names(self, domain: str) -> bool:
        if domain in self.domains:
            return True
        while domain:
            _, dot, domain = domain.partition(".")
            if dot + domain in self.domains:
                return True
        return False


def admit(
    spooled: SpooledMessage, facts: ContentFacts | None, rules: Admission
) -> ScannedMessage:
    """Return the first record of a message: each recipient is pending or held."""
    message = spooled.message
    problem = message.problem
    if problem is not None and problem.code == "done-by-backup":
        problem = None  # nothing is left to do, so there is nothing to hold
    elif problem is None and facts is not None:
        problem = rules.problem(message, facts)
    count = max(1, len(message.envelope.recipients)) if problem else 0
    if problem is not None:
        return ScannedMessage(
            spooled=spooled,
            facts=facts,
            problem=problem,
            problems=(problem.code,) * count,
        )
    found = (rules.objection(each.forward_path) for each in message.envelope.recipients)
    problems = tuple("" if objection is None else objection.code for objection in found)
    return ScannedMessage(spooled=spooled, facts=facts, problem=None, problems=problems)
