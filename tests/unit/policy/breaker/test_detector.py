"""What refusals in a row, and their share, make suspicious; and what they do not."""

from collections.abc import Iterable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.reply import Lost, Stage
from drainer.policy.breaker.detector import (
    MUTED_COUNT,
    MUTED_FOR,
    SLOW_RUN,
    UNKNOWN_USER,
    USUAL_WINDOWS,
    Refusal,
    RefusalDetector,
    is_content,
    is_storm,
)
from drainer.policy.classify.classifier import classify
from tests.support.scenarios.settlements import NOW, seen

UNKNOWN = "550 5.1.1 <{to}>: user unknown"
SPAM = "554 5.7.1 Spam detected, id {n}"


def nth(n: int, text: str = UNKNOWN, stage: Stage = Stage.RCPT) -> Refusal:
    """Return the refusal of another sender's mail to another recipient."""
    to = f"u{n}@example.org"
    words = text.format(to=to, n=n)
    return seen(words, to, sender_domain=f"s{n}.example", stage=stage)


def fed(detector: RefusalDetector, refusals: Iterable[Refusal]) -> list[str]:
    """Return what each refusal makes suspicious: a trigger, or ''."""
    causes = [detector.record_refusal(each, NOW) for each in refusals]
    return [cause.trigger if cause else "" for cause in causes]


def accept(detector: RefusalDetector, *numbers: int) -> None:
    """Let recipients be accepted."""
    for n in numbers:
        detector.record_acceptance(f"u{n}@example.org", "example.org")


# ---- runs


@pytest.mark.parametrize(
    ("text", "stage", "enough"),
    [
        ("550 5.7.1 Refused for {to}", Stage.RCPT, 2),
        ("550 5.7.0 Refused for {to}", Stage.MAIL, 2),
        ("554 5.0.0 Refused for {to}", Stage.RCPT, 2),
        ("550 no", Stage.RCPT, 2),
        ("554 no", Stage.MAIL, 2),
        (UNKNOWN, Stage.RCPT, 3),
        ("550 5.4.6 A loop for {to}", Stage.RCPT, 3),
        ("550 5.7.1 Refused for {to}", Stage.DOT, 3),
        ("554 no", Stage.DATA, 3),
        ("550 5.2.1 <{to}> disabled", Stage.BODY, 3),
        (SPAM, Stage.DOT, 10),
        (SPAM, Stage.RCPT, 10),
        ("554 5.6.0 Bad content {n}", Stage.DOT, 10),
    ],
)
def test_a_run_of_the_same_refusal_is_suspicious(
    text: str, stage: Stage, enough: int
) -> None:
    """Two without a reason, three with one, ten of contents."""
    found = fed(RefusalDetector(), (nth(n, text, stage) for n in range(enough)))
    assert found == [""] * (enough - 1) + ["run"]


def test_one_sender_is_no_run_however_much_it_sends() -> None:
    """A dictionary attack by one domain tells nothing of the others."""
    detector = RefusalDetector()
    for n in range(4):
        assert (
            detector.record_refusal(seen(f"550 no {n}", f"u{n}@example.org"), NOW)
            is None
        )


def test_one_recipient_is_no_run_whoever_writes_to_it() -> None:
    """A mailbox that is gone; nor does the case of its address make it two."""
    detector, text = RefusalDetector(), "550 5.1.1 no such user"
    for n, to in enumerate(["Bob@example.org", "bob@EXAMPLE.org", "bob@example.org"]):
        cause = detector.record_refusal(
            seen(text, to, sender_domain=f"s{n}.example"), NOW
        )
        assert cause is None


@pytest.mark.parametrize(
    "between",
    [nth(7, "550 5.7.1 Something else"), nth(7, "550 5.1.1 Another text"), None],
)
def test_another_refusal_or_an_acceptance_ends_a_run(between: Refusal | None) -> None:
    """It begins anew then."""
    detector = RefusalDetector()
    accept(detector, 90)
    assert fed(detector, [nth(0), nth(1)]) == ["", ""]
    if between is None:
        accept(detector, 7)
    else:
        assert detector.record_refusal(between, NOW) is None
    assert fed(detector, [nth(2), nth(3)]) == ["", ""]
    assert detector.record_refusal(nth(4), NOW) is not None


