"""Mail that is refused as a kind: one trait separates it from what is delivered."""

import pytest

from drainer.mail.reply import Stage
from drainer.policy.breaker.detector import RecipientKey, Refusal
from drainer.policy.breaker.groups import (
    LEAST,
    MOST_GROUPS,
    MOST_REFUSED,
    GroupDetector,
    MailGroup,
    MailTraits,
)
from tests.support.scenarios.settlements import seen

POLICY = "550 5.7.1 Not accepted by policy"
BIG = MailTraits(sender_domain="big.example", size_bytes=1000)


def refusal(n: int, text: str = POLICY) -> list[tuple[RecipientKey, Refusal]]:
    """Return what the primary said to the n-th message, at the final dot."""
    one = seen(text, f"u{n}@example.org", sender_domain="s.example", stage=Stage.DOT)
    return [((n, 0), one)]


def others(count: int = LEAST) -> GroupDetector:
    """Return a detector that saw other mail delivered."""
    groups = GroupDetector()
    for n in range(count):
        groups.record_delivery(
            MailTraits(sender_domain=f"s{n}.example", size_bytes=2000)
        )
    return groups


@pytest.mark.parametrize(
    ("traits", "group"),
    [
        (BIG, MailGroup(kind="sender", value="big.example")),
        (
            MailTraits(sender_domain="", attachment=True),
            MailGroup(kind="attachment"),
        ),
        (MailTraits(sender_domain="", smtputf8=True), MailGroup(kind="smtputf8")),
        (MailTraits(sender_domain="", size_bytes=900_000), MailGroup(kind="size")),
    ],
    ids=lambda each: each.kind if isinstance(each, MailGroup) else "",
)
def test_a_trait_of_all_refused_and_no_delivered_mail_is_a_group(
    traits: MailTraits, group: MailGroup
) -> None:
    """Three are enough, and all of them are held with it."""
    groups = others()
    for n in range(LEAST - 1):
        assert groups.record_refusal(traits, refusal(n)) is None
    found = groups.record_refusal(traits, refusal(LEAST))
    assert found == (group, [(0, 0), (1, 0), (LEAST, 0)])
    assert group.words
    assert group.rule == f"group-{group.kind}"


def test_it_is_no_group_while_nothing_else_is_delivered_since() -> None:
    """Then the primary may refuse everybody by now."""
    groups = others()
    groups.record_delivery(BIG)
    for n in range(2 * LEAST):
        assert groups.record_refusal(BIG, refusal(n)) is None


def test_a_primary_may_start_to_refuse_a_group_later() -> None:
    """A filter for attachments fails in the middle of a drain."""
    groups = others()
    groups.record_delivery(BIG)
    for n in range(LEAST):
        assert groups.record_refusal(BIG, refusal(n)) is None
        groups.record_delivery(MailTraits(sender_domain="other.example"))
    group, keys = groups.record_refusal(BIG, refusal(LEAST)) or (None, [])
    assert group == MailGroup(kind="sender", value="big.example")
    assert keys == [(n, 0) for n in range(LEAST + 1)]


def test_a_group_is_found_once_if_it_is_delivered_after_that() -> None:
    """The refusals are individual; messages are not held and released in turn."""
    groups = others()
    found = [groups.record_refusal(BIG, refusal(n)) for n in range(LEAST)]
    assert found[-1] is not None
    groups.record_delivery(BIG)
    for n in range(3 * LEAST):
        groups.record_delivery(MailTraits(sender_domain="other.example"))
        assert groups.record_refusal(BIG, refusal(LEAST + n)) is None


def test_it_is_no_group_while_others_are_refused_alike() -> None:
    """The refusal is about everybody, or about each."""
    groups = others()
    for n in range(2 * LEAST):
        other = MailTraits(sender_domain=f"t{n}.example", size_bytes=1000)
        assert groups.record_refusal(other, refusal(n)) is None
        assert groups.record_refusal(BIG, refusal(100 + n)) is None


def test_without_deliveries_nothing_is_compared() -> None:
    """The breakers find out what is wrong with the primary."""
    groups = others(LEAST - 1)
    for n in range(2 * LEAST):
        assert groups.record_refusal(BIG, refusal(n)) is None


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 No such user",
        "550 5.1.10 Recipient not found",
        "550 5.2.1 Mailbox disabled",
        "554 5.7.1 Spam message rejected",
        "552 5.3.4 Message too big for system",
        "552 Message size exceeds the limit",
        "451 4.7.1 Try again later",
    ],
)
def test_a_reply_about_one_mailbox_or_content_is_no_matter_of_a_group(
    text: str,
) -> None:
    """It names the mailbox, the size or the finding; or it is temporary."""
    groups = others()
    for n in range(2 * LEAST):
        assert groups.record_refusal(BIG, refusal(n, text)) is None


def test_each_refusal_is_reported_once() -> None:
    """The ledger holds a group's first messages; later ones are held as they come."""
    groups = others()
    found = [groups.record_refusal(BIG, refusal(n)) for n in range(LEAST + 2)]
    keys = [each[1] if each else [] for each in found]
    assert keys[LEAST - 1 :] == [[(0, 0), (1, 0), (2, 0)], [(3, 0)], [(4, 0)]]


def test_strangers_domains_cost_no_memory_without_end() -> None:
    """A forgotten domain is compared as if nothing of it had been delivered."""
    groups = others()
    groups.record_delivery(BIG)
    for n in range(MOST_GROUPS):
        groups.record_delivery(MailTraits(sender_domain=f"t{n}.example"))
    found = [groups.record_refusal(BIG, refusal(n)) for n in range(LEAST)]
    assert found[-1] is not None


def test_memory_has_a_limit() -> None:
    """A queue may hold millions."""
    groups = others(0)
    for n in range(MOST_REFUSED + 10):
        groups.record_refusal(BIG, refusal(n))
    for n in range(LEAST):
        groups.record_delivery(MailTraits(sender_domain=f"s{n}.example"))
    found = groups.record_refusal(BIG, refusal(MOST_REFUSED + 10))
    assert found is not None
    assert len(found[1]) == MOST_REFUSED
