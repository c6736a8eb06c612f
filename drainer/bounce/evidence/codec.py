"""Facts and marks as the ledger keeps them: to JSON and back."""

from msgspec import json

from drainer.mail.list_markers import ListMarkers
from drainer.policy.bounce.facts import SenderFacts, Strength
from drainer.policy.recipient.delivery import StoredEvidence


def facts_of(found: StoredEvidence) -> SenderFacts:
    """Return the facts that were stored."""
    return json.decode(found.facts, type=SenderFacts)


def marks_of(found: StoredEvidence) -> ListMarkers:
    """Return the marks of the header that were stored."""
    return json.decode(found.marks, type=ListMarkers)


def encode_evidence(facts: SenderFacts, marks: ListMarkers) -> dict[str, object]:
    """Return both as the columns of a row, and whether to ask DNS again."""
    return {
        "facts": json.encode(facts).decode(),
        "marks": json.encode(marks).decode(),
        "later": int(is_later(facts)),
    }


def is_later(facts: SenderFacts) -> bool:
    """Return whether DNS did not answer something that might matter."""
    return (
        facts.reach.value == Strength.LATER.value
        or facts.dmarc.later
        or any(each.state is Strength.LATER for each in facts.signatures)
        or (facts.spf is not None and facts.spf.result == "temperror")
    )
