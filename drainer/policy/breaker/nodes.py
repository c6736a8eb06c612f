"""Which sessions reach a host of the primary that refuses what the others accept. Pure.

A primary is often several hosts behind one address, and one may have lost its user
table, or a filter. All of a session's messages go to one host.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from drainer.mail.reply import Stage
from drainer.policy.breaker.detector import RecipientKey, Refusal, is_about_kind
from drainer.policy.classify.verdict import Verdict

REFUSED_ALONE = 2
"""Recipients that a session refuses, and accepts none, before it is suspected."""
REFUSED_LATER = 6
"""The same in a row for a session that has accepted some: its host may fail later."""
ACCEPTED_ELSEWHERE = 3
"""Recipients of the same domain that other sessions accepted."""
SESSIONS = 50
"""Sessions that are remembered."""
MAX_RETRIES = 3
"""How often a recipient is tried elsewhere; then its refusal counts as any other."""
MOST_RETRIED = 50_000
"""Recipients that this is remembered of."""


@dataclass(slots=True)
class _Tally:
    """What one session met for one recipient domain."""

    delivered: int = 0
    refused: int = 0
    #: It accepted a known-good recipient, so its host knows its users.
    vouched: bool = False
    #: Refused since the last acceptance: at RCPT; for another reason that names no
    #: mailbox.
    mailboxes: dict[RecipientKey, None] = field(default_factory=dict)
    others: dict[RecipientKey, None] = field(default_factory=dict)
    #: Its refusals were taken back.
    suspect: bool = False

    def is_suspicious(self, *, few: bool) -> bool:
        """Return whether it accepts none any more; ``few`` refusals are enough."""
        most = REFUSED_LATER if self.delivered else REFUSED_ALONE
        least = most // 2 if few else most
        mailboxes = 0 if self.vouched else len(self.mailboxes)
        return mailboxes >= least or len(self.others) >= least

    def deliver(self) -> None:
        """Record an acceptance: what was refused before it was individual."""
        self.delivered += 1
        self.mailboxes.clear()
        self.others.clear()

    def take(self) -> list[RecipientKey]:
        """Return what it refused, once."""
        found = [*({} if self.vouched else self.mailboxes), *self.others]
        self.suspect = True
        self.mailboxes, self.others = {}, {}
        return found


class NodeDetector:
    """Compares sessions by what they refuse and accept."""

    def __init__(self) -> None:
        self._sessions: dict[int, dict[str, _Tally]] = {}
        #: Domains that some hosts of the primary refuse, and others accept.
        self.mixed: set[str] = set()
        self._retries: dict[RecipientKey, int] = {}

    def vouch(self, session: int, domain: str) -> None:
        """Record that a session accepted a known-good recipient."""
        self._tally(session, domain).vouched = True

    def compare(self, domain: str) -> list[RecipientKey]:
        """Return whom a host refused, although a canary elsewhere was accepted."""
        if any(
            not (tally.delivered or tally.vouched)
            and len(tally.mailboxes) >= REFUSED_ALONE
            for tally in self._tallies(domain)
        ):
            self.mixed.add(domain)
        return list(self.retract(domain)) if domain in self.mixed else []

    def observe(
        self, session: int, seen: Iterable[tuple[RecipientKey, Refusal]]
    ) -> list[RecipientKey]:
        """Record an attempt; return the recipients that some host refused wrongly.

        If hosts disagree about a domain, those are all that were refused on sessions
        which accepted no recipient of it, or accept none any more.
        """
        domains = set()
        for key, refusal in seen:
            domain = refusal.recipient_domain
            tally = self._tally(session, domain)
            if refusal.classification.verdict is Verdict.DELIVER:
                tally.deliver()
                early = tally.delivered <= ACCEPTED_ELSEWHERE
                suspects = self._tallies(domain) if early else []
            else:
                suspects = [tally] if self._count(tally, key, refusal) else []
            if suspects:
                domains.add(domain)
                if any(self._is_alone(domain, each) for each in suspects):
                    self.mixed.add(domain)
        if not domains:
            return []
        domains &= self.mixed
        return [key for domain in domains for key in self.retract(domain)]

    def _count(self, tally: _Tally, key: RecipientKey, refusal: Refusal) -> bool:
        """Record a refusal; return whether it may be about the host."""
        if refusal.stage is Stage.RCPT:
            if refusal.classification.verdict is not Verdict.BOUNCE:
                return False
            tally.mailboxes[key] = None
        elif is_about_kind(refusal.classification, refusal.answer):
            tally.others[key] = None
        else:
            return False
        tally.refused += 1
        return True

    def is_retried(self, key: RecipientKey) -> bool:
        """Return whether another host was asked for a recipient."""
        return key in self._retries

    def is_suspect(self, session: int) -> bool:
        """Return whether a session accepted none of a domain that others accept."""
        return bool(self.mixed) and any(
            domain in self.mixed and tally.suspect
            for domain, tally in self._sessions.get(session, {}).items()
        )

    def retract(self, domain: str) -> Iterator[RecipientKey]:
        """Yield, once, what was refused on sessions that accept no recipient.

        A recipient is tried elsewhere MAX_RETRIES times: then no host accepts it.
        """
        for tally in self._tallies(domain):
            for key in tally.take() if tally.is_suspicious(few=True) else ():
                tries = self._retries.pop(key, 0) + 1
                self._retries[key] = tries
                if len(self._retries) > MOST_RETRIED:
                    del self._retries[next(iter(self._retries))]
                if tries <= MAX_RETRIES:
                    yield key

    def _is_alone(self, domain: str, tally: _Tally) -> bool:
        """Return whether a session refuses all of a domain, unlike the others.

        Several sessions that each refused one message, and accepted none, count
        together, unless they refused mailboxes.
        """
        single = [each for each in self._tallies(domain) if not each.delivered]
        together = sum(len(each.others) for each in single)
        if not tally.is_suspicious(few=False) and together < REFUSED_ALONE:
            return False
        others = [each for each in self._tallies(domain) if each is not tally]
        healthy = sum(each.delivered for each in others)
        refused = sum(each.refused for each in others if each.delivered)
        return healthy >= ACCEPTED_ELSEWHERE and refused < healthy

    def _tallies(self, domain: str) -> list[_Tally]:
        found = (tallies.get(domain) for tallies in self._sessions.values())
        return [tally for tally in found if tally is not None]

    def _tally(self, session: int, domain: str) -> _Tally:
        tallies = self._sessions.pop(session, None)
        if tallies is None:
            tallies = {}
            if len(self._sessions) >= SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        self._sessions[session] = tallies  # the latest last
        if domain not in tallies:
            tallies[domain] = _Tally()
        return tallies[domain]