def test_a_cause_tells_what_the_breaker_must_know() -> None:
    """Whether the canary can see it, and whether it is about contents."""
    spf = nth(1, "550 5.7.23 SPF fail for {to}").cause("run")
    assert (spf.blind, spf.content, spf.trigger) == (True, False, "run")
    assert spf.sender_domain == "s1.example"
    assert spf.reply == "550 5.7.23 SPF fail for u1@example.org"
    assert spf.fingerprint == nth(2, "550 5.7.23 SPF fail for {to}").fingerprint
    spam = nth(1, SPAM, Stage.DOT).cause("run")
    assert (spam.blind, spam.content) == (False, True)


def test_a_code_for_contents_is_not_about_them_when_it_is_about_us() -> None:
    """5.7.9 after the content is a policy; at RCPT our mechanism is too weak."""
    assert nth(1, "554 5.7.9 no", Stage.DOT).content
    assert not nth(1, "554 5.7.9 no", Stage.RCPT).content


def test_a_loss_has_a_fingerprint_too() -> None:
    """So that whatever a breaker moved for can be muted."""
    lost = Lost(reason="closed")
    one = Refusal(
        sender_domain="s.example",
        recipient="u@example.org",
        recipient_domain="example.org",
        stage=Stage.BODY,
        classification=classify(lost, Stage.BODY),
        answer=lost,
    )
    assert one.fingerprint == "body closed"


@pytest.mark.parametrize(
    ("rule", "content", "unknown"),
    [
        ("text-content", True, False),
        ("text-content-policy", True, False),
        ("enhanced-5.6.1", True, False),
        ("basic-541", True, False),
        ("enhanced-5.1.1", False, True),
        ("text-unknown-user", False, True),
        ("text-unknown-user-behind-gateway", False, True),
        ("enhanced-5.1.10", False, False),
        ("basic-550", False, False),
    ],
)
def test_rules_are_sorted(rule: str, *, content: bool, unknown: bool) -> None:
    """Contents are refused in bulk, and an unknown user may be a contradiction."""
    assert is_content(rule) is content
    assert (rule in UNKNOWN_USER) is unknown


# ---- the share


def mixed(n: int) -> Refusal:
    """Return refusals of which no two are of the same kind."""
    return nth(n, f"550 5.1.{1 + n % 2} kind {'abcdefghijklmnopqrstuvwxyz'[n]}")


def test_the_first_five_must_all_be_refused() -> None:
    """So that a queue of twelve is protected too."""
    assert fed(RefusalDetector(), map(mixed, range(5))) == [""] * 4 + ["ratio"]
    detector = RefusalDetector()
    accept(detector, 20)
    assert fed(detector, map(mixed, range(8))) == [""] * 8
    assert fed(detector, [mixed(8)]) == ["ratio"]  # ten by now: a share


@pytest.mark.parametrize(("refused", "trigger"), [(10, ""), (11, "ratio")])
def test_more_than_half_of_the_last_twenty_is_too_much(
    refused: int, trigger: str
) -> None:
    """Half is not."""
    detector = RefusalDetector()
    accept(detector, *range(100, 120 - refused))
    last = fed(detector, map(mixed, range(refused)))[-1]
    assert last == trigger


def test_only_the_last_twenty_recipients_vote() -> None:
    """What a healthy primary took this morning says nothing of now."""
    detector = RefusalDetector()
    accept(detector, *range(100, 1000))
    found = fed(detector, map(mixed, range(11)))
    assert found == [""] * 10 + ["ratio"]


def test_a_recipient_has_one_vote_by_its_latest_ending() -> None:
    """One busy mailbox neither hides refusals nor makes them many."""
    detector = RefusalDetector()
    accept(detector, *[50] * 100)
    assert fed(detector, map(mixed, range(9)))[-1] == "ratio"
    again = RefusalDetector()
    assert fed(again, [mixed(3)] * 30) == [""] * 30
    turned = RefusalDetector()
    fed(turned, map(mixed, range(4)))
    accept(turned, 0, 1, 2, 3)
    assert fed(turned, map(mixed, range(4, 8))) == [""] * 4


def test_refused_contents_do_not_vote() -> None:
    """Nine of ten messages at a backup may be spam."""
    text = "554 5.7.1 Spam of kind "
    some = [nth(n, text + "ab"[n % 2], Stage.DOT) for n in range(40)]
    assert fed(RefusalDetector(), some) == [""] * 40


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60))
def test_fewer_than_five_recipients_never_make_a_share(
    endings: list[tuple[int, bool]],
) -> None:
    """However often they are tried."""
    detector = RefusalDetector()
    for n, accepted in endings:
        if accepted:
            accept(detector, n % 4)
        else:
            assert detector.record_refusal(mixed(n % 4), NOW) is None


# ---- the route


