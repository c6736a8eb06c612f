"""What the primary says at RCPT, and where lists disagree."""

import pytest

from drainer.mail.reply import parse_reply
from drainer.policy.census.callout import find_contradictions, judge_callout
from drainer.policy.census.existence import (
    ACCEPTED,
    NO_ANSWER,
    REFUSED,
    Existence,
    ExistenceAnswer,
)

KNOWN, UNKNOWN, UNCLEAR = Existence.KNOWN, Existence.UNKNOWN, Existence.CANNOT_TELL


@pytest.mark.parametrize(
    ("reply", "existence", "refuses_us"),
    [
        ("250 2.1.5 ok", KNOWN, False),
        ("251 will forward", KNOWN, False),
        ("550 5.1.1 User unknown", UNKNOWN, False),
        ("550 No such user here", UNKNOWN, False),
        ("550", UNKNOWN, False),
        ("553 5.1.6 moved", UNKNOWN, False),
        ("550 5.7.1 No such user here", UNKNOWN, False),
        ("550 5.7.1 Only one recipient for bounces", UNCLEAR, False),
        ("450 4.7.1 Greylisted", UNCLEAR, False),
        ("452 4.2.2 mailbox full", UNCLEAR, False),
        ("554 5.7.1 Relay access denied", UNCLEAR, True),
        ("421 4.7.0 too many errors", UNCLEAR, True),
    ],
)
def test_only_a_clear_reply_says_whether_a_recipient_exists(
    reply: str, existence: Existence, *, refuses_us: bool
) -> None:
    """A refusal of us, or for now, is about no recipient."""
    heard = judge_callout(parse_reply(reply.encode()))
    assert (heard.answer.existence, heard.refuses_us) == (existence, refuses_us)


def test_too_many_recipients_are_asked_for_again() -> None:
    """RFC 5321 4.5.3.1.10: only after the transaction has accepted some."""
    reply = parse_reply(b"452 4.5.3 Too many recipients")
    assert judge_callout(reply, accepted=50).is_one_too_many
    assert not judge_callout(reply).is_one_too_many


def said(**letters: str) -> dict[str, ExistenceAnswer]:
    """Return answers by domain: k, u and ? for one recipient each."""
    answers = {
        "k": ExistenceAnswer(KNOWN, ACCEPTED, "250 ok"),
        "u": ExistenceAnswer(UNKNOWN, REFUSED, "550 no"),
        "?": ExistenceAnswer(UNCLEAR, NO_ANSWER, "450 later"),
    }
    return {
        f"{n}@{name}.example": answers[letter]
        for name, word in letters.items()
        for n, letter in enumerate(word)
    }


@pytest.mark.parametrize(
    ("word", "asked", "refused", "lost"),
    [
        ("kkkku", 5, 1, False),
        ("kkuuu", 5, 3, True),
        ("kkkuuu", 6, 3, True),
        ("kkkkuuu", 7, 3, False),
        ("uuuu", 4, 4, False),
        ("uuuu???", 4, 4, False),
        ("uuuuu", 5, 5, True),
    ],
)
def test_a_primary_that_lacks_half_of_five_listed_recipients_has_lost_users(
    word: str, asked: int, refused: int, *, lost: bool
) -> None:
    """Fewer may be stale entries; unclear replies do not count."""
    answers = said(a=word)
    (found,) = find_contradictions(answers, answers)
    assert (found.asked, len(found.refused)) == (asked, refused)
    assert found.has_lost_users is lost
    assert "a.example" in str(found)


@pytest.mark.parametrize(
    ("refused", "lost"), [(100, True), (85, True), (75, False), (20, False)]
)
def test_half_of_the_users_show_in_a_sample_as_about_half(
    refused: int, *, lost: bool
) -> None:
    """Of 200 of more recipients; of all of them exactly half count."""
    answers = said(a="u" * refused + "k" * (200 - refused))
    (found,) = find_contradictions(answers, answers, {"a.example"})
    assert found.has_lost_users is lost
    (whole,) = find_contradictions(answers, answers)
    assert whole.has_lost_users is (refused == 100)


def test_each_domain_is_judged_by_itself() -> None:
    """One may have lost its users while another is whole."""
    answers = said(a="kkkkkkkk", b="uuuuuuk", c="ku")
    found = find_contradictions(answers, answers)
    assert [each.domain for each in found] == ["b.example", "c.example"]
    assert [each.has_lost_users for each in found] == [True, False]
    assert find_contradictions(["nobody@a.example"], answers) == []
