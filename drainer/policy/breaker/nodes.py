"""Which sessions reach a host of the primary that has lost its users. Pure.

A primary is often several hosts behind one address. If one of them has lost its user
table, it refuses what the others accept. All of a session's messages go to one host, so
refusals that come with some sessions only are about that host.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from drainer.mail.reply import Stage
from drainer.policy.breaker.detector import Refusal
from drainer.policy.classify.verdict import Verdict

REFUSED_ALONE = 2
"""Recipients that a session refuses, and accepts none, before it is suspected."""
ACCEPTED_ELSEWHERE = 3
"""Recipients of the same domain that other sessions accepted."""
SESSIONS = 50
"""Sessions that are remembered."""

RecipientKey = tuple[int, int]
"""The number of a message in the ledger, and of a recipient in it."""


@dataclass(slots=True)
class _Tally:
    """What one session met for one recipient domain."""

    accepted: int = 0
    refused: dict[RecipientKey, None] = field(default_factory=dict)
    #: Its refusals were taken back.
    suspect: bool = False


class NodeDetector:
    """Compares sessions by what they refuse and accept."""

    def __init__(self) -> None:
        """Start without any session."""
        self._sessions: dict[int, dict[str, _Tally]] = {}
        #: Domains that some hosts of the primary refuse, and others accept.
        self.mixed: set[str] = set()

    def vouch(self, session: int, domain: str) -> None:
        """Record that a session accepted a known-good recipient."""
        self._tally(session, domain).accepted += 1

    def compare(self, domain: str) -> list[RecipientKey]:
        """Return whom a host refused, although a canary elsewhere was accepted."""
        if any(
            not tally.accepted and len(tally.refused) >= REFUSED_ALONE
            for tallies in self._sessions.values()
            if (tally := tallies.get(domain)) is not None
        ):
            self.mixed.add(domain)
        return list(self.retract(domain)) if domain in self.mixed else []

    def observe(
        self, session: int, seen: Iterable[tuple[RecipientKey, Refusal]]
    ) -> list[RecipientKey]:
        """Record an attempt; return the recipients that some host refused wrongly.

        If hosts disagree about a domain, those are all that were refused on sessions
        which accepted no recipient of it.
        """
        domains = set()
        for key, refusal in seen:
            domain = refusal.recipient_domain
            tally = self._tally(session, domain)
            if refusal.classification.verdict is Verdict.DELIVER:
                tally.accepted += 1
            elif _is_about_mailbox(refusal):
                tally.refused[key] = None
                domains.add(domain)
                if self._is_alone(domain, tally):
                    self.mixed.add(domain)
        return [key for domain in domains & self.mixed for key in self.retract(domain)]

    def is_suspect(self, session: int) -> bool:
        """Return whether a session accepted none of a domain that others accept."""
        return any(
            domain in self.mixed and tally.suspect
            for domain, tally in self._sessions.get(session, {}).items()
        )

    def retract(self, domain: str) -> Iterator[RecipientKey]:
        """Yield, once, what was refused on sessions that accepted no recipient."""
        for tallies in self._sessions.values():
            tally = tallies.get(domain)
            if tally is not None and not tally.accepted and tally.refused:
                tally.suspect = True
                yield from tally.refused
                tally.refused.clear()

    def _is_alone(self, domain: str, tally: _Tally) -> bool:
        """Return whether a session refuses all of a domain, unlike the others."""
        if tally.accepted or len(tally.refused) < REFUSED_ALONE:
            return False
        others = [
            found
            for tallies in self._sessions.values()
            if (found := tallies.get(domain)) is not None and found is not tally
        ]
        healthy = sum(other.accepted for other in others)
        refused = sum(len(other.refused) for other in others if other.accepted)
        return healthy >= ACCEPTED_ELSEWHERE and refused < healthy

    def _tally(self, session: int, domain: str) -> _Tally:
        tallies = self._sessions.pop(session, {})
        self._sessions[session] = tallies  # the latest last
        if len(self._sessions) > SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return tallies.setdefault(domain, _Tally())


def _is_about_mailbox(refusal: Refusal) -> bool:
    return (
        refusal.stage is Stage.RCPT and refusal.classification.verdict is Verdict.BOUNCE
    )
