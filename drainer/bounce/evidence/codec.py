"""Facts and marks as the ledger keeps them: to JSON and back."""

from pydantic import TypeAdapter

from drainer.mail.list_markers import ListMarkers
from drainer.policy.bounce.facts import SenderFacts, Strength
from drainer.policy.recipient.delivery import StoredEvidence

_FACTS, _MARKS = TypeAdapter(SenderFacts), TypeAdapter(ListMarkers)


def facts_of(found: StoredEvidence) -> SenderFacts:
    """Return the facts that were stored."""
    return _FACTS.validate_json(found.facts)


def marks_of(found: StoredEvidence) -> ListMarkers:
    """Return the marks of the header that were stored."""
    return _MARKS.validate_json(found.marks)


def stored(facts: SenderFacts, marks: ListMarkers) -> dict[str, object]:
    """Return both as the columns of a row, and whether to ask DNS again."""
    return {
        "facts": _FACTS.dump_json(facts).decode(),
        "marks": _MARKS.dump_json(marks).decode(),
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
