"""What an ending means: by stage, by basic code, by enhanced code.

The tables below were written from the RFCs and the IANA registry, not from the code.
"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.message import PROBLEMS, Problem
from drainer.mail.reply import Lost, Reply, Stage, parse_reply
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from tests.support.rows import every_row

#: How a cell is written: verdict, scope, tried again soon.
CELLS: dict[str, tuple[Verdict, Scope | None, bool]] = {
    "D": (Verdict.DELIVER, None, False),
    "R": (Verdict.RETRY, None, False),
    "RL": (Verdict.RETRY_LONG, Scope.RECIPIENT, False),
    "B": (Verdict.BOUNCE, Scope.RECIPIENT, False),
    "B*": (Verdict.BOUNCE, Scope.MESSAGE, False),
    "H": (Verdict.HOLD, None, False),
    "S": (Verdict.STOP, Scope.ROUTE, False),
    "s": (Verdict.STOP, Scope.ROUTE, True),
    "Sd": (Verdict.STOP, Scope.DOMAIN, False),
    "U": (Verdict.UNKNOWN, Scope.MESSAGE, False),
}


def check(classification: Classification, cell: str) -> None:
    """Compare a judgement with a cell."""
    verdict, scope, short = CELLS[cell]
    assert classification.verdict is verdict, classification
    assert classification.short is short, classification
    if scope is not None:
        assert classification.scope is scope, classification
    assert classification.rule
    assert classification.reason
    assert classification.counts is (verdict is not Verdict.STOP)


def said(text: str) -> Reply:
    """Return the reply as it is parsed."""
    return parse_reply(text.encode() + b"\r\n")


# ---- the stage table: class of the reply x stage


STAGES = """
stage     2xx 3xx 4xx 5xx none
connect   .   s   s   S   s
banner    .   s   s   S   s
ehlo      .   s   s   S   s
starttls  .   s   s   S   s
auth      .   s   s   S   s
mail      .   R   R   B*  R
rcpt      D   R   R   B   R
data      R   .   R   B*  R
dot       D   R   R   B*  U
"""
REPLIES = {"2xx": "250 x", "3xx": "354 x", "4xx": "450 x", "5xx": "550 x"}
_head, *_rows = [line.split() for line in STAGES.strip().splitlines()]
STAGE_CELLS = [
    (row[0], column, cell)
    for row in _rows
    for column, cell in zip(_head[1:], row[1:], strict=True)
    if cell != "."
]


@every_row(STAGE_CELLS)
def test_stage_table(stage: str, column: str, cell: str) -> None:
    """Before MAIL nothing is about a message; after the dot no reply is a doubt."""
    answer = Lost(reason="closed") if column == "none" else said(REPLIES[column])
    check(classify(answer, Stage(stage)), cell)


EARLY_CODES = (
    421, 432, 450, 451, 454, 500, 501, 502, 504, 521, 525, 530, 534, 535, 538, 550, 554,
)  # fmt: skip


@every_row(
    itertools.product(
        (stage for stage in Stage if stage.before_mail),
        EARLY_CODES,
        ("", ".1.1 ", ".7.13 ", ".2.1 ", ".3.0 "),
    )
)
def test_before_mail_every_refusal_is_one_of_us(
    stage: Stage, code: int, enhanced: str
) -> None:
    """Even a code that would be a bounce at RCPT: Exim and Haraka bounce here."""
    text = f"{code} {code // 100}{enhanced}x" if enhanced else f"{code} x"
    check(classify(said(text), stage), "s" if code < 500 else "S")


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
@pytest.mark.parametrize("text", ["421 bye", "421 4.7.0 bye", "421 4.2.2 full"])
def test_421_closes_the_route_at_any_moment(stage: Stage, text: str) -> None:
    """It is no verdict on a message, and spends no attempt."""
    check(classify(said(text), stage), "s")


def test_421_after_the_dot_is_a_reply() -> None:
    """The message was not taken, and that is certain: tried again, not in doubt."""
    check(classify(said("421 4.3.2 closing"), Stage.DOT), "R")


@pytest.mark.parametrize(
    "text",
    ["452 4.3.1 disk full", "451 4.3.0 write error", "451 4.3.2 x", "452 4.3.0 x"],
)
def test_a_full_or_sick_system_at_mail_pauses_the_route(text: str) -> None:
    """451 and 452 with 4.3.x there concern everybody."""
    check(classify(said(text), Stage.MAIL), "s")


@pytest.mark.parametrize("text", ["451 4.7.1 greylisted", "452 x", "450 4.3.0 x"])
def test_other_temporary_refusals_at_mail_concern_the_message(text: str) -> None:
    """Greylisting by sender, for instance."""
    check(classify(said(text), Stage.MAIL), "R")


LOSSES = ("closed", "reset", "timeout", "protocol")


@pytest.mark.parametrize("reason", LOSSES)
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY])
def test_what_is_lost_before_the_final_dot_is_tried_again(
    stage: Stage, reason: str
) -> None:
    """The primary discards a partial body: nothing can be doubled."""
    check(classify(Lost(reason=reason), stage), "R")


@pytest.mark.parametrize("reason", [*LOSSES, "tls"])
def test_what_is_lost_after_the_final_dot_is_in_doubt(reason: str) -> None:
    """RFC 1047: the primary may have queued it; nobody can know."""
    check(classify(Lost(reason=reason), Stage.DOT), "U")


def test_a_failed_handshake_is_as_good_as_a_refusal() -> None:
    """Waiting does not mend a certificate."""
    check(classify(Lost(reason="tls"), Stage.STARTTLS), "S")
    check(classify(Lost(reason="closed"), Stage.STARTTLS), "s")


@pytest.mark.parametrize("code", [200, 211, 220, 250, 251, 252, 299])
def test_any_2xx_at_rcpt_and_dot_is_an_acceptance(code: int) -> None:
    """RFC 5321 4.2.1: the first digit decides; 252 cannot verify and accepts."""
    for stage in (Stage.RCPT, Stage.DOT):
        check(classify(said(f"{code} discarded, really"), stage), "D")


@pytest.mark.parametrize("code", [334, 350, 399])
def test_no_other_3xx_is_a_go_ahead(code: int) -> None:
    """Only 354 asks for content: nothing else is ever taken for a delivery."""
    check(classify(said(f"{code} x"), Stage.DATA), "R")


# ---- basic codes


BASIC = """
code mail rcpt data dot
432  RL   RL   RL   RL
450  R    R    R    R
451  R    R    R    R
452  R    R    R    R
454  s    s    s    s
455  R    R    R    R
458  R    R    R    R
499  R    R    R    R
500  H    H    H    H
501  H    H    H    H
502  H    H    H    H
503  H    H    H    H
504  H    H    H    H
521  S    S    S    S
523  S    S    S    S
524  S    S    S    S
525  S    S    S    S
530  S    S    S    S
534  S    S    S    S
535  S    S    S    S
538  S    S    S    S
541  B*   B*   B*   B*
550  B*   B    B*   B*
551  B*   B    B*   B*
552  B*   B    B*   B*
553  B*   B    B*   B*
554  B*   B    B*   B*
555  H    H    H    H
556  Sd   Sd   Sd   Sd
571  B*   B    B*   B*
580  B*   B    B*   B*
599  B*   B    B*   B*
"""
_head, *_rows = [line.split() for line in BASIC.strip().splitlines()]
BASIC_CELLS = [
    (row[0], stage, cell)
    for row in _rows
    for stage, cell in zip(_head[1:], row[1:], strict=True)
]


@every_row(BASIC_CELLS)
def test_basic_codes(code: str, stage: str, cell: str) -> None:
    """When no enhanced code says more, the basic one decides, by stage."""
    classification = classify(said(f"{code} some words"), Stage(stage))
    check(classification, cell)
    assert classification.rule == f"basic-{code}"


@pytest.mark.parametrize("generic", ["0.0", "1.0", "7.0", "7.1"])
@pytest.mark.parametrize(
    ("code", "cell"),
    [("450", "R"), ("454", "s"), ("530", "S"), ("550", "B"), ("554", "B")],
)
def test_a_generic_enhanced_code_leaves_it_to_the_basic_code(
    code: str, generic: str, cell: str
) -> None:
    """X.7.1 says everything from relay denied to spam: nothing, that is."""
    check(classify(said(f"{code} {code[0]}.{generic} x"), Stage.RCPT), cell)


OUTRANKING = {
    "521 5.2.1 no": "S",
    "521 5.1.1 no such address": "B",
    "523 5.2.1 disabled": "B",
    "524 5.2.4 Mailing list expansion problem": "B",
    "524 5.7.10 encrypt": "S",
    "541 5.4.1 rejected by the destination domain": "B*",
    "550 5.7.133 authentication required": "B",
    "550 5.7.133 relaying denied": "B",
    "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found": "B",
    "550 5.1.10 null MX": "Sd",
    "550 5.1.2 Mailbox not found": "B",
    "550 5.1.2 domain not found": "Sd",
    "530 5.5.1 authentication required": "S",
    "530 5.1.1 log in": "S",
    "535 5.5.4 bad credentials": "S",
    "432 4.3.2 mailbox throttled": "RL",
    "525 5.7.13 the recipient is disabled": "B",
    "501 5.1.3 bad address": "B",
    "552 5.2.2 over quota": "RL",
    "552 5.3.4 too big": "B*",
    "452 4.2.2 over quota": "RL",
    "553 5.1.8 your domain": "B*",
    "556 5.1.10 null MX": "Sd",
}


@pytest.mark.parametrize(("text", "cell"), OUTRANKING.items(), ids=list(OUTRANKING))
def test_which_code_outranks_which(text: str, cell: str) -> None:
    """Usually the enhanced one; a code that is about us outranks it."""
    check(classify(said(text), Stage.RCPT), cell)


# ---- enhanced codes: the whole registry


REGISTRY = """
1.1 R B
1.2 R Sd
1.3 R B
1.4 R H
1.5 R H
1.6 R B
1.7 R B*
1.8 R B*
1.9 R H
1.10 R Sd
2.0 R B
2.1 RL B
2.2 RL RL
2.3 R B
2.4 RL B
3.0 R H
3.1 s S
3.2 s S
3.3 R B*
3.4 H B*
3.5 s S
3.6 R H
4.0 R H
4.1 R H
4.2 R H
4.3 R S
4.4 R Sd
4.5 s H
4.6 H H
4.7 R H
5.0 R H
5.1 R H
5.2 R H
5.3 R R
5.4 R H
5.5 R H
5.6 S S
6.0 R B*
6.1 R B*
6.2 R B*
6.3 R B*
6.4 R B*
6.5 R B*
6.6 R B*
6.7 R B
6.8 R H
6.9 R B*
6.10 R H
7.2 R B
7.3 R B*
7.4 R H
7.5 R H
7.6 R H
7.7 R B*
7.8 S S
7.9 S S
7.10 S S
7.11 S S
7.12 S S
7.13 RL B
7.14 S S
7.15 RL H
7.16 RL B*
7.17 R B
7.18 R B
7.19 R H
7.20 R B*
7.21 R B*
7.22 R B*
7.23 R H
7.24 R H
7.25 S S
7.26 R H
7.27 R B*
7.28 s S
7.29 R B*
7.30 R B*
7.51 s S
7.54 s Sd
7.57 s S
7.60 s H
7.64 s S
7.120 R B
7.133 R B
7.136 R B
7.137 R B
7.367 s Sd
7.505 s B
7.506 s S
7.507 s S
7.508 s s
7.510 s S
7.512 s B*
7.513 s S
7.515 s H
7.703 s S
7.750 s S
2.121 RL RL
2.122 RL RL
4.11 H H
4.14 H H
6.11 R H
7.500 s B
7.509 s H
7.511 s S
7.606 s S
7.649 s S
7.650 s B
7.699 s B
7.850 s B
7.899 s B
7.700 R B
"""
REGISTRY_CELLS = [
    (f"{digit}50 {digit}.{detail}", cell)
    for detail, four, five in (line.split() for line in REGISTRY.split("\n") if line)
    for digit, cell in ((4, four), (5, five))
]


@every_row(REGISTRY_CELLS)
def test_enhanced_codes(text: str, cell: str) -> None:
    """Every row of the registry, with class 4 and with class 5, at RCPT."""
    check(classify(said(f"{text} some words"), Stage.RCPT), cell)


@every_row(itertools.product((Stage.DATA, Stage.DOT), REGISTRY_CELLS))
def test_enhanced_codes_later(stage: Stage, row: tuple[str, str]) -> None:
    """From DATA on a bounce concerns the message; 5.7.9 is about its content there."""
    text, cell = row
    expected = {"B": "B*"}.get(cell, cell)
    if text.endswith("5.7.9"):
        expected = "B*"
    check(classify(said(f"{text} some words"), stage), expected)


@every_row(REGISTRY_CELLS)
def test_a_class_that_disagrees_is_not_honoured(text: str, cell: str) -> None:
    """550 with 4.y.z and 450 with 5.y.z: the reply code wins (RFC 5321 4.2.1)."""
    del cell
    code, enhanced = text.split()
    other = "4" if code[0] == "5" else "5"
    classification = classify(said(f"{code} {other}{enhanced[1:]} x"), Stage.RCPT)
    check(classification, "R" if code[0] == "4" else "B")


# ---- too many recipients


TOO_MANY = (
    "452 x", "452 4.5.3 x", "552 x", "552 5.5.3 x", "550 5.5.3 x", "451 4.5.3 x",
    "452 4.0.0 x", "552 5.5.0 x",
)  # fmt: skip


@pytest.mark.parametrize("text", TOO_MANY)
def test_too_many_recipients_after_an_acceptance_is_no_failure(text: str) -> None:
    """RFC 5321 4.5.3.1.10: sent in another transaction, and no attempt is spent."""
    classification = classify(said(text), Stage.RCPT, accepted=1)
    assert classification.verdict is Verdict.RETRY
    assert classification.counts is False
    assert classification.rule == "rcpt-too-many"


@pytest.mark.parametrize(
    "text",
    ["550 Too many recipients", "554 5.7.1 Maximum number of recipients exceeded"],
)
def test_too_many_recipients_in_words_is_temporary(text: str) -> None:
    """RFC 5321 4.5.3.1.10, whatever the code: another transaction, or a later one."""
    again = classify(said(text), Stage.RCPT, accepted=1)
    assert (again.rule, again.counts) == ("rcpt-too-many", False)
    for stage in (Stage.RCPT, Stage.DATA, Stage.DOT):
        later = classify(said(text), stage)
        assert (later.verdict, later.counts) == (Verdict.RETRY, True)


@pytest.mark.parametrize("text", TOO_MANY)
def test_too_many_recipients_at_the_first_one_is_an_ordinary_refusal(text: str) -> None:
    """Nobody was accepted, so that it cannot be a limit."""
    classification = classify(said(text), Stage.RCPT, accepted=0)
    assert classification.rule != "rcpt-too-many"
    assert classification.counts is True


@pytest.mark.parametrize(
    "text",
    ["452 4.2.2 full", "552 5.2.2 full", "552 5.3.4 big", "450 x", "550 5.1.1 x"],
)
def test_quota_and_size_are_never_too_many_recipients(text: str) -> None:
    """Whoever was accepted before."""
    classification = classify(said(text), Stage.RCPT, accepted=5)
    assert classification.rule != "rcpt-too-many"


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.DATA, Stage.DOT])
def test_too_many_recipients_is_said_at_rcpt_alone(stage: Stage) -> None:
    """Elsewhere 452 means storage."""
    classification = classify(said("452 x"), stage, accepted=5)
    assert classification.rule == "basic-452"


# ---- mixed, malformed, our own


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
@pytest.mark.parametrize(
    "text",
    [
        "250-ok\r\n550 no",
        "450-5.1.1 x\r\n550 5.1.1 x",
        "451-5.6.0 x\r\n554 5.6.0 x",
        "451-x\r\n541 x",
        "421-x\r\n599 x",
    ],
)
def test_lines_that_disagree_are_never_permanent(text: str, stage: Stage) -> None:
    """A person looks at it."""
    classification = classify(said(text), stage)
    assert classification.verdict is Verdict.HOLD


@pytest.mark.parametrize("stage", list(Stage))
def test_what_is_no_reply_is_never_permanent(stage: Stage) -> None:
    """Haraka bounces on a line that it cannot parse."""
    classification = classify(Lost(reason="protocol", detail="garbage"), stage)
    assert classification.verdict in (Verdict.STOP, Verdict.RETRY, Verdict.UNKNOWN)


@every_row(PROBLEMS)
def test_our_own_refusal_holds_the_message(code: str) -> None:
    """Nothing that we refuse to send is ever bounced for it."""
    classification = classify(Problem(code=code, detail="x"), Stage.MAIL)
    check(classification, "H")
    assert classification.rule == f"local-{code}"
    assert classification.scope is Scope.MESSAGE


DETAILS = st.one_of(
    st.just(""),
    st.builds(".{}.{} ".format, st.integers(0, 9), st.integers(0, 999)),
)


@given(st.integers(200, 599), DETAILS, st.sampled_from(Stage), st.integers(0, 3))
def test_the_first_digit_bounds_the_verdict(
    code: int, detail: str, stage: Stage, accepted: int
) -> None:
    """2xx and 3xx never refuse, 4xx never bounces, 5xx never delivers; no other exists."""  # noqa: E501
    text = f"{code} {code // 100}{detail}x" if detail else f"{code} x"
    classification = classify(said(text), stage, accepted=accepted)
    legal = {
        2: {Verdict.DELIVER, Verdict.RETRY, Verdict.STOP},
        3: {Verdict.DELIVER, Verdict.RETRY, Verdict.STOP},
        4: {Verdict.RETRY, Verdict.RETRY_LONG, Verdict.HOLD, Verdict.STOP},
        5: set(Verdict) - {Verdict.DELIVER, Verdict.UNKNOWN},
    }
    assert classification.verdict in legal[code // 100]
    if stage.before_mail and code >= 400:
        assert classification.verdict is Verdict.STOP


@every_row(itertools.product(Stage, (*LOSSES, "tls", "refused")))
def test_a_loss_never_bounces_and_never_delivers(stage: Stage, reason: str) -> None:
    """No reply is no verdict."""
    classification = classify(Lost(reason=reason), stage)
    assert classification.verdict in (Verdict.STOP, Verdict.RETRY, Verdict.UNKNOWN)


@pytest.mark.parametrize(
    "text", ["550-5.1.1 no\r\n551 5.1.1 no", "550-Unknown user\r\n551 Unknown user"]
)
def test_lines_that_disagree_condemn_nobody(text: str) -> None:
    """Neither by the code nor by the words."""
    judged = classify(said(text), Stage.RCPT)
    assert (judged.verdict, judged.rule) == (Verdict.HOLD, "mixed-codes")
