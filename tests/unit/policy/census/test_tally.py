"""Recipients in groups."""

from drainer.policy.census.existence import (
    LISTED,
    NOT_LISTED,
    UNLISTED,
    Existence,
    ExistenceAnswer,
)
from drainer.policy.census.tally import MAX_SAMPLES, CensusTally, RecipientCount


def test_spellings_of_one_mailbox_are_one_recipient() -> None:
    """The first spelling stands for all."""
    count = RecipientCount()
    for mailbox in ("Bob@Example.org", "bob@example.ORG", '"bob"@example.org', "a@b.c"):
        count.add(mailbox)
    assert dict(count.mailboxes()) == {"Bob@Example.org": 3, "a@b.c": 1}
    assert len(count) == 2


def test_groups_are_by_domain_and_reason_and_the_unknown_come_first() -> None:
    """Each counts its recipients and their messages, and keeps a few of them."""
    tally = CensusTally()
    known = ExistenceAnswer(Existence.KNOWN, LISTED, "list")
    unknown = ExistenceAnswer(Existence.UNKNOWN, NOT_LISTED, "list")
    for n in range(8):
        tally.add(f"u{n}@a.example", 2, unknown)
    tally.add("x@b.example", 1, unknown)
    tally.add("y@c.example", 1, UNLISTED)
    tally.add("z@a.example", 5, known)
    facts = [(g.existence, g.domain, g.recipients, g.messages) for g in tally.groups]
    assert facts == [
        (Existence.UNKNOWN, "a.example", 8, 16),
        (Existence.UNKNOWN, "b.example", 1, 1),
        (Existence.CANNOT_TELL, "c.example", 1, 1),
        (Existence.KNOWN, "a.example", 1, 5),
    ]
    assert len(tally.groups[0].samples) == MAX_SAMPLES
    assert tally.count(Existence.UNKNOWN) == 9
