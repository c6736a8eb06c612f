"""Every rule that fires has a meaning in words."""

import pytest

from drainer.policy.classify.describe import meaning_of
from drainer.policy.classify.rules import rules_of
from drainer.policy.recipient.judge import CONTRADICTED

OWN = rules_of(
    [{"id": "theirs", "when": ["x"], "permanent": "hold", "why": "so it is"}]
)


@pytest.mark.parametrize(
    ("rule", "meaning"),
    [
        ("confirmation-due", "due for the confirming attempt"),
        ("", "not tried yet"),
        ("text-relay-denied", "the primary refuses to relay for this host"),
        ("text-theirs", "so it is"),
        ("text-unheard-of", "text-unheard-of"),
        ("enhanced-5.1.1", "the mailbox does not exist"),
        ("enhanced-4.1.1", "the mailbox does not exist"),
        ("enhanced-5.99.99", "enhanced-5.99.99"),
        ("basic-550", "the mailbox is unavailable"),
        ("basic-599", "basic: 599"),
        ("basic-x", "basic: x"),
        ("local-corrupt", "the spool file is damaged"),
        ("local-other", "local: other"),
        ("operator-hold", "an operator's hold"),
        ("rcpt-421", "rcpt: 421"),
    ],
)
def test_a_rule_is_reported_in_words(rule: str, meaning: str) -> None:
    """What nobody knows is told as it is called."""
    assert meaning_of(rule, OWN) == meaning


@pytest.mark.parametrize(
    "rule",
    [
        "breaker-open", "dot-shared", "poison", "refused-in-doubt", "lifetime-spent",
        CONTRADICTED,
    ],
)  # fmt: skip
def test_what_an_ending_was_reconsidered_for_has_words_of_its_own(rule: str) -> None:
    """Status groups by them."""
    assert meaning_of(rule) != rule.replace("-", ": ", 1)
    assert meaning_of(rule) != rule
