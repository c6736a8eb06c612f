"""The brake: while too many refusals wait, none becomes final. Pure.

A primary that has lost a part of its users refuses many, and only their number shows
it. Mail of the drain that runs is refused, too, so they are counted until one becomes
final.
"""

from typing import NamedTuple

from drainer.policy.breaker.detector import RecipientKey, is_content
from drainer.policy.classify.verdict import Verdict

_UNCOUNTED = frozenset(("", Verdict.STOP.value))


def is_counted(refusal: str) -> bool:
    """Return whether a refusal, by its rule, counts: spam is common in bulk."""
    return refusal not in _UNCOUNTED and not is_content(refusal)


class Brake(NamedTuple):
    """When too many permanent refusals are pending: ``[breaker] brake``."""

    least: int
    share: float

    def is_on(self, pending: int, handled: int) -> bool:
        """Return whether so many refusals, of all recipients, are too many.

        Half of ``least`` are enough if they are half of all: in a short queue.
        """
        is_half = 2 * pending >= handled
        least = self.least / 2 if is_half else self.least
        return pending > max(least, self.share * handled)


USUAL_BRAKE = Brake(least=10, share=0.05)


class PendingRefusals:
    """How many refusals of a route wait at this moment, of how many recipients."""

    def __init__(self) -> None:
        """Start with none; ``start`` says what earlier drains have left."""
        self._brake = USUAL_BRAKE
        self._older = self._handled = 0
        #: Recipients that this drain was refused first, also by one host of several.
        self._new: set[RecipientKey] = set()
        #: The brake was on when the drain started; so it stays on.
        self.began_braked = False

    def start(self, brake: Brake, pending: int, handled: int) -> None:
        """Take over what the ledger has when a drain starts."""
        self._brake, self._older, self._handled = brake, pending, handled
        self.began_braked = brake.is_on(pending, handled)

    @property
    def is_braked(self) -> bool:
        """Whether no refusal may become final now."""
        pending = self._older + len(self._new)
        return self.began_braked or self._brake.is_on(pending, self._handled)

    def count(self, key: RecipientKey, *, first: bool, before: str, after: str) -> None:
        """Count how an attempt ended; ``first``: its recipient was never tried before.

        ``before`` and ``after`` are the rules by which the recipient is refused and
        waits, '' = it does not.
        """
        self._handled += first
        if not (before or after or self._new):
            return
        waits = is_counted(after)
        if key not in self._new and is_counted(before):
            self._older -= not waits
        elif waits:
            self._new.add(key)
        else:
            self._new.discard(key)
