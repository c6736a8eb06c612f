"""What drainer itself refuses to send, before the primary sees it."""

import hashlib

from msgspec import Struct, field

from drainer.mail.envelope import AddressError, Recipient, domain_of
from drainer.mail.message import ContentFacts, Message, Problem, SpooledMessage
from drainer.policy.admission.routes import RouteTable, single_route
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.policy.recipient.mapping import AddressMapping

FOREIGN = ("not-for-this-primary", "no-route")
"""What holds recipients whose domain has no route here."""


class ContentLimits(Struct, frozen=True, kw_only=True):
    """What the content of mail for one route may be."""

    #: A message with more Received fields than this is in a loop (RFC 5321 6.3).
    max_hops: int = 48
    #: 'hold' or 'space'.
    bare_newlines: str = "hold"

    def problem(self, facts: ContentFacts) -> Problem | None:
        """Return why a content must not be sent, or None."""
        if facts.bare_newlines and self.bare_newlines == "hold":
            detail = f"{facts.bare_newlines} of them"
            return Problem(code="bare-newline", detail=detail)
        if facts.hops > self.max_hops:
            detail = f"{facts.hops} Received fields, the limit is {self.max_hops}"
            return Problem(code="too-many-hops", detail=detail)
        return None


class Admission(Struct, frozen=True, kw_only=True):
    """The rules that concern single messages, and where each recipient's mail goes."""

    #: drainer holds recipients whose domain has no route.
    routes: RouteTable = field(default_factory=lambda: single_route(""))
    #: By the names of their routes; the usual ones are for mail without any.
    limits: dict[str, ContentLimits] = field(default_factory=dict)
    usual_limits: ContentLimits = ContentLimits()
    #: Where recipients are redirected to; the rules apply to those addresses.
    redirect: AddressMapping = field(default_factory=AddressMapping)

    def problem(self, message: Message, facts: ContentFacts) -> Problem | None:
        """Return why the message as a whole must not be sent, or None."""
        if message.problem is not None:
            return message.problem
        if not facts.size_bytes:  # no server accepts mail without adding a field
            return Problem(code="corrupt", detail="its content is empty")
        known = message.envelope.recipients
        routes = {self.route_of(each.forward_path) for each in known} or {""}
        found = {self._limits(route).problem(facts) for route in routes}
        return found.pop() if len(found) == 1 else None

    def _limits(self, route: str) -> ContentLimits:
        return self.limits.get(route, self.usual_limits)

    def objection(
        self, recipient: Recipient, facts: ContentFacts | None = None
    ) -> Problem | None:
        """Return why nothing must be sent to this recipient, or None.

        With ``facts``, also why not this content.
        """
        if recipient.fault:
            return Problem(code="bad-address", detail=recipient.fault)
        try:
            path = self.redirect.target(recipient.forward_path)
        except AddressError as error:
            return Problem(code="bad-address", detail=f"mapped, {error}")
        domain = domain_of(path)
        route = self.routes.route_of(domain)
        if route is not None:
            return self._limits(route).problem(facts) if facts else None
        if reason := self.routes.no_route.get(domain):
            return Problem(code="no-route", detail=reason)
        return Problem(code="not-for-this-primary", detail=domain)

    def route_of(self, forward_path: str) -> str:
        """Return the name of the route for this recipient; '' = it has none."""
        try:
            path = self.redirect.target(forward_path)
        except AddressError:
            return ""
        return self.routes.route_of(domain_of(path)) or ""

    @property
    def routing_digest(self) -> str:
        """Return what differs between rules that choose other routes."""
        text = repr((sorted(self.routes.domains.items()), self.redirect))
        return hashlib.sha256(text.encode()).hexdigest()

    def foreign(self, recipient: Recipient) -> bool:
        """Return whether the recipient's domain belongs to another primary."""
        problem = self.objection(recipient)
        return problem is not None and problem.code in FOREIGN


def admit(
    spooled: SpooledMessage, facts: ContentFacts | None, rules: Admission
) -> ScannedMessage:
    """Return the first record of a message: each recipient is pending or held."""
    message = spooled.message
    known = message.envelope.recipients
    routes = tuple(rules.route_of(each.forward_path) for each in known)
    problem = message.problem
    if problem is not None and problem.code == "done-by-backup":
        problem = None  # nothing is left to do, so there is nothing to hold
    elif problem is None and facts is not None:
        problem = rules.problem(message, facts)
    if problem is None:
        problems = tuple([rules.objection(each, facts) for each in known])
    else:
        problems, routes = (problem,) * max(1, len(known)), routes or ("",)
    return ScannedMessage(
        spooled=spooled,
        facts=facts,
        problem=problem,
        problems=problems,
        routes=routes,
    )
