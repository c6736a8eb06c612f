"""Whose mail is sent: ``[primary] domains``."""

from datetime import UTC, datetime

import pytest

from drainer.mail.content import HeldContent
from drainer.mail.envelope import Envelope, Recipient
from drainer.mail.message import ContentFacts, Message, Problem, SpooledMessage
from drainer.policy.admission.admit import Admission, ContentLimits, admit
from drainer.policy.admission.routes import RouteTable, single_route
from drainer.policy.recipient.delivery import ScannedMessage


@pytest.mark.parametrize(
    ("domains", "address", "foreign"),
    [
        pytest.param((), "a@example.net", False, id="no list means all"),
        pytest.param(("example.org",), "a@Example.ORG", False, id="in any case"),
        pytest.param(("example.org",), "a@sub.example.org", True, id="not below it"),
        pytest.param((".example.org",), "a@sub.example.org", False, id="below it"),
        pytest.param((".example.org",), "a@b.c.example.org", False, id="far below it"),
        pytest.param((".example.org",), "a@example.org", True, id="only below it"),
        pytest.param((".example.org",), "a@notexample.org", True, id="whole labels"),
        pytest.param((".example.org",), "", False, id="no address"),
        pytest.param(("example.org",), "a@[192.0.2.1]", True, id="a literal"),
    ],
)
def test_a_domain_is_named_or_lies_below_one_with_a_dot(
    *, domains: tuple[str, ...], address: str, foreign: bool
) -> None:
    """As ``relay_domains`` of Postfix has it."""
    assert (
        Admission(routes=single_route("", tuple(domains))).foreign(
            Recipient(forward_path=address)
        )
        is foreign
    )


PLAIN = ContentFacts(
    size_bytes=20,
    has_8bit=False,
    header_8bit=False,
    bare_newlines=0,
    hops=48,
)


def scanned(
    facts: ContentFacts | None = PLAIN,
    *,
    problem: Problem | None = None,
    admission: Admission | None = None,
    to: tuple[str, ...] = ("a@example.org", "b@example.net"),
) -> ScannedMessage:
    """Admit a message to two recipients."""
    message = Message(
        identity="0" * 32,
        source="maildir:/spool",
        native_id="x",
        queue="new",
        locator="new/x",
        arrived=datetime(2026, 11, 23, tzinfo=UTC),
        envelope=Envelope(recipients=tuple(Recipient(forward_path=p) for p in to)),
        problem=problem,
    )
    spooled = SpooledMessage(message=message, content=HeldContent(b"x\r\n"))
    return admit(spooled, facts, admission or Admission())


CORRUPT = Problem(code="corrupt", detail="x")


def codes(found: ScannedMessage) -> tuple[str, ...]:
    """Return what holds each recipient; '' = nothing."""
    return tuple(each.code if each else "" for each in found.problems)


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        pytest.param(scanned(), ("", ""), id="nothing is wrong"),
        pytest.param(scanned(None), ("", ""), id="nobody has looked"),
        pytest.param(
            scanned(admission=Admission(routes=single_route("", ("example.org",)))),
            ("", "not-for-this-primary"),
            id="one recipient is not for this primary",
        ),
        pytest.param(
            scanned(PLAIN._replace(bare_newlines=1)),
            ("bare-newline", "bare-newline"),
            id="a bare newline holds all",
        ),
        pytest.param(
            scanned(
                PLAIN._replace(bare_newlines=1),
                admission=Admission(usual_limits=ContentLimits(bare_newlines="space")),
            ),
            ("", ""),
            id="unless the operator has it replaced",
        ),
        pytest.param(
            scanned(PLAIN._replace(size_bytes=0)),
            ("corrupt", "corrupt"),
            id="nothing to send",
        ),
        pytest.param(
            scanned(PLAIN._replace(hops=49)),
            ("too-many-hops", "too-many-hops"),
            id="a loop",
        ),
        pytest.param(scanned(problem=CORRUPT), ("corrupt", "corrupt"), id="damage"),
        pytest.param(
            scanned(problem=CORRUPT, to=()), ("corrupt",), id="nobody is known"
        ),
        pytest.param(
            scanned(problem=Problem(code="done-by-backup", detail="x"), to=()),
            (),
            id="nothing is left to do",
        ),
    ],
)
def test_a_message_is_admitted_recipient_by_recipient(
    found: ScannedMessage, problems: tuple[str, ...]
) -> None:
    """What is wrong with the message holds each of them, by name."""
    assert codes(found) == problems
    whole = set(problems) - {"", "not-for-this-primary"}
    assert {found.problem.code if found.problem else ""} == (whole or {""})


def test_a_message_that_is_damaged_is_so_before_it_is_a_loop() -> None:
    """The problem of the spool comes first."""
    message = scanned(problem=CORRUPT).spooled.message
    facts = PLAIN._replace(hops=99, bare_newlines=1)
    assert Admission().problem(message, facts) == CORRUPT


def test_each_route_has_its_own_limits_for_content() -> None:
    """What one primary must not get goes to the other."""
    table = RouteTable(domains={"example.org": "a:25", "example.net": "b:25"})
    rules = Admission(
        routes=table,
        limits={"b:25": ContentLimits(max_hops=60, bare_newlines="space")},
    )
    loop = scanned(PLAIN._replace(hops=50), admission=rules)
    assert (loop.problem, codes(loop)) == (None, ("too-many-hops", ""))
    bare = scanned(PLAIN._replace(bare_newlines=1), admission=rules)
    assert codes(bare) == ("bare-newline", "")
    far = scanned(PLAIN._replace(hops=61), admission=rules)
    assert codes(far) == ("too-many-hops", "too-many-hops")