def in_domain(n: int, domain: str) -> Refusal:
    """Return the refusal of a recipient in this domain."""
    return seen("550 no", f"u{n}@{domain}", sender_domain=f"s{n}.example")


def test_the_route_is_suspected_for_two_recipient_domains() -> None:
    """One dead domain of three stops no other."""
    route = RefusalDetector(domains=2)
    assert fed(route, (in_domain(n, "a.example") for n in range(30))) == [""] * 30
    assert route.record_refusal(in_domain(99, "b.example"), NOW) is not None


# ---- what was answered


def test_what_was_answered_is_muted_for_a_time() -> None:
    """A dictionary attack yields thousands of true refusals."""
    detector = RefusalDetector()
    detector.mute(nth(0).fingerprint, NOW)
    assert fed(detector, map(nth, range(3))) == [""] * 3
    later = NOW + MUTED_FOR
    assert not detector.is_muted(nth(0).fingerprint, later)
    assert detector.record_refusal(nth(3), later) is not None


def test_what_was_answered_is_muted_for_so_many_messages() -> None:
    """Whichever comes first."""
    detector, fingerprint = RefusalDetector(), nth(0).fingerprint
    detector.mute(fingerprint, NOW)
    asked = [detector.is_muted(fingerprint, NOW) for _ in range(MUTED_COUNT + 1)]
    assert asked == [True] * MUTED_COUNT + [False]


def test_another_refusal_is_not_muted_with_it() -> None:
    """Only the share is, for as long: it would ask the same again."""
    detector = RefusalDetector()
    detector.mute("another", NOW)
    assert fed(detector, map(nth, range(3))) == ["", "", "run"]
    apart = RefusalDetector()
    apart.mute("another", NOW)
    assert fed(apart, map(mixed, range(6))) == [""] * 6


# ---- storms


@pytest.mark.parametrize(
    ("text", "storm"),
    [
        ("451 4.3.0 Out of sorts", True),
        ("451 later", True),
        ("452 4.3.4 x", False),  # held: the message is too big
        ("450 4.3.5 x", False),  # a brief stop of its own
        ("450 4.4.3 Directory failure", True),
        ("450 4.2.0 Busy", False),
        ("451 4.7.1 Greylisted", False),
        ("452 4.2.2 Mailbox full", False),
        ("550 5.1.1 x", False),
    ],
)
def test_a_storm_is_about_the_primary_itself(text: str, *, storm: bool) -> None:
    """Greylisting and full mailboxes are no storm."""
    one = nth(1, text)
    assert is_storm(one.classification, one.answer) is storm


def test_too_many_recipients_and_losses_are_no_storm() -> None:
    """The first is our own transaction's size."""
    many = seen("452 x", "u@example.org")
    judged = classify(many.answer, Stage.RCPT, accepted=3)
    assert not is_storm(judged, many.answer)
    lost = Lost(reason="reset")
    assert not is_storm(classify(lost, Stage.BODY), lost)


def test_ten_recipients_in_a_row_make_a_storm() -> None:
    """Three are enough where nothing was delivered; then it counts from zero."""
    text = "451 4.3.0 Out of sorts, id {n}"
    for took, expected in ((True, [9]), (False, [2, 5, 8, 11, 14, 17])):
        detector = RefusalDetector()
        found = [detector.record_delay(nth(n, text), took=took) for n in range(19)]
        assert [n for n, is_storm in enumerate(found) if is_storm] == expected


def test_an_acceptance_ends_a_storm() -> None:
    """Then it is not the primary that is sick."""
    detector, text = RefusalDetector(), "451 4.3.0 Out of sorts"
    for n in range(9):
        assert not detector.record_delay(nth(n, text), took=True)
    accept(detector, 50)
    assert not detector.record_delay(nth(9, text), took=True)


def test_muting_lasts_no_longer_than_the_canary_is_believed() -> None:
    """A quarter of an hour, or fifty messages."""
    assert timedelta(minutes=15) == MUTED_FOR
    assert MUTED_COUNT == 50


# ---- slow answers


def test_ten_slow_answers_in_a_row_are_too_many() -> None:
    """A quick one between them begins anew; so does the rest that they ask for."""
    detector = RefusalDetector()
    slow, quick = USUAL_WINDOWS.slow, USUAL_WINDOWS.slow - 1
    assert not any(detector.slow(slow) for _ in range(SLOW_RUN - 1))
    assert not detector.slow(quick)
    found = [detector.slow(slow) for _ in range(2 * SLOW_RUN)]
    assert [n for n, each in enumerate(found) if each] == [9, 19]
