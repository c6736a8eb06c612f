"""Mail that the primary refuses as a kind: held together, and released together.

drainer.policy.breaker.groups finds the groups. This module keeps which groups are held,
and has the ledger hold or release what earlier attempts have left.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from drainer.policy.breaker.detector import RecipientKey, Refusal
from drainer.policy.breaker.groups import GroupDetector, MailGroup, MailTraits
from drainer.policy.classify.verdict import Verdict


class GroupGuard:
    """Keeps the groups of mail that a primary refuses."""

    def __init__(self) -> None:
        """Start without any group."""
        self._detector = GroupDetector()
        #: Groups that are held, also by earlier runs.
        self.held: set[MailGroup] = set()
        #: Recipients to hold with their group, and groups to release.
        self.holds: deque[tuple[MailGroup, Sequence[RecipientKey]]] = deque()
        self.releases: deque[MailGroup] = deque()

    @property
    def changed(self) -> bool:
        """Whether the ledger does not know everything yet."""
        return bool(self.holds or self.releases)

    def observe(
        self, traits: MailTraits, seen: Sequence[tuple[RecipientKey, Refusal]]
    ) -> MailGroup | None:
        """Record an attempt; return the group because of which it is refused."""
        refused = [
            each
            for each in seen
            if each[1].classification.verdict is not Verdict.DELIVER
        ]
        if len(refused) < len(seen):
            self._detector.record_delivery(traits)
            self._release(traits)
        found = self._detector.record_refusal(traits, refused) if refused else None
        if found is None:  # an earlier run may know better
            return (
                next(iter(_groups_of(traits, self.held)), None) if self.held else None
            )
        group, keys = found
        self.held.add(group)
        self.holds.append((group, keys))
        return group

    def _release(self, traits: MailTraits) -> None:
        """Release the groups that a delivered message belongs to."""
        if not self.held:
            return
        for group in _groups_of(traits, self.held):
            self.held.discard(group)
            self.releases.append(group)


def _groups_of(traits: MailTraits, held: Iterable[MailGroup]) -> list[MailGroup]:
    return [
        group
        for group in held
        if (group.kind == "sender" and group.value == traits.sender_domain)
        or (group.kind == "attachment" and traits.attachment)
        or (group.kind == "smtputf8" and traits.smtputf8)
    ]
