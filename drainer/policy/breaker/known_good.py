"""Addresses that the primary must accept: the operator's, and recently accepted ones.

Pure. The canary asks for them, and a refusal of one as unknown is a contradiction.
"""

from collections.abc import Iterable, Mapping

from drainer.mail.envelope import ascii_form, domain_key, domain_of

MAX_LEARNT = 50_000
MANY_LOST = 2
"""So many addresses of a domain that were accepted before: any other may be lost."""
MAX_CANARY = 3
"""Known-good recipients that one canary asks for."""


class KnownGoodRecipients:
    """The addresses that must exist, as far as drainer knows."""

    def __init__(self, good: Iterable[str] = (), sender: str = "") -> None:
        """Take the operator's known-good addresses, and the sender to use."""
        self.good = tuple(map(ascii_form, good))
        self._operators = {_key(address) for address in self.good}
        self._learnt: dict[str, None] = {}
        self._latest: dict[str, str] = {}
        #: Of each domain: addresses that it accepted before, and says are unknown now.
        self._lost: dict[str, set[str]] = {}
        self._sender = ascii_form(sender)
        self._real_sender = ""

    @property
    def sender(self) -> str:
        """Return the reverse-path to use: the operator's, or one that was accepted."""
        return self._sender or self._real_sender

    def learn(self, recipient: str, domain: str, reverse_path: str = "") -> None:
        """Remember an address that was delivered to."""
        address, sender = ascii_form(recipient), ascii_form(reverse_path)
        if address.isascii():  # a canary cannot use SMTPUTF8
            self._latest.pop(domain, None)  # so that it moves to the end
            self._latest[domain] = address
        if sender and sender.isascii():
            self._real_sender = sender
        if len(self._learnt) < MAX_LEARNT:
            self._learnt[_key(recipient)] = None
        if domain in self._lost:
            self._lost[domain].discard(_key(recipient))

    def load(self, recipients: Iterable[str]) -> None:
        """Add the addresses that earlier drains delivered to, the latest last."""
        for recipient in recipients:
            self.learn(recipient, domain_of(recipient))

    def forget(self, recipient: str) -> None:
        """Ask no more for an address: it was refused while other mail was accepted."""
        key, domain = _key(recipient), domain_of(recipient)
        if key in self._learnt:
            del self._learnt[key]
            self._lost.setdefault(domain, set()).add(key)
        if self._latest.get(domain) == ascii_form(recipient):
            del self._latest[domain]

    def has_lost(self, recipient: str) -> bool:
        """Return whether a primary that does not know an address has lost users.

        It accepted this one before, or several others of the domain.
        """
        lost = self._lost.get(domain_of(recipient), ())
        return len(lost) >= MANY_LOST or _key(recipient) in lost

    def contradicts(self, recipient: str) -> str:
        """Return what kind of contradiction an unknown user is: '' for none."""
        address = _key(recipient)
        postmaster = address.partition("@")[0].lower() == "postmaster"
        if postmaster or address in self._operators:
            return "contradiction"
        return "learnt" if address in self._learnt else ""

    def to_ask(self, domain: str) -> tuple[str, ...]:
        """Return known-good recipients for a canary; '' asks for any domain."""
        good = [a for a in self.good if not domain or domain_of(a) == domain]
        if not good:
            latest: Mapping[str, str] = self._latest
            good = [latest[domain]] if domain in latest else []
            if not domain:
                good = list(latest.values())[-MAX_CANARY:]
        return tuple(good[:MAX_CANARY])


def _key(address: str) -> str:
    """Return an address for comparison: the case of a local part may matter."""
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain_key(domain)}"
